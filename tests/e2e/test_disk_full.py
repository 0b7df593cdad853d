"""PostgreSQL's disk is full: nothing is spent that cannot be stored; what is in hand is stored when there is space."""

import contextlib
import errno
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from rdservice.access import keys
from rdservice.config.settings import Settings
from rdservice.database import migrate
from rdservice.services import Services
from scripts.local.embedded_postgres import EmbeddedPostgres
from tests.conftest import NOBODY_WAITS_FOR_THE_DISK
from tests.support.accounts import assert_sandbox_accepts, attempts_of, connect_account, stored_pair
from tests.support.processes import Processes
from tests.support.sandbox_process import SandboxProcess
from tests.support.told import DATABASE_UNAVAILABLE, SERVED, ask
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

ACCOUNTS = 12
LIVE = "live"
# Rows and index entries of all sizes, until not one more finds room.
JUNK_ATTEMPT = """
INSERT INTO rdstation_refresh_attempts (claim_no, account_id, authorization_id, reason, claimed_by, started_at)
SELECT -(random() * 1e15)::bigint, 'junk', gen_random_uuid(), 'due', repeat('x', %(size)s), rd_now()
"""
JUNK_TOKEN = """
INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, expires_at, status)
SELECT 'junk-' || gen_random_uuid(), repeat(md5(random()::text), %(size)s / 32), '', rd_now(),
       'reauthorization_required'
"""
REMOVE_JUNK = """
DELETE FROM rdstation_refresh_attempts WHERE account_id = 'junk';
DELETE FROM rdstation_tokens WHERE account_id LIKE 'junk-%'
"""


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 192 MB in memory."""
    folder = Path(tempfile.mkdtemp(prefix="small-disk-", dir="/var/tmp"))
    command = ["mount", "-t", "tmpfs", "-o", "size=192m,mode=755", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        folder.rmdir()
        pytest.skip(f"mount is not allowed here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


@pytest.fixture
def url_on_small_disk(server: EmbeddedPostgres, small_disk: Path) -> Iterator[str]:
    """The URL of a migrated database with its tables on the small disk; the log that PostgreSQL writes ahead is not."""
    place = small_disk / "tables"
    place.mkdir(mode=0o700)
    owner = Path(str(conninfo_to_dict(server.url)["host"])).stat().st_uid
    os.chown(place, owner, owner)
    url = server.url.replace("/rdservice", "/small", 1)
    with psycopg.connect(server.url, autocommit=True) as conn:
        conn.execute(f"CREATE TABLESPACE small LOCATION '{place}'")
        try:
            conn.execute("CREATE DATABASE small TABLESPACE small")
            with psycopg.connect(url, autocommit=True) as small:
                migrate.migrate(small)
                # It would make room in the full pages of the tables, at a time of its own.
                for table in ("rdstation_tokens", "rdstation_refresh_attempts"):
                    small.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
            yield url
            conn.execute("DROP DATABASE small WITH (FORCE)")
        finally:
            conn.execute("DROP TABLESPACE small")


def write(file: FileIO, data: bytes) -> bool:
    """Return whether there was space for some of it."""
    try:
        return file.write(data) > 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False


@contextlib.contextmanager
def ballast(disk: Path) -> Iterator[None]:
    """Fill the disk to its last byte for the time of the block."""
    weight = disk / "ballast"
    with weight.open("wb", buffering=0) as file:
        while write(file, b"x" * 65_536):
            pass
    try:
        yield
    finally:
        weight.unlink()


def fill_pages(conn: psycopg.Connection[Any]) -> None:
    """Use up the room that is left in the pages of the tables that a renewal writes to."""
    for junk in (JUNK_TOKEN, JUNK_ATTEMPT):
        for size in (4_000, 1_000, 320, 64):
            with contextlib.suppress(psycopg.errors.DiskFull):
                while True:
                    conn.execute(junk, {"size": size})


@pytest.mark.fault(
    "disk-full",
    "the disk of PostgreSQL's tables is full while refresh tokens rotate",
    "a rotated answer in hand is stored when there is space; no further token is spent; live tokens are served, uploads"
    " get 503 with Retry-After",
)
def test_with_a_full_disk_no_rotated_answer_is_lost_and_no_further_token_is_spent(
    processes: Processes,
    url_on_small_disk: str,
    small_disk: Path,
    make_services: Callable[[Settings], Services],
    sandbox_settings: Settings,
    sandbox: SandboxProcess,
) -> None:
    sandbox.patch(rotate_refresh_tokens=True)
    processes.variables["DATABASE_URL"] = url_on_small_disk
    services = make_services(replace(sandbox_settings, database_url=url_on_small_disk))
    web, worker = processes.web(WEB_CONCURRENCY="1"), processes.worker()
    with psycopg.connect(url_on_small_disk, autocommit=True) as conn:
        headers = {"Authorization": "Bearer " + keys.create(conn, "p", list(keys.SCOPES), created_by="t")}
        uploaded = sandbox.pair()
        accounts = [f"account-{number}" for number in range(ACCOUNTS)]
        for account in [*accounts, LIVE]:
            connect_account(services, sandbox, account, due=False)
        sandbox.patch(latency_ms=1_500)
        conn.execute(
            "UPDATE rdstation_tokens SET refresh_after = rd_now()"
            " + CASE account_id WHEN %s THEN interval '15 s' ELSE interval '0' END",
            [LIVE],
        )
        wait_until(lambda: sandbox.report()["in_flight"] == ACCOUNTS, "exchanges are in flight")
        conn.execute("ALTER TABLE rdstation_tokens SET (fillfactor = 100)")
        conn.execute("VACUUM rdstation_tokens, rdstation_refresh_attempts")
        with ballast(small_disk):
            fill_pages(conn)
            assert attempts_of(conn, LIVE) == [], "the disk is full before this one is due"
            worker.wait_until_it_says("did not take a write (DiskFull)")
            # Writes that were undone leave room in a page: then this one is claimed too, and stored like the others.
            wait_until(
                lambda: "waiting for the database (DiskFull)" in worker.log or attempts_of(conn, LIVE),
                "the claim was refused or found room",
                seconds=60,
            )
            assert sandbox.calls()["token_refresh"]["200"] <= ACCOUNTS + len(attempts_of(conn, LIVE))
            assert ask(web, headers, f"/rd/tokens/{LIVE}/access-token") == SERVED
            assert ask(web, headers, "/rd/tokens", method="POST", body=uploaded) == DATABASE_UNAVAILABLE
        conn.execute(REMOVE_JUNK)
        sandbox.patch(latency_ms=0)
        wait_until(lambda: attempts_of(conn, LIVE) == [("stored", None)], "the worker goes on", seconds=40)
        for account in accounts:
            wait_until(lambda: attempts_of(conn, account) == [("stored", None)], "its answer is stored")  # noqa: B023
            assert_sandbox_accepts(sandbox, *stored_pair(services, conn, account))
    assert sandbox.report()["max_concurrent_per_refresh_token"] == 1


@pytest.mark.long
@pytest.mark.fault(
    "disk-full-for-the-log",
    "the disk is full for the log that PostgreSQL writes ahead: the server ends itself and does not start again",
    "a rotated answer in hand waits for the server; callers get 503 with Retry-After; all goes on when there is space",
)
def test_an_answer_in_hand_waits_for_a_server_that_ended_for_want_of_space(
    processes: Processes,
    postgres_programs: Path | None,
    small_disk: Path,
    make_services: Callable[[Settings], Services],
    sandbox_settings: Settings,
    sandbox: SandboxProcess,
) -> None:
    sandbox.patch(rotate_refresh_tokens=True)
    settings = {**NOBODY_WAITS_FOR_THE_DISK, "synchronous_commit": "on", "full_page_writes": "on"}
    with EmbeddedPostgres(small_disk / "data", bin_dir=postgres_programs, settings=settings) as server:
        url = processes.variables["DATABASE_URL"] = server.url
        with psycopg.connect(url, autocommit=True) as conn:
            migrate.migrate(conn)
            headers = {"Authorization": "Bearer " + keys.create(conn, "p", ["tokens:read"], created_by="t")}
        services = make_services(replace(sandbox_settings, database_url=url))
        web, worker = processes.web(WEB_CONCURRENCY="1"), processes.worker()
        connect_account(services, sandbox, due=False)
        sandbox.patch(latency_ms=2_000)
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now()")
            wait_until(lambda: sandbox.report()["in_flight"] == 1, "an exchange is in flight")
            with ballast(small_disk):
                with contextlib.suppress(psycopg.OperationalError):
                    while server.is_running:
                        conn.execute("SELECT pg_switch_wal(), txid_current()")
                wait_until(lambda: not server.is_running, "the server has ended itself", seconds=60)
                worker.wait_until_it_says("did not take a write")
                assert ask(web, headers) == DATABASE_UNAVAILABLE
                assert ask(web, {}, "/healthz") == SERVED
        server.start()
        with psycopg.connect(url, autocommit=True) as conn:
            wait_until(lambda: attempts_of(conn) == [("stored", None)], "the answer is stored", seconds=40)
            assert sandbox.calls()["token_refresh"] == {"200": 1}
            wait_until(lambda: ask(web, headers) == SERVED, "callers are served")
            assert_sandbox_accepts(sandbox, *stored_pair(services, conn))
