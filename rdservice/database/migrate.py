"""Migrates the database: applies the numbered `.sql` files of `rdservice/database/migrations`."""

import logging
import re
import threading
import time
from collections.abc import Callable
from importlib import resources
from typing import Any, NamedTuple

import psycopg
import psycopg.errors

from rdservice.database.older_table import adopt
from rdservice.database.older_table.checks import Sentence

log = logging.getLogger(__name__)

MIGRATION_LOCK = 0x5244_5354
"""Key of the advisory lock that serializes releases ("RDST" in ASCII)."""
OLDEST_SERVER = 150_000
"""PostgreSQL 15, as in `server_version_num`."""
LOCK_TIMEOUT = "3s"
"""A session that waits for a table holds up others behind it; their own patience ends after 5 s."""
LOCK_PAUSE_S = 2.0
LOCK_PATIENCE_S = 600.0
"""A release repeats for so long while other sessions, such as a backup, hold locks."""

MISSING_RIGHTS = """
SELECT format('GRANT USAGE, CREATE ON SCHEMA %I TO %I;', schema, current_user)
  FROM (SELECT COALESCE(current_schema(), 'public') AS schema) here
 WHERE NOT has_schema_privilege(schema, 'USAGE') OR NOT has_schema_privilege(schema, 'CREATE')
UNION ALL
SELECT format('GRANT TEMPORARY ON DATABASE %I TO %I;', current_database(), current_user)
 WHERE NOT has_database_privilege(current_database(), 'TEMPORARY')
UNION ALL
SELECT format('ALTER TABLE %s OWNER TO %I;', oid::regclass, current_user)
  FROM pg_class
 WHERE relkind = 'r' AND relnamespace = COALESCE(current_schema(), 'public')::regnamespace
   AND (relname = 'schema_migrations' OR starts_with(relname, 'rdstation_') OR starts_with(relname, 'rdservice_'))
   AND NOT pg_has_role(relowner, 'USAGE')
 ORDER BY 1
"""


class Migration(NamedTuple):
    version: int
    name: str
    sql: str


class ServerTooOld(Exception):
    """The server is older than OLDEST_SERVER. The argument is its version, such as `14.9`."""


class TablesInUse(Exception):
    """Other sessions held locks for longer than LOCK_PATIENCE_S."""


class RightsMissing(Exception):
    """The user may not create or change what a migration needs. `statements` is SQL that gives the rights."""

    def __init__(self, reason: str, statements: list[str]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.statements = statements


def migrations() -> list[Migration]:
    """Return the numbered `.sql` files of `rdservice/database/migrations`, in order."""
    found = []
    for file in resources.files("rdservice.database").joinpath("migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return sorted(found)


def migrate(
    conn: psycopg.Connection[Any], on_adopted: Callable[[list[Sentence]], None] = lambda _: None
) -> list[Migration]:
    """Apply all missing migrations in one transaction and return them.

    An older backend's table is adopted first; `on_adopted` gets what was renamed or guessed in it. `conn` must be in
    autocommit mode. Safe to repeat, to run concurrently (the second call waits and finds nothing to do) and to kill
    (PostgreSQL rolls back). Raises CannotAdopt, ServerTooOld, RightsMissing or TablesInUse; then nothing was changed.
    """
    _check_server(conn)
    give_up_at = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            with conn.transaction():
                adopted, applied = _apply_missing(conn)
        except psycopg.errors.InsufficientPrivilege as error:
            statements = [statement for (statement,) in conn.execute(MISSING_RIGHTS).fetchall()]
            raise RightsMissing(error.diag.message_primary or "", statements) from error
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            if time.monotonic() > give_up_at:
                raise TablesInUse from error
            log.warning("another session uses the tables: trying again")
            # Sessions that waited behind this release come first.
            threading.Event().wait(LOCK_PAUSE_S)
        else:
            on_adopted(adopted)
            return applied


def pending_migrations(conn: psycopg.Connection[Any]) -> list[str]:
    """Return the names of the migrations that the database lacks, such as `0001_tokens`, in order."""
    exists = conn.execute("SELECT to_regclass('schema_migrations') IS NOT NULL").fetchone()
    applied = _applied(conn) if exists == (True,) else set()
    return [f"{m.version:04d}_{m.name}" for m in migrations() if m.version not in applied]


def _check_server(conn: psycopg.Connection[Any]) -> None:
    row = conn.execute(
        "SELECT current_setting('server_version_num')::integer, current_setting('server_version')"
    ).fetchone()
    if row is not None and row[0] < OLDEST_SERVER:
        raise ServerTooOld(row[1])


def _apply_missing(conn: psycopg.Connection[Any]) -> tuple[list[Sentence], list[Migration]]:
    # Nobody waits behind this lock but other releases.
    conn.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
    conn.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
    conn.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations ("
        " version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    applied, everything = _applied(conn), migrations()
    missing = [migration for migration in everything if migration.version not in applied]
    adopted: list[Sentence] = []
    if 1 not in applied:
        adopted = adopt.adopt(conn, adopt.added_columns([migration.sql for migration in everything]))
    for migration in missing:
        log.info("applying migration %04d %s", migration.version, migration.name)
        conn.execute(migration.sql.encode())
        conn.execute(
            "INSERT INTO schema_migrations (version, name) VALUES (%s, %s)",
            [migration.version, migration.name],
        )
    return adopted, missing


def _applied(conn: psycopg.Connection[Any]) -> set[int]:
    return {version for (version,) in conn.execute("SELECT version FROM schema_migrations")}
