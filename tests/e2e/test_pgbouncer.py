"""Everything works behind PgBouncer in transaction mode."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import requests
from cryptography.fernet import Fernet

from tests.support.pgbouncer import behind_pgbouncer
from tests.support.processes import Processes
from tests.support.sandbox_process import SandboxProcess
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
