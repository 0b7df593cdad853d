"""Everything works behind PgBouncer in transaction mode."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import requests
from cryptography.fernet import Fernet

from rdservice.database import migrate
from scripts.local.embedded_postgres import EmbeddedPostgres
from tests.support.pgbouncer import behind_pgbouncer
from tests.support.processes import Processes, ServiceProcess
from tests.support.sandbox_process import SandboxProcess
from tests.support.scraping import take_down
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def bouncer_url(empty_database_url: str, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database behind PgBouncer."""
    with behind_pgbouncer(empty_database_url, tmp_path / "pgbouncer.log") as url:
        yield url


@pytest.mark.fault(
    "pgbouncer",
    "everything runs behind PgBouncer in transaction mode, with fewer connections than the processes have",
    "uploads, renewals and callers succeed; one exchange an account",
)
def test_release_commands_web_and_worker_work_behind_pgbouncer(
    processes: Processes, bouncer_url: str, sandbox: SandboxProcess
) -> None:
    processes.variables["DATABASE_URL"] = bouncer_url
    assert "Applied migration" in processes.flask("release")
    assert "up to date" in processes.flask("release")
    scopes = ("--scope", "tokens:write", "--scope", "tokens:read", "--scope", "tokens:status")
    key = processes.flask("keys", "create", "a program", *scopes).split()[-1]
    headers = {"Authorization": f"Bearer {key}"}
    worker, web = processes.worker(), processes.web()
    assert requests.get(f"{web.url}/readyz", timeout=20).status_code == 200
    sandbox.patch(rotate_refresh_tokens=True, rate_limit=None)

    def upload(number: int) -> int:
        body = {**sandbox.pair(), "account_id": f"account-{number}"}
        return requests.post(f"{web.url}/rd/tokens", json=body, headers=headers, timeout=30).status_code

    def ask(number: int) -> int:
        url = f"{web.url}/rd/tokens/account-{number % 40}/access-token"
        return requests.get(url, headers=headers, timeout=30).status_code

    with psycopg.connect(bouncer_url, autocommit=True, prepare_threshold=None) as conn:
        with ThreadPoolExecutor(8) as executor:
            assert set(executor.map(upload, range(40))) == {200}
            assert set(executor.map(ask, range(200))) == {200}
        stored = "SELECT count(*) FROM rdstation_refresh_attempts WHERE outcome = 'stored'"
        wait_until(lambda: conn.execute(stored).fetchone() == (40,), "all uploads are renewed")
        changed = f"{Fernet.generate_key().decode()},{processes.variables['TOKEN_ENCRYPTION_KEYS']}"
        said = processes.flask("encryption", "rotate", TOKEN_ENCRYPTION_KEYS=changed)
        assert "Re-encrypted 40 rows." in said
        assert "All other keys may be dropped." in said
        response = requests.get(f"{web.url}/rd/tokens", headers=headers, timeout=20)
        assert [account["status"] for account in response.json()["accounts"]] == ["connected"] * 40
    assert sandbox.calls()["token_refresh"] == {"200": 40}
    for process in (worker, web):
        process.send(signal.SIGTERM)
        assert process.ended() == 0, process.log
        assert "Traceback" not in process.log


OUTAGE_S = 20.0


@pytest.mark.fault(
    "postgresql-down-behind-pgbouncer",
    "PostgreSQL is down while PgBouncer in front of it accepts connections",
    "web and worker pause between tries, log at most one line in ten seconds, and go on by themselves",
)
def test_while_postgresql_is_down_behind_pgbouncer_processes_pause_and_log_little(
    processes: Processes, new_postgres: Callable[[], EmbeddedPostgres], tmp_path: Path
) -> None:
    with new_postgres() as server:
        with psycopg.connect(server.url, autocommit=True) as conn:
            migrate.migrate(conn)
        with behind_pgbouncer(server.url, tmp_path / "pgbouncer.log") as url:
            processes.variables["DATABASE_URL"] = url
            web, worker = processes.web(WEB_CONCURRENCY="1"), processes.worker()
            worker.wait_until_it_says("started")
            assert requests.get(f"{web.url}/readyz", timeout=20).status_code == 200
            take_down(server)
            said, used = {process: warnings_of(process) for process in (web, worker)}, worker.cpu_seconds()
            began = time.monotonic()
            while time.monotonic() - began < OUTAGE_S:
                # PgBouncer may hold a statement back while it looks for a server.
                assert requests.get(f"{web.url}/readyz", timeout=70).status_code == 503
            took_s = time.monotonic() - began
            assert worker.cpu_seconds() - used < 0.1 * took_s
            for process, before in said.items():
                assert warnings_of(process) - before <= took_s / 10 + 1, process.log
            server.start()
            wait_until(
                lambda: requests.get(f"{web.url}/readyz", timeout=70).status_code == 200,
                "it is ready again",
                seconds=80,
            )


def warnings_of(process: ServiceProcess) -> int:
    return process.log.count(" WARNING ")
