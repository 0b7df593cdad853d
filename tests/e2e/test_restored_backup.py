"""A backup of the database is restored although RD Station has moved on since, by the runbook's commands."""

import shlex
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rdservice.config.settings import Settings
from rdservice.services import Services
from scripts.local import postgres_binaries
from tests.support.accounts import assert_sandbox_accepts, attempts_of, connect_account, row, stored_pair
from tests.support.processes import Processes, ServiceProcess
from tests.support.sandbox_process import SandboxProcess
from tests.support.told import SERVED, Told, ask
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

Conn = psycopg.Connection[Any]


RUNBOOK = Path(__file__).resolve().parents[2] / "docs" / "en" / "operate" / "runbook.md"


class Database:
    """A database of its own, and a backup of it in `folder`."""

    def __init__(self, url: str, programs: Path, folder: Path) -> None:
        self.url = url
        self._programs = programs
        self._folder = folder

    def back_up(self) -> None:
        self._run_lines_of_the_runbook("pg_dump")

    def restore(self) -> None:
        self._run_lines_of_the_runbook("psql", "pg_restore")

    def restore_over_what_is_there(self) -> None:
        """In one transaction, so that a worker notices nothing but locks."""
        self._run("pg_restore", "--clean", "--single-transaction", f"--dbname={self.url}", "backup.dump")

    def _run_lines_of_the_runbook(self, *programs: str) -> None:
        lines = [line.strip() for line in RUNBOOK.read_text().splitlines()]
        chosen = [
            shlex.split(line) for line in lines if line.startswith(tuple(f"{name} " for name in programs))
        ]
        assert [words[0] for words in chosen] == list(programs)
        for words in chosen:
            self._run(*(word.replace("$DATABASE_URL", self.url) for word in words))

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            cwd=self._folder,
            env=postgres_binaries.environment(self._programs),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture
def database(
    empty_database_url: str, postgres_programs: Path | None, processes: Processes, tmp_path: Path
) -> Database:
    """An own database, which the processes use."""
    programs = postgres_programs or postgres_binaries.wheel_binaries()
    processes.variables["DATABASE_URL"] = empty_database_url
    processes.flask("release")
    return Database(empty_database_url, programs, tmp_path)


@pytest.fixture
def connected(
    database: Database, make_services: Callable[[Settings], Services], sandbox_settings: Settings
) -> Services:
    """The parts of a process with that database."""
    return make_services(replace(sandbox_settings, database_url=database.url))


@pytest.mark.fault(
    "backup-restored",
    "an older backup is restored while RD Station has moved on",
    "live tokens are served; a refresh token that stays works at once; a rotated one asks for a new authorization; what"
    " was removed or revoked since is back",
)
@pytest.mark.parametrize(
    "rotates",
    [pytest.param(False, id="lasting", marks=pytest.mark.long), pytest.param(True, id="rotating")],
)
def test_after_a_restore_lasting_tokens_work_and_those_that_were_rotated_since_ask_for_a_new_authorization(
    processes: Processes,
    database: Database,
    connected: Services,
    sandbox: SandboxProcess,
    rotates: bool,
) -> None:
    sandbox.patch(rotate_refresh_tokens=rotates)
    headers = new_key(processes)
    connect_account(connected, sandbox, "renewed", due=False)
    connect_account(connected, sandbox, "untouched", due=False)
    connect_account(connected, sandbox, "removed", due=False)
    database.back_up()

    worker, web = processes.worker(), processes.web()
    with psycopg.connect(database.url, autocommit=True) as conn:
        for times in (1, 2):
            make_due(conn, "renewed")
            wait_until(lambda: attempts_of(conn, "renewed") == [("stored", None)] * times, "it is renewed")  # noqa: B023
        conn.execute("DELETE FROM rdstation_tokens WHERE account_id = 'removed'")
    key_id = headers["Authorization"].split("_")[1]
    processes.flask("keys", "revoke", key_id, "--yes")
    wait_until(lambda: ask(web, headers, token_of("renewed")).status == 401, "the key is refused")
    stop(worker, web)

    database.restore()
    assert "up to date" in processes.flask("release")
    worker, web = processes.worker(), processes.web()
    accounts = ("renewed", "untouched", "removed")
    assert [ask(web, headers, token_of(account)) for account in accounts] == [SERVED] * 3
    with psycopg.connect(database.url, autocommit=True) as conn:
        make_due(conn, *accounts)
        for account in ("untouched", "removed"):
            wait_until(lambda: attempts_of(conn, account) == [("stored", None)], "it is renewed")  # noqa: B023
        wait_until(
            lambda: attempts_of(conn, "renewed")[-1:] not in ([], [(None, None)]), "the old token was tried"
        )
        if not rotates:
            assert attempts_of(conn, "renewed") == [("stored", None)]
            assert_sandbox_accepts(sandbox, *stored_pair(connected, conn, "renewed"))
            return
        assert attempts_of(conn, "renewed") == [("refused", "revoked")]
        assert row(conn, "renewed")["status"] == "reauthorization_required"
        assert ask(web, headers, token_of("renewed")) == SERVED
        conn.execute("UPDATE rdstation_tokens SET expires_at = rd_now() WHERE account_id = 'renewed'")
        wait_until(
            lambda: ask(web, headers, token_of("renewed")) == Told(409, "reauthorization_required"),
            "callers are told to reauthorize",
        )
        connect_account(connected, sandbox, "renewed")
        wait_until(lambda: attempts_of(conn, "renewed")[-1] == ("stored", None), "it is renewed again")
        assert ask(web, headers, token_of("renewed")) == SERVED


@pytest.mark.fault(
    "backup-restored-under-a-worker",
    "an older backup is restored (or a standby that lags takes over) while a worker holds a rotated answer",
    "the answer, newer than all that was restored, is stored; so are those of later claims",
)
def test_an_answer_from_before_a_restore_is_stored_and_does_not_block_later_ones(
    processes: Processes, database: Database, connected: Services, sandbox: SandboxProcess
) -> None:
    sandbox.patch(rotate_refresh_tokens=True)
    connect_account(connected, sandbox, due=False)
    database.back_up()
    with psycopg.connect(database.url, autocommit=True) as conn:
        conn.execute("SELECT setval('rdstation_claims', 500)")
        worker = processes.worker()
        make_due(conn, "default")
        wait_until(lambda: attempts_of(conn) == [("stored", None)], "it is renewed")
        sandbox.patch(latency_ms=1_000)
        make_due(conn, "default")
        wait_until(lambda: sandbox.report()["in_flight"] == 1, "an exchange is in flight")
        with worker.stopped():
            database.restore_over_what_is_there()
            assert row(conn)["stored_claim"] == 0

        wait_until(lambda: row(conn)["stored_claim"] == 502, "the answer is stored")
        sandbox.patch(latency_ms=0)
        for stored in (503, 504):
            make_due(conn, "default")
            wait_until(lambda: row(conn)["stored_claim"] == stored, "it is renewed")  # noqa: B023
        assert row(conn)["status"] == "connected"
        assert_sandbox_accepts(sandbox, *stored_pair(connected, conn))
    assert set(sandbox.calls()["token_refresh"]) == {"200"}
    assert sandbox.report()["max_concurrent_per_refresh_token"] == 1


def new_key(processes: Processes) -> dict[str, str]:
    """Make an API key that may take tokens; return request headers with it."""
    key = processes.flask("keys", "create", "a program", "--scope", "tokens:read").split()[-1]
    return {"Authorization": f"Bearer {key}"}


def token_of(account: str) -> str:
    return f"/rd/tokens/{account}/access-token"


def make_due(conn: Conn, *accounts: str) -> None:
    conn.execute(
        "UPDATE rdstation_tokens SET refresh_after = rd_now() WHERE account_id = ANY (%s)", [list(accounts)]
    )


def stop(*processes: ServiceProcess) -> None:
    for process in processes:
        process.send(signal.SIGTERM)
    for process in processes:
        assert process.ended() == 0, process.log
