"""Migrations, on databases of their own."""

import re
import subprocess
import sys
import threading
from typing import Any

import psycopg
import pytest

from rdservice.config.settings import ROOT
from rdservice.database import migrate
from rdservice.tokens import lease_sql
from tests.support.waiting import wait_until

Conn = psycopg.Connection[Any]

NAMES = [f"{migration.version:04d}_{migration.name}" for migration in migrate.migrations()]


def connect(url: str) -> Conn:
    return psycopg.connect(url, autocommit=True)


def schema(conn: Conn) -> list[Any]:
    """Return all columns, indexes and constraints."""
    columns = conn.execute(
        "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
        " WHERE table_schema = 'public' ORDER BY table_name, ordinal_position"
    ).fetchall()
    indexes = conn.execute(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname"
    ).fetchall()
    return columns + indexes


def test_no_two_migrations_have_the_same_number() -> None:
    versions = [migration.version for migration in migrate.migrations()]
    assert versions == sorted(set(versions))


def test_a_fresh_database_gets_all_migrations(empty_database_url: str) -> None:
    with connect(empty_database_url) as conn:
        assert migrate.pending_migrations(conn) == NAMES
        assert migrate.migrate(conn) == migrate.migrations()
        assert migrate.pending_migrations(conn) == []
        applied = conn.execute("SELECT version, name FROM schema_migrations ORDER BY version").fetchall()
    assert [f"{version:04d}_{name}" for version, name in applied] == NAMES


def test_a_second_time_changes_nothing(empty_database_url: str) -> None:
    with connect(empty_database_url) as conn:
        migrate.migrate(conn)
        conn.execute(
            "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, expires_at)"
            " VALUES ('kept', 'a', 'r', now())"
        )
        before = schema(conn), conn.execute("SELECT * FROM rdstation_tokens").fetchall()
        assert migrate.migrate(conn) == []
        assert (schema(conn), conn.execute("SELECT * FROM rdstation_tokens").fetchall()) == before


def test_at_once_in_several_places_each_is_applied_once(empty_database_url: str) -> None:
    together = threading.Barrier(4)
    applied: list[int] = []
    errors: list[BaseException] = []

    def release() -> None:
        try:
            with connect(empty_database_url) as conn:
                together.wait(20)
                applied.append(len(migrate.migrate(conn)))
        except BaseException as error:  # noqa: BLE001 - it is looked at below
            errors.append(error)

    threads = [threading.Thread(target=release) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert sorted(applied) == [0, 0, 0, len(NAMES)]


def test_a_process_killed_in_the_middle_leaves_nothing_behind_and_blocks_nobody(
    empty_database_url: str,
) -> None:
    half = (
        "import sys, psycopg\n"
        "from rdservice.database import migrate\n"
        "conn = psycopg.connect(sys.argv[1], autocommit=True)\n"
        "def stop(conn):\n"
        "    print('half way', flush=True)\n"
        "    sys.stdin.read()\n"
        "migrate._applied = lambda conn: set()\n"
        "real = migrate.migrations()\n"
        "class Stop(str):\n"
        "    def encode(self, *args):\n"
        "        stop(conn)\n"
        "migrate.migrations = lambda: real + [migrate.Migration(9999, 'stop', Stop('SELECT 1'))]\n"
        "migrate.migrate(conn)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", half, empty_database_url],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "half way\n"
        process.kill()
        process.wait(20)
    finally:
        process.kill()
        process.communicate(timeout=20)
    with connect(empty_database_url) as conn:
        assert migrate.migrate(conn) == migrate.migrations()


def test_an_error_in_a_migration_applies_nothing(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [*migrate.migrations(), migrate.Migration(9999, "broken", "CREATE TABLE made (); SELECT 1/0")]
    monkeypatch.setattr(migrate, "migrations", lambda: broken)
    with connect(empty_database_url) as conn:
        with pytest.raises(psycopg.errors.DivisionByZero):
            migrate.migrate(conn)
        assert conn.execute("SELECT to_regclass('made'), to_regclass('rdstation_tokens')").fetchone() == (
            None,
            None,
        )
        monkeypatch.undo()
        assert migrate.migrate(conn) == migrate.migrations()


def test_who_reads_is_not_stopped_by_a_release_that_waits_for_a_lock(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "100ms")
    monkeypatch.setattr(migrate, "LOCK_PAUSE_S", 0.1)
    applied: list[migrate.Migration] = []
    with (
        connect(empty_database_url) as conn,
        connect(empty_database_url) as backup,
        connect(empty_database_url) as other,
    ):
        conn.execute("CREATE TABLE rdstation_tokens (account_id text)")
        release = threading.Thread(target=lambda: applied.extend(migrate.migrate(conn)))
        with backup.transaction():
            backup.execute("LOCK TABLE rdstation_tokens IN ACCESS SHARE MODE")
            release.start()
            wait_until(lambda: waits_for_table(other), "a release that waits")
            other.execute("SET lock_timeout = '2s'")
            for _ in range(20):
                other.execute("SELECT FROM rdstation_tokens")
            wait_until(lambda: waits_for_table(other), "a release that waits")
            assert applied == []
        release.join(60)
    assert applied == migrate.migrations()


def waits_for_table(conn: Conn) -> bool:
    query = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'rdstation_tokens'::regclass::oid)"
    return conn.execute(query).fetchone() == (True,)


def explain(conn: Conn, query: str, **values: Any) -> str:
    return "\n".join(
        line for (line,) in conn.execute(f"EXPLAIN (COSTS OFF, VERBOSE) {query}".encode(), values)
    )


def test_a_claim_uses_the_index_on_what_is_due_and_the_clock_is_inlined(conn: Conn) -> None:
    conn.execute(
        "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, issued_at, expires_at, refresh_after)"
        " SELECT 'account-' || n, 'a', 'r', now(), now() + interval '1 day', now() + n * interval '1 second'"
        "   FROM generate_series(1, 5000) n"
    )
    conn.execute("ANALYZE rdstation_tokens")
    plan = explain(conn, lease_sql.PICK_DUE, slots=10)
    assert "Index Scan using rdstation_tokens_due_for_workers" in plan
    assert re.search(r"Index Cond: \(GREATEST\(.*due_at, .*undecryptable_until\) <= now\(\)\)", plan)
    assert "rd_now" not in plan
    assert "Sort" not in plan
    assert "rdstation_tokens_due_for_workers" in explain(conn, lease_sql.SECONDS_UNTIL_DUE)


def test_the_clock_is_one_function_and_equals_that_of_the_transaction(conn: Conn) -> None:
    with conn.transaction():
        assert conn.execute("SELECT rd_now() = now()").fetchone() == (True,)
    row = conn.execute(
        "SELECT provolatile, proisstrict FROM pg_proc WHERE proname = 'rd_now' AND pronargs = 0"
    ).fetchone()
    assert row == ("s", False)


@pytest.mark.parametrize(
    ("refresh_after", "expires_at", "retry_at", "leased_until", "due"),
    [
        ("1 h", "9 h", None, None, "1 h"),
        ("9 h", "1 h", None, None, "1 h"),
        ("1 h", "9 h", "3 h", None, "3 h"),
        ("1 h", "9 h", None, "4 h", "4 h"),
        ("1 h", "9 h", "3 h", "2 h", "3 h"),
        ("5 h", "9 h", "3 h", "2 h", "5 h"),
    ],
)
def test_due_at_is_the_renewal_or_the_end_and_never_before_back_off_and_lease(
    conn: Conn, refresh_after: str, expires_at: str, retry_at: str | None, leased_until: str | None, due: str
) -> None:
    row = conn.execute(
        "WITH start AS (SELECT timestamptz '2026-01-01 00:00Z' AS at)"
        " INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, refresh_after, expires_at, retry_at,"
        " leased_until)"
        " SELECT 'a', 'a', 'r', at + %s::interval, at + %s::interval, at + %s::interval, at + %s::interval FROM start"
        " RETURNING due_at = timestamptz '2026-01-01 00:00Z' + %s::interval",
        [refresh_after, expires_at, retry_at, leased_until, due],
    ).fetchone()
    assert row == (True,)
