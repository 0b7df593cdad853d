"""PostgreSQL stops and starts again under load: no token is lost, no process ends, callers are told to come back."""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from rdservice.access import keys
from rdservice.database import migrate
from rdservice.encryption import KeyRing
from rdservice.tokens import store
from rdservice.tokens.leases import LEASE_S
from scripts.local.embedded_postgres import EmbeddedPostgres
from tests.conftest import Clock
from tests.support.processes import Processes, ServiceProcess
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

ACCOUNTS = 200
LIFETIME_S = 10
LONG_LIFETIME_S = 3_600
LEFT = """
SELECT count(*), count(*) FILTER (WHERE leased_until > rd_now() AND attempted_at < rd_now() - interval '5 s')
  FROM rdstation_tokens
 WHERE status <> 'connected' OR expires_at < now() + interval '10 min'
"""
TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.05
"""
HOW_IT_STOPS = {
    "fast shutdown": signal.SIGINT,
    "immediate shutdown": signal.SIGQUIT,
    "kill -9": signal.SIGKILL,
}


@pytest.fixture
def durable_postgres(
    postgres_programs: Path | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedPostgres]:
    """A server with the service's tables that keeps what it has committed when it is killed.

    Only the power must stay on: nothing waits for the disk.
    """
    folder = tmp_path_factory.mktemp("durable-postgres")
    with EmbeddedPostgres(folder, bin_dir=postgres_programs, settings={"fsync": "off"}) as server:
        with psycopg.connect(server.url, autocommit=True) as conn:
            migrate.migrate(conn)
        yield server


@pytest.mark.fault(
    "postgresql-restarted",
    "PostgreSQL is stopped, stopped at once, and killed under load, and started again",
    "no token lost; callers get 200 or 503; worker and web go on",
)
def test_postgresql_restarted_under_load_loses_nothing(
    processes: Processes, durable_postgres: EmbeddedPostgres, sandbox: SandboxProcess
) -> None:
    url = durable_postgres.url
    with everything_under_load(processes, url, sandbox) as worker:
        for name in ("fast shutdown", "immediate shutdown"):
            stop(durable_postgres, name, sandbox)
            start(durable_postgres, name, sandbox)
        stop(durable_postgres, "kill -9", sandbox)
        # For longer than a write waits for a connection: the answers are kept, and written later.
        worker.wait_until_it_says("did not take a write")
        start(durable_postgres, "kill -9", sandbox)
        assert durable_postgres.url == url


@pytest.mark.long
@pytest.mark.fault(
    "connections-terminated",
    "connections are terminated at the server again and again, mid-query and idle, under load",
    "no token lost or exchanged twice at once; callers get 200 or 503; worker and web go on",
)
def test_connections_that_are_terminated_all_the_time_lose_nothing(
    processes: Processes, durable_postgres: EmbeddedPostgres, sandbox: SandboxProcess
) -> None:
    url = durable_postgres.url
    with everything_under_load(processes, url, sandbox), psycopg.connect(url, autocommit=True) as conn:
        enough = exchanges(sandbox) + ACCOUNTS
        terminated = 0

        def renewals_go_on() -> bool:
            nonlocal terminated
            terminated += conn.execute(TERMINATE).rowcount
            return exchanges(sandbox) >= enough

        wait_until(renewals_go_on, "renewals go on", seconds=60)
        assert terminated > 50


@contextmanager
def everything_under_load(
    processes: Processes, url: str, sandbox: SandboxProcess
) -> Iterator[ServiceProcess]:
    """Run web, worker and callers on accounts whose tokens rotate and last for seconds; yield the worker.

    Shows at the end that all went on, that callers were served or told to come back, and that no token was lost.
    """
    ring = KeyRing([processes.variables["TOKEN_ENCRYPTION_KEYS"].encode()])
    sandbox.patch(
        access_token_lifetime=LIFETIME_S, rotate_refresh_tokens=True, latency_ms=100, rate_limit=None
    )
    worker, web = processes.worker(DATABASE_URL=url), processes.web(DATABASE_URL=url)
    connect_accounts(url, ring, sandbox)
    with psycopg.connect(url, autocommit=True) as conn:
        headers = {"Authorization": "Bearer " + keys.create(conn, "p", ["tokens:read"], created_by="test")}
    over = threading.Event()

    def call(number: int) -> set[tuple[int, str]]:
        """Ask for one account's token after the other; return the kinds of answers."""
        responses = set()
        with requests.Session() as session:
            while not over.wait(0.01):
                number = (number + 1) % ACCOUNTS
                response = session.get(
                    f"{web.url}/rd/tokens/account-{number}/access-token", headers=headers, timeout=30
                )
                responses.add((response.status_code, response.headers["Content-Type"]))
        return responses

    with ThreadPoolExecutor(4) as executor:
        callers = [executor.submit(call, start) for start in range(0, ACCOUNTS, ACCOUNTS // 4)]
        try:
            yield worker
            # From here on tokens last, so that those that are renewed can be told from those that are not.
            sandbox.patch(access_token_lifetime=LONG_LIFETIME_S)
            wait_until_all_are_renewed(url, sandbox)
        finally:
            over.set()
    responses = set().union(*(caller.result() for caller in callers))
    assert responses <= {(200, "application/json"), (503, "application/problem+json")}
    assert (200, "application/json") in responses

    assert worker.runs, worker.log
    worker.send(signal.SIGTERM)
    assert worker.ended() == 0, worker.log
    web.send(signal.SIGTERM)
    assert web.ended() == 0, web.log
    assert_all_tokens_work(url, ring, sandbox)
    assert set(sandbox.calls()["token_refresh"]) == {"200"}
    assert sandbox.report()["max_concurrent_per_refresh_token"] == 1


def stop(server: EmbeddedPostgres, name: str, sandbox: SandboxProcess) -> None:
    """Stop the server while exchanges are in flight; return when their answers have come."""
    wait_until(lambda: sandbox.report()["in_flight"] >= 2, f"renewals run before the {name}")
    assert server.pid is not None
    os.kill(server.pid, HOW_IT_STOPS[name])
    wait_until(lambda: not server.is_running, f"the {name} has ended the server", seconds=30)
    wait_until(lambda: sandbox.report()["in_flight"] == 0, "the answers wait for the database")


def start(server: EmbeddedPostgres, name: str, sandbox: SandboxProcess) -> None:
    """Start the server again; return when renewals go on."""
    server.start()
    before = exchanges(sandbox)
    wait_until(lambda: exchanges(sandbox) > before + 10, f"renewals go on after the {name}", seconds=60)


def exchanges(sandbox: SandboxProcess) -> int:
    return sum(sandbox.calls()["token_refresh"].values())


def connect_accounts(url: str, ring: KeyRing, sandbox: SandboxProcess) -> None:
    with ThreadPoolExecutor(4) as executor:
        pairs = list(executor.map(lambda _: sandbox.pair(), range(ACCOUNTS)))
    with psycopg.connect(url, autocommit=True) as conn:
        for number, pair in enumerate(pairs):
            with conn.transaction():
                store.authorize(
                    conn,
                    ring,
                    f"account-{number}",
                    access_token=pair["access_token"],
                    refresh_token=pair["refresh_token"],
                    expires_in_s=pair["expires_in"],
                    verified=True,
                    proven=True,
                )


def wait_until_all_are_renewed(url: str, sandbox: SandboxProcess) -> None:
    """Wait for every account's first token of the long lifetime.

    A claim whose commit went through unseen keeps its account waiting for the end of the lease; that minute is cut
    short by the database's clock once nothing else is left to do.
    """
    with psycopg.connect(url, autocommit=True) as conn:

        def left() -> tuple[int, int]:
            """How many are not renewed yet, and how many of these wait for a lease that nobody works on."""
            found = conn.execute(LEFT).fetchone()
            assert found is not None
            return found[0], found[1]

        def all_others_are_renewed() -> bool:
            not_renewed, waiting = left()
            return not_renewed == waiting and sandbox.report()["in_flight"] == 0

        wait_until(all_others_are_renewed, "accounts are renewed", seconds=60)
        if left() != (0, 0):
            Clock(conn).advance(LEASE_S)
        wait_until(lambda: left() == (0, 0), "all accounts are renewed")


def assert_all_tokens_work(url: str, ring: KeyRing, sandbox: SandboxProcess) -> None:
    """Use every stored access token and every stored refresh token at the sandbox."""
    with psycopg.connect(url, autocommit=True) as conn:
        rows = conn.execute("SELECT account_id, access_token, refresh_token FROM rdstation_tokens").fetchall()
    assert len(rows) == ACCOUNTS
    sandbox.patch(latency_ms=0)

    def statuses(stored: tuple[Any, ...]) -> tuple[int, int]:
        account_id, access_token, refresh_token = stored
        bearer = {"Authorization": f"Bearer {ring.decrypt('access_token', account_id, access_token)}"}
        body = {
            "client_id": sandbox.client_id,
            "client_secret": sandbox.client_secret,
            "refresh_token": ring.decrypt("refresh_token", account_id, refresh_token),
        }
        return (
            requests.get(f"{sandbox.url}/marketing/account_info", headers=bearer, timeout=20).status_code,
            requests.post(f"{sandbox.url}/auth/token", json=body, timeout=20).status_code,
        )

    with ThreadPoolExecutor(4) as executor:
        assert set(executor.map(statuses, rows)) == {(200, 200)}
