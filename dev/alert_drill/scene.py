"""The service under test: real processes with their own PostgreSQL and sandbox."""

import contextlib
import itertools
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
import requests

from dev.alert_drill.inbox import Inbox
from dev.benchmarks.stage import Sandbox, Server, Stage, wait_until
from dev.monitoring.programs import Target, free_port
from rdservice.access import keys
from scripts.local.embedded_postgres import EmbeddedPostgres
from scripts.local.sandbox_consent import obtain_tokens

SETTINGS = {
    # Cached leads are stale after a second.
    "RDSTATION_CACHE_TTL": "1",
    # The drill must reach RD Station's limit, not this one.
    "RDSTATION_RATE_LIMIT": "100000",
}
SCOPES = ("tokens:write", "tokens:status", "leads:read")
DAY_S = 86_400
WEB_PROCESSES = 2
# More than the concurrent requests when each takes six seconds.
ASKERS = 64
ASK_EVERY_S = 0.2
PAGE_SIZES = 125
LONGEST_ANSWER_S = 30


class Scene:
    """A context manager: two web processes, a worker, and one connected account."""

    def __init__(self, postgres: EmbeddedPostgres, folder: Path) -> None:
        self.postgres = postgres
        self.inbox = Inbox()
        self._stage = Stage(postgres, "drill", folder / "drill", SETTINGS)
        self._port = free_port()
        self._pages = itertools.count()
        self._web: Server | None = None
        self._worker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as ends:
            ends.enter_context(self.inbox)
            ends.enter_context(self._stage)
            self._session = ends.enter_context(requests.Session())
            # Ignores the machine's proxy settings for these requests.
            self._session.trust_env = False
            key = keys.create(self._stage.conn, "dev/drill", SCOPES, created_by="dev/drill")
            self._session.headers["Authorization"] = f"Bearer {key}"
            self._askers = ThreadPoolExecutor(ASKERS, thread_name_prefix="asker")
            ends.callback(lambda: self._askers.shutdown(wait=False, cancel_futures=True))
            self.sandbox.patch(rate_limit=None)
            self.start_web()
            self.start_worker()
            self.connect()
            self._ends = ends.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    @property
    def sandbox(self) -> Sandbox:
        return self._stage.sandbox

    @property
    def target(self) -> Target:
        """The target that Prometheus scrapes."""
        return Target(address=f"127.0.0.1:{self._port}", token=self._stage.settings.metrics_tokens[0])

    def start_web(self) -> None:
        self._web = self._stage.web(workers=WEB_PROCESSES, port=self._port)

    def stop_web(self) -> None:
        if self._web is not None:
            self._stage.stop(self._web.process)

    def start_worker(self, **variables: str) -> None:
        self._worker = self._stage.worker(**variables)

    def stop_worker(self) -> None:
        if self._worker is not None:
            self._stage.stop(self._worker)

    def stop_database(self) -> None:
        """Stop PostgreSQL cleanly."""
        os.kill(self.postgres.pid or 0, signal.SIGINT)
        wait_until(lambda: not self.postgres.is_running, "the database is down", 20)

    def execute(self, statements: str) -> None:
        """Run SQL in the service's database."""
        with psycopg.connect(self._stage.settings.database_url, autocommit=True) as conn:
            conn.execute(statements.encode())

    def connect(self, *, lifetime_s: int = DAY_S) -> None:
        """Upload a new pair of tokens with an access token of this lifetime."""
        self.sandbox.patch(access_token_lifetime=lifetime_s)
        settings = self._stage.settings
        pair = obtain_tokens(
            self.sandbox.url,
            client_id=settings.client_id,
            client_secret=settings.client_secrets[0],
            redirect_uri=settings.redirect_uri,
        )
        body = {
            "access_token": pair.access_token,
            "refresh_token": pair.refresh_token,
            "expires_in": pair.expires_in,
        }
        self._session.post(self._url("/rd/tokens"), json=body, timeout=LONGEST_ANSWER_S).raise_for_status()

    def refresh(self) -> None:
        """Request a refresh now and ignore its result."""
        self._session.post(self._url("/rd/tokens/default/refresh"), timeout=LONGEST_ANSWER_S)

    def fail(self, operation: str, status: int) -> None:
        """Make the sandbox respond to every call of this operation with `status`."""
        self.sandbox.patch(faults=[{"operation": operation, "kind": "status", "status": status}])

    def heal(self) -> None:
        """Remove all faults from the sandbox."""
        self.sandbox.patch(faults=[], latency_ms=0, rate_limit=None)

    def read_new_leads(self) -> None:
        """Request leads that are not in the cache."""
        page, size = divmod(next(self._pages), PAGE_SIZES)
        self._ask(f"/rd/leads?page={page + 1}&page_size={size + 1}")

    def read_old_leads(self) -> None:
        """Request leads that are in the cache."""
        self._ask("/rd/leads?order=created_at:desc")

    def list_accounts(self, times: int) -> None:
        """Send `times` requests that need no call to RD Station."""
        for _ in range(times):
            self._get("/rd/tokens")

    def _ask(self, path: str) -> None:
        self._askers.submit(self._get, path)
        time.sleep(ASK_EVERY_S)

    def _get(self, path: str) -> Any:
        # The failure is intended.
        with contextlib.suppress(requests.RequestException):
            return self._session.get(self._url(path), timeout=LONGEST_ANSWER_S).status_code

    def _url(self, path: str) -> str:
        return f"http://{self.target.address}{path}"
