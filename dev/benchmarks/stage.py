"""The environment of the benchmarks: embedded PostgreSQL, the sandbox over HTTP, and the service's real processes."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
import requests
from cryptography.fernet import Fernet

from rdservice.access import keys
from rdservice.config.settings import Settings
from rdservice.database import migrate
from rdservice.encryption import KeyRing
from scripts.local.child_process import kill_session, spawn
from scripts.local.embedded_postgres import DATABASE, EmbeddedPostgres
from scripts.local.web_port import open_sockets

ROOT = Path(__file__).resolve().parents[2]
READY_S = 30.0
END_S = 10.0
SANDBOX_READY = "sandbox ready "

SCOPES = ("tokens:read", "leads:read")


class BenchError(Exception):
    """A part cannot be measured. The message says why."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """How much is measured. `quick` only checks that everything works."""

    quick: bool

    def choose(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running gunicorn. `process` is its master."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid


class Stage:
    """A database of its own, a sandbox and the service's processes; a context manager that ends them all."""

    def __init__(
        self, postgres: EmbeddedPostgres, name: str, folder: Path, settings: Mapping[str, str] | None = None
    ) -> None:
        """`settings` override those that every stage has."""
        folder.mkdir(parents=True)
        self._own_settings = settings or {}
        self._folder = folder
        self._name = name
        self._children: list[subprocess.Popen[bytes]] = []
        self._postgres = postgres

    def __enter__(self) -> Self:
        encryption_key = Fernet.generate_key()
        self.keys = KeyRing([encryption_key])
        with contextlib.ExitStack() as ends:
            url = new_database(self._postgres, self._name)
            self._variables = _settings(url, encryption_key, self._folder) | dict(self._own_settings)
            self.conn = ends.enter_context(psycopg.connect(url, autocommit=True))
            self.api_key = keys.create(self.conn, "scripts/bench", SCOPES, created_by="scripts/bench")
            ends.callback(lambda: end(self._children))
            self.sandbox = self._start_sandbox()
            self._variables["RDSTATION_API_URL"] = self.sandbox.url
            self._ends = ends.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    @property
    def settings(self) -> Settings:
        """The settings of the service's processes."""
        return Settings.from_mapping(self._variables)

    @property
    def authorization(self) -> dict[str, str]:
        """Request headers with an API key."""
        return {"Authorization": f"Bearer {self.api_key}"}

    def web(self, *, workers: int, port: int = 0) -> Server:
        """Start the web application under gunicorn, with `workers` processes; port 0 is any free one."""
        return self._gunicorn("wsgi:app", "/readyz", {"WEB_CONCURRENCY": str(workers)}, port=port)

    def uncounted(self, *, workers: int) -> Server:
        """Start the web application without its metrics."""
        variables = {"WEB_CONCURRENCY": str(workers)}
        return self._gunicorn("dev.benchmarks.uncounted_app:app", "/readyz", variables)

    def bare(self, body: bytes, *, workers: int) -> Server:
        """Start a Flask application whose route / returns `body`, under the same gunicorn settings."""
        file = self._folder / "bare-body.json"
        file.write_bytes(body)
        variables = {"WEB_CONCURRENCY": str(workers), "BENCH_BODY_FILE": str(file)}
        return self._gunicorn("dev.benchmarks.bare_app:app", "/", variables)

    def worker(self, **variables: str) -> subprocess.Popen[bytes]:
        """Start a refresh worker, with settings overridden by `variables`, and wait for its first heartbeat."""
        before = self._beating()
        process = self._spawn(["-m", "worker"], variables, "worker")
        self._wait(process, lambda: self._beating() > before, "worker")
        return process

    def stop(self, *processes: subprocess.Popen[bytes]) -> None:
        """End processes, as a deployment does."""
        end(processes)
        self._children = [child for child in self._children if child not in processes]

    def _beating(self) -> int:
        row = self.conn.execute("SELECT count(*) FROM rdstation_workers").fetchone()
        return 0 if row is None else int(row[0])

    def _gunicorn(self, app: str, ready: str, variables: Mapping[str, str], *, port: int = 0) -> Server:
        sockets = open_sockets(str(port))
        try:
            descriptors = [sock.fileno() for sock in sockets]
            binds = [part for number in descriptors for part in ("--bind", f"fd://{number}")]
            url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
            command = ["-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), *binds, app]
            process = self._spawn(command, variables, "web", pass_fds=descriptors)
        finally:
            for sock in sockets:
                sock.close()
        self._wait(process, lambda: _answers(url + ready), app)
        return Server(url=url, process=process)

    def _start_sandbox(self) -> "Sandbox":
        """Start the sandbox with the app that the settings name."""
        client = {
            f"SANDBOX_{name}": self._variables[f"RDSTATION_{name}"]
            for name in ("CLIENT_ID", "CLIENT_SECRET", "REDIRECT_URI")
        }
        command = ["-m", "sandbox", "--state", str(self._folder / "sandbox.db")]
        process = self._spawn(command, client, "sandbox", stdout=subprocess.PIPE)
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        readable, _, _ = select.select([process.stdout], [], [], READY_S)
        line = process.stdout.readline().decode() if readable else ""
        if not line.startswith(SANDBOX_READY):
            raise BenchError(f"the sandbox did not start:\n{self._said('sandbox')}")
        return Sandbox(line.removeprefix(SANDBOX_READY).strip(), process.pid)

    def _spawn(
        self,
        command: Sequence[str],
        variables: Mapping[str, str],
        name: str,
        *,
        stdout: int | None = None,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a Python program whose output goes into a file, as it goes into a pipe on a platform."""
        with self._log(name).open("ab") as log:
            process = spawn(
                [sys.executable, *command],
                death_signal=signal.SIGKILL,
                env={**self._variables, **variables},
                stdout=log if stdout is None else stdout,
                stderr=log,
                pass_fds=pass_fds,
            )
        self._children.append(process)
        return process

    def _wait(self, process: subprocess.Popen[bytes], ready: Callable[[], bool], name: str) -> None:
        give_up = time.monotonic() + READY_S
        while not ready():
            if process.poll() is not None or time.monotonic() > give_up:
                log = "worker" if name == "worker" else "web"
                raise BenchError(f"{name} did not become ready within {READY_S:.0f} s:\n{self._said(log)}")
            time.sleep(0.05)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _said(self, name: str) -> str:
        """The last output of the processes of this name."""
        return "\n".join(self._log(name).read_text(errors="replace").splitlines()[-20:])


class Sandbox:
    """The running sandbox's control routes."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.pid = pid
        self._session = requests.Session()
        self._session.trust_env = False

    def patch(self, **settings: Any) -> None:
        """Change settings of the sandbox."""
        self._session.patch(f"{self.url}/_sandbox", json=settings, timeout=10).raise_for_status()

    def revoke(self, account: str = "default") -> None:
        """Revoke the consent of the RD Station account."""
        response = self._session.post(f"{self.url}/_sandbox/revoke", json={"account": account}, timeout=10)
        response.raise_for_status()

    def calls(self, operation: str, status: str | None = None) -> int:
        """Return how many calls of this operation reached the sandbox, with `status` only those that got it."""
        response = self._session.get(f"{self.url}/_sandbox", timeout=10)
        response.raise_for_status()
        by_status: dict[str, int] = response.json()["calls"].get(operation, {})
        return sum(by_status.values()) if status is None else by_status.get(status, 0)


def new_database(postgres: EmbeddedPostgres, name: str) -> str:
    """Make a database with the current schema; return its URL."""
    with psycopg.connect(postgres.url, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE bench_{name}")
    url = postgres.url.replace(f"/{DATABASE}?", f"/bench_{name}?", 1)
    with psycopg.connect(url, autocommit=True) as conn:
        migrate.migrate(conn)
    return url


def wait_until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait until `condition` returns True. Raises BenchError after `seconds`."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            raise BenchError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.1)


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes from `spawn` and their children, first with SIGTERM."""
    for process in processes:
        process.terminate()
    give_up = time.monotonic() + END_S
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, give_up - time.monotonic()))
    for process in processes:
        kill_session(process)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _settings(database_url: str, encryption_key: bytes, folder: Path) -> dict[str, str]:
    """Environment of the service's processes. It names every setting, so that none comes from a `.env` file."""
    return os.environ | {
        "DATABASE_URL": database_url,
        "TOKEN_ENCRYPTION_KEYS": encryption_key.decode(),
        "SECRET_KEY": Fernet.generate_key().decode(),
        "RDSTATION_CLIENT_ID": "bench-app",
        "RDSTATION_CLIENT_SECRET": Fernet.generate_key().hex(),
        "RDSTATION_REDIRECT_URI": "http://localhost:8000/rd/callback",
        "RDSTATION_SCOPE": "contacts",
        "RDSTATION_CACHE_TTL": "900",
        "RDSTATION_RATE_LIMIT": "120",
        "METRICS_TOKEN": Fernet.generate_key().decode(),
        "TRUSTED_PROXIES": "0",
        "RDSERVICE_ENV": "development",
        "RDSERVICE_DATA_DIR": str(folder),
        "DYNO": "",
        "PORT": "",
        "GUNICORN_CMD_ARGS": "",
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def _answers(url: str) -> bool:
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.get(url, timeout=5).ok
        except requests.RequestException:
            return False
