"""The embedded PostgreSQL: closed to others, startable from anywhere, and gone with the process that started it."""

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from scripts.local.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError
from scripts.local.postgres_binaries import wheel_binaries
from tests.support.local_processes import command_line, descendants, wait_until_gone

ROOT = Path(__file__).resolve().parents[3]
FAST = {"fsync": "off"}

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def new_server(postgres_programs: Path | None) -> Callable[[Path], EmbeddedPostgres]:
    return lambda folder: EmbeddedPostgres(folder, bin_dir=postgres_programs, settings=FAST)


def scalar(url: str, query: str) -> object:
    with psycopg.connect(url) as conn:
        row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def runtime_folder(url: str) -> Path:
    return Path(str(psycopg.conninfo.conninfo_to_dict(url)["host"]))


def test_nobody_connects_without_the_password(
    tmp_path: Path, new_server: Callable[[Path], EmbeddedPostgres]
) -> None:
    with new_server(tmp_path / "data") as server:
        folder = runtime_folder(server.url)
        for password in ("", "postgres"):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(host=str(folder), user="postgres", dbname="rdservice", password=password)
        assert scalar(server.url, "SHOW listen_addresses") == ""
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "data" / "cluster").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "data" / "password").stat().st_mode) == 0o600
    assert not folder.exists()


def test_the_server_does_not_run_as_root(
    tmp_path: Path, new_server: Callable[[Path], EmbeddedPostgres]
) -> None:
    with new_server(tmp_path / "data") as server:
        owner = Path(f"/proc/{server.pid}").stat().st_uid
    assert owner != 0
    assert os.geteuid() in (0, owner)


@pytest.mark.parametrize(
    "name", ["a path with spaces", 'o\'clock $HOME "quoted"', "/".join(["long" * 25] * 9)]
)
def test_any_folder_will_do_and_the_data_survive_a_restart(
    name: str, tmp_path: Path, new_server: Callable[[Path], EmbeddedPostgres]
) -> None:
    with new_server(tmp_path / name) as server, psycopg.connect(server.url) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        conn.commit()
    with new_server(tmp_path / name) as server:
        assert scalar(server.url, "SELECT answer FROM kept") == 42


def test_programs_in_a_folder_that_postgres_cannot_use_are_copied(tmp_path: Path) -> None:
    package = wheel_binaries().parents[1]
    closed = tmp_path / 'a "closed" folder'
    shutil.copytree(package, closed / "site-packages" / package.name)
    libraries = package.parent / f"{package.name}.libs"
    shutil.copytree(libraries, closed / "site-packages" / libraries.name)
    closed.chmod(0o700)
    programs = closed / "site-packages" / package.name / "pginstall18" / "bin"
    with EmbeddedPostgres(tmp_path / "data", bin_dir=programs, settings=FAST) as server:
        assert scalar(server.url, "SELECT 1") == 1
        assert not command_line(server.pid or 0).startswith(str(programs))


@AS_ROOT
def test_an_ordinary_user_can_run_it(postgres_programs: Path | None) -> None:
    """In a fork, because that user may be unable to reach this Python."""
    nobody = pwd.getpwnam("nobody")
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own folder is closed to others
    try:
        folder.chmod(0o755)
        programs = postgres_programs
        if programs is None:
            package = wheel_binaries().parents[1]
            for source in (package, package.parent / f"{package.name}.libs"):
                shutil.copytree(source, folder / "site-packages" / source.name)
            programs = folder / "site-packages" / package.name / "pginstall18" / "bin"
        (folder / "data").mkdir(mode=0o700)
        os.chown(folder / "data", nobody.pw_uid, nobody.pw_gid)
        child = os.fork()
        if child == 0:
            _exit_with_the_servers_user(nobody, folder / "data", programs)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    finally:
        shutil.rmtree(folder)


def _exit_with_the_servers_user(user: pwd.struct_passwd, folder: Path, programs: Path) -> None:
    status = 1
    try:
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        with EmbeddedPostgres(folder, bin_dir=programs, settings=FAST) as server:
            own = Path(f"/proc/{server.pid}").stat().st_uid == user.pw_uid
            status = 0 if own and scalar(server.url, "SELECT 1") == 1 else 2
    finally:
        os._exit(status)


STARTER = """
import sys, time
from pathlib import Path
from scripts.local.embedded_postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), bin_dir=Path(sys.argv[2]) if sys.argv[2] else None)
server.start()
print(server.url, flush=True)
time.sleep(600)
"""


@pytest.fixture
def starter(tmp_path: Path, postgres_programs: Path | None) -> Iterator[subprocess.Popen[str]]:
    """A process that has started a server on tmp_path/data and written its URL."""
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path / "data"), str(postgres_programs or "")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def test_a_killed_owner_takes_the_server_with_it_and_the_next_start_finds_the_data(
    tmp_path: Path, starter: subprocess.Popen[str], new_server: Callable[[Path], EmbeddedPostgres]
) -> None:
    assert starter.stdout is not None
    url = starter.stdout.readline().strip()
    with psycopg.connect(url) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        conn.commit()
        servers = descendants(starter.pid)
        assert any("postgres" in command_line(pid) for pid in servers)
        starter.send_signal(signal.SIGKILL)
        assert wait_until_gone(servers, seconds=10) == set()
    with new_server(tmp_path / "data") as server:
        assert scalar(server.url, "SELECT answer FROM kept") == 42
    assert not runtime_folder(url).exists()


def test_a_process_id_that_belongs_to_another_program_by_now_does_not_block(
    tmp_path: Path, new_server: Callable[[Path], EmbeddedPostgres]
) -> None:
    with new_server(tmp_path / "data"):
        pass
    with subprocess.Popen(["sleep", "60"]) as stranger:
        stale = tmp_path / "data" / "cluster" / "postmaster.pid"
        stale.write_text(f"{stranger.pid}\n/proc/self/fd/4\n1700000000\n5432\n/tmp\n\n  0  0\nready   \n")
        try:
            with new_server(tmp_path / "data") as server:
                assert scalar(server.url, "SELECT 1") == 1
        finally:
            stranger.kill()


def test_a_server_that_died_is_started_again_under_the_same_url(
    tmp_path: Path, new_server: Callable[[Path], EmbeddedPostgres]
) -> None:
    with new_server(tmp_path / "data") as server:
        url, pid = server.url, server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert wait_until_gone([pid], seconds=10) == set()
        assert not server.is_running
        server.start()
        assert server.url == url
        assert scalar(url, "SELECT 1") == 1


def test_a_second_server_on_the_same_folder_is_refused(
    tmp_path: Path, new_server: Callable[[Path], EmbeddedPostgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.local.embedded_postgres.LOCK_SECONDS", 0.2)
    with new_server(tmp_path / "data") as first:
        with pytest.raises(EmbeddedPostgresError, match="another PostgreSQL is running"):
            new_server(tmp_path / "data").start()
        assert scalar(first.url, "SELECT 1") == 1


def test_an_interrupted_first_start_is_made_good(
    tmp_path: Path, new_server: Callable[[Path], EmbeddedPostgres]
) -> None:
    half_made = tmp_path / "data" / "initdb-interrupted"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    (tmp_path / "data" / "password").write_text("of the interrupted start")
    with new_server(tmp_path / "data") as server:
        assert scalar(server.url, "SELECT 1") == 1
    assert not half_made.exists()


def test_data_of_another_version_are_left_alone_and_the_message_says_what_to_do(
    tmp_path: Path, new_server: Callable[[Path], EmbeddedPostgres]
) -> None:
    with new_server(tmp_path / "data"):
        pass
    version = tmp_path / "data" / "cluster" / "PG_VERSION"
    version.write_text("9.6\n")
    with pytest.raises(EmbeddedPostgresError, match=r"PostgreSQL 9\.6.*pg_dump"):
        new_server(tmp_path / "data").start()
    assert version.read_text() == "9.6\n"


def test_a_lost_password_is_explained(tmp_path: Path, new_server: Callable[[Path], EmbeddedPostgres]) -> None:
    with new_server(tmp_path / "data"):
        pass
    (tmp_path / "data" / "password").unlink()
    with pytest.raises(EmbeddedPostgresError, match="restore that file"):
        new_server(tmp_path / "data").start()
