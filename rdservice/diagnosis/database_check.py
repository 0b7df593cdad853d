"""Asks the database, over a connection of its own, whether it can be used and what is in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from rdservice import database
from rdservice.diagnosis import database_facts
from rdservice.diagnosis.facts import DatabaseFacts
from rdservice.diagnosis.known_settings import KnownSettings
from rdservice.encryption import KeyRing
from rdservice.tokens import attempts, credentials, inspection
from rdservice.tokens.attempts import Attempt

MAX_ACCOUNTS_WITH_ATTEMPTS = 10
ATTEMPTS_EACH = 10
LONGEST_ERROR = 400

TIME_LIMITS = "SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '2s'"
# The statistics collector's estimates: counting would read every page of every table.
TABLES = r"""
SELECT relname, n_live_tup FROM pg_stat_user_tables
 WHERE schemaname = current_schema()
   AND (relname LIKE 'rdstation\_%' OR relname LIKE 'rdservice\_%' OR relname = 'schema_migrations')
 ORDER BY relname
"""


@dataclass(frozen=True, kw_only=True)
class DatabaseCheck:
    """What came of it. `error` is what went wrong, None when all could be read; what was not read is None or empty."""

    reached: bool = False
    error: str | None = None
    server_version: str | None = None
    applied: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    tables: dict[str, int] = field(default_factory=dict)
    """Our tables with their estimated numbers of rows."""
    facts: DatabaseFacts | None = None
    accounts_total: int | None = None
    attempts: dict[str, list[Attempt]] = field(default_factory=dict)
    """The latest attempts of some accounts, newest first."""


def check(known: KnownSettings, *, first: str) -> DatabaseCheck:
    """Read all that can be read; the account `first` is looked at if it exists. Never raises psycopg.Error."""
    try:
        conn = psycopg.connect(
            known.settings.database_url,
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=database.CONNECT_TIMEOUT_S,
        )
    except psycopg.Error as error:
        # libpq's message names host, port, user and database, and never the password.
        return DatabaseCheck(error=" ".join(str(error).split())[:LONGEST_ERROR])
    with conn:
        try:
            return _read(conn, known, first)
        except psycopg.Error as error:
            return DatabaseCheck(reached=True, error=describe(error))


def describe(error: psycopg.Error) -> str:
    """Name an error without PostgreSQL's message, which may quote values."""
    state = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
    return f"{type(error).__name__}{state}"


def _read(conn: psycopg.Connection[Any], known: KnownSettings, first: str) -> DatabaseCheck:
    with _transaction(conn):
        version = conn.execute("SHOW server_version").fetchone()
        pending = tuple(database.pending_migrations(conn))
        tables = dict(conn.execute(TABLES).fetchall())
    names = [f"{migration.version:04d}_{migration.name}" for migration in database.migrations()]
    facts, total, recent, error = None, None, {}, None
    try:
        with _transaction(conn):
            facts, total = _facts(conn, known, first), inspection.count(conn)
            recent = {
                account.account_id: attempts.recent(conn, account.account_id, limit=ATTEMPTS_EACH)
                for account in facts.accounts[:MAX_ACCOUNTS_WITH_ATTEMPTS]
            }
    except psycopg.Error as failure:
        # Without all migrations the tables need not be there; that is the finding then, and this only follows from it.
        error = None if pending and isinstance(failure, psycopg.ProgrammingError) else describe(failure)
    return DatabaseCheck(
        reached=True,
        error=error,
        server_version=None if version is None else str(version[0]),
        applied=tuple(name for name in names if name not in pending),
        pending=pending,
        tables=tables,
        facts=facts,
        accounts_total=total,
        attempts=recent,
    )


def _facts(conn: psycopg.Connection[Any], known: KnownSettings, first: str) -> DatabaseFacts:
    settings = known.settings
    client_known = known.usable("RDSTATION_CLIENT_ID", "RDSTATION_CLIENT_SECRET")
    return database_facts.read(
        conn,
        keys=KeyRing(settings.encryption_keys) if known.usable("TOKEN_ENCRYPTION_KEYS") else None,
        fingerprint=credentials.fingerprint(settings) if client_known else None,
        api_url=settings.api_url,
        scope=settings.scope,
        first=first,
    )


@contextmanager
def _transaction(conn: psycopg.Connection[Any]) -> Iterator[None]:
    with conn.transaction():
        conn.execute(TIME_LIMITS)
        yield
