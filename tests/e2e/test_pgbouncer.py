"""Everything works behind PgBouncer in transaction mode."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import requests
from cryptography.fernet import Fernet
from psycopg.conninfo import conninfo_to_dict

from scripts.local.child_process import kill_session, spawn
from tests.support.processes import Processes
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

SERVER_CONNECTIONS = 3
"""Fewer than the pools of the processes have together, so that transactions change connections all the time."""
CONFIG = """\
[databases]
* = host={host} port=5432 user={user} password={password}
[pgbouncer]
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 200
auth_type = any
listen_addr =
listen_port = 6432
unix_socket_dir = {folder}
"""


@pytest.fixture
def bouncer_url(empty_database_url: str, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database behind PgBouncer."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    database = conninfo_to_dict(empty_database_url)
    # PgBouncer refuses to be root, and has to get into the private folder of PostgreSQL's socket.
    owner = Path(str(database["host"])).stat().st_uid
    user = owner if os.geteuid() == 0 and owner != 0 else None
    # A socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="bouncer-", dir="/tmp"))
    config = folder / "pgbouncer.ini"
    config.write_text(CONFIG.format(folder=folder, pool_size=SERVER_CONNECTIONS, **database))
    if user is not None:
        for path in (folder, config):
            os.chown(path, user, user)
    with (tmp_path / "pgbouncer.log").open("wb") as log:
        process = spawn(
            [program, str(config)], death_signal=signal.SIGKILL, stdout=log, stderr=log, user=user
        )
    try:
        url = f"postgresql://postgres@/{database['dbname']}?host={quote(str(folder), safe='')}&port=6432"
        wait_until((folder / ".s.PGSQL.6432").exists, "PgBouncer listens")
        yield url
    finally:
        kill_session(process)
        process.wait()
        shutil.rmtree(folder)


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
