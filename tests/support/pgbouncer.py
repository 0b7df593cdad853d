"""PgBouncer in transaction mode, for tests that run behind it."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict

from scripts.local.child_process import kill_session, spawn
from tests.support.waiting import wait_until

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


@contextmanager
def behind_pgbouncer(database_url: str, log_file: Path) -> Iterator[str]:
    """Yield the URL of the same database behind PgBouncer; skip the test where PgBouncer is not installed."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    database = conninfo_to_dict(database_url)
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
    with log_file.open("wb") as log:
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
