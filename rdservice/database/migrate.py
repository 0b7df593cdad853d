"""Migrates the database: applies the numbered `.sql` files of `rdservice/database/migrations`."""

import logging
import re
from importlib import resources
from typing import Any, NamedTuple

import psycopg

log = logging.getLogger(__name__)

MIGRATION_LOCK = 0x5244_5354
"""Key of the advisory lock that serializes releases ("RDST" in ASCII)."""


class Migration(NamedTuple):
    version: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """Return the numbered `.sql` files of `rdservice/database/migrations`, in order."""
    found = []
    for file in resources.files("rdservice.database").joinpath("migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return sorted(found)


def migrate(conn: psycopg.Connection[Any]) -> list[Migration]:
    """Apply all missing migrations in one transaction and return them.

    `conn` must be in autocommit mode. Safe to repeat, to run concurrently (the second call waits and finds nothing to
    do) and to kill (PostgreSQL rolls back).
    """
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
        conn.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations ("
            " version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        applied = _applied(conn)
        missing = [migration for migration in migrations() if migration.version not in applied]
        for migration in missing:
            log.info("applying migration %04d %s", migration.version, migration.name)
            conn.execute(migration.sql.encode())
            conn.execute(
                "INSERT INTO schema_migrations (version, name) VALUES (%s, %s)",
                [migration.version, migration.name],
            )
    return missing


def pending_migrations(conn: psycopg.Connection[Any]) -> list[str]:
    """Return the names of the migrations that the database lacks, such as `0001_tokens`, in order."""
    exists = conn.execute("SELECT to_regclass('schema_migrations') IS NOT NULL").fetchone()
    applied = _applied(conn) if exists == (True,) else set()
    return [f"{m.version:04d}_{m.name}" for m in migrations() if m.version not in applied]


def _applied(conn: psycopg.Connection[Any]) -> set[int]:
    return {version for (version,) in conn.execute("SELECT version FROM schema_migrations")}
