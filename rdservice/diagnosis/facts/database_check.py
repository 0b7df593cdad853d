"""Checks over its own connection whether the database is usable, and reads its contents for the diagnosis."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from psycopg.rows import dict_row

from rdservice.database.migrate import migrations, pending_migrations
from rdservice.database.pool import CONNECT_TIMEOUT_S
from rdservice.diagnosis.facts import database_facts
from rdservice.diagnosis.facts.known_settings import KnownSettings
from rdservice.diagnosis.facts.types import DatabaseFacts
from rdservice.encryption import KeyRing
from rdservice.rdstation import rate_budget
from rdservice.tokens import attempts, credentials, overview, workers
from rdservice.tokens.attempts import Attempt
from rdservice.tokens.workers import Heartbeat

MAX_ACCOUNTS_WITH_ATTEMPTS = 10
ATTEMPTS_EACH = 10
MAX_WORKERS = 20
LONGEST_ERROR = 400

TIME_LIMITS = "SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '2s'"
# Estimates from the catalogue and the statistics: counting would read every page of every table, and asking for a
# table's exact size waits for locks on it.
TABLES = r"""
SELECT c.relname AS name, COALESCE(s.n_live_tup, 0) AS estimated_rows,
       c.relpages::bigint * current_setting('block_size')::bigint AS estimated_bytes
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
 WHERE n.nspname = current_schema() AND c.relkind = 'r'
   AND (c.relname LIKE 'rdstation\_%' OR c.relname LIKE 'rdservice\_%' OR c.relname = 'schema_migrations')
 ORDER BY c.relname
"""
SERVER = """
SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS standby,
       current_setting('transaction_read_only')::boolean AS read_only,
       current_setting('max_connections')::int AS max_connections,
       (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()) AS connections
"""
CLOCK = "SELECT EXTRACT(epoch FROM rd_now())::float8"


@dataclass(frozen=True, kw_only=True)
class DatabaseCheck:
    """The result of a check. `error`: the first error, None if there was none. What was not read is None or empty."""

    reached: bool = False
    error: str | None = None
    connect_ms: int | None = None
    server: dict[str, Any] = field(default_factory=dict)
    """The columns of SERVER: version, whether it accepts writes, number of connections."""
    applied: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    tables: tuple[dict[str, Any], ...] = ()
    """The service's tables with their estimated numbers of rows and bytes."""
    clock_ahead_s: float | None = None
    """Seconds by which the database's clock is ahead of this machine's."""
    facts: DatabaseFacts | None = None
    by_status: dict[str, int] | None = None
    """Number of accounts per status, over all accounts."""
    workers: tuple[Heartbeat, ...] = ()
    attempts: dict[str, list[Attempt]] = field(default_factory=dict)
    """The latest refresh attempts of some accounts, newest first, by account id."""
    budgets: dict[str, dict[str, rate_budget.State]] = field(default_factory=dict)
    """The rate budgets of the same accounts that were used lately."""

    @property
    def read_only(self) -> bool:
        return bool(self.server.get("standby") or self.server.get("read_only"))


def check(known: KnownSettings, *, first: str, within_s: float) -> DatabaseCheck:
    """Read everything that can be read, including the account `first` if it exists. Never raises psycopg.Error.

    Cuts the connection after `within_s` seconds, whether the server responds or not.
    """
    started = time.monotonic()
    try:
        conn = psycopg.connect(
            known.settings.database_url,
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=CONNECT_TIMEOUT_S,
        )
    except psycopg.Error as error:
        # libpq's message names host, port, user and database, but never the password.
        return DatabaseCheck(error=" ".join(str(error).split())[:LONGEST_ERROR])
    connect_ms = round((time.monotonic() - started) * 1000)
    with conn, _cut_after(conn, within_s - (time.monotonic() - started)) as was_cut:
        try:
            found = _read(conn, known, first)
        except psycopg.Error as error:
            found = DatabaseCheck(reached=True, error=describe(error))
        if was_cut.is_set():
            found = replace(found, error=f"no response within {within_s:.0f} s")
    return replace(found, connect_ms=connect_ms)


def describe(error: psycopg.Error) -> str:
    """Return an error's class and SQLSTATE, without PostgreSQL's message, which may quote values."""
    state = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
    return f"{type(error).__name__}{state}"


@contextmanager
def _cut_after(conn: psycopg.Connection[Any], seconds: float) -> Iterator[threading.Event]:
    """Shut down the connection's socket after `seconds`, which ends every wait on it. The yielded event is set then.

    The server's own timeouts do not help when it accepts packets and never responds.
    """
    was_cut = threading.Event()
    handle = socket.socket(fileno=os.dup(conn.fileno()))

    def cut() -> None:
        was_cut.set()
        try:
            handle.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The connection is closed already.
            return

    timer = threading.Timer(max(0.0, seconds), cut)
    timer.daemon = True
    timer.start()
    try:
        yield was_cut
    finally:
        timer.cancel()
        handle.close()


def _read(conn: psycopg.Connection[Any], known: KnownSettings, first: str) -> DatabaseCheck:
    with _transaction(conn):
        pending = tuple(pending_migrations(conn))
        server = _row(conn, SERVER)
    names = [f"{migration.version:04d}_{migration.name}" for migration in migrations()]
    found = DatabaseCheck(
        reached=True,
        server=server,
        applied=tuple(name for name in names if name not in pending),
        pending=pending,
    )
    # Each step has its own transaction, so that one failure does not hide what the others can read. `_clock` needs its
    # own also because rd_now() is the time at which the transaction began.
    for step in (_clock, _tables, _accounts(known, first), _counts, _workers):
        try:
            with _transaction(conn):
                found = step(conn, found)
        except psycopg.Error as failure:
            # With pending migrations, missing tables are a consequence and no finding of their own.
            if not (pending and isinstance(failure, psycopg.ProgrammingError)):
                found = replace(found, error=found.error or describe(failure))
        if conn.closed:
            break
    return found


Step = Callable[[psycopg.Connection[Any], DatabaseCheck], DatabaseCheck]


def _tables(conn: psycopg.Connection[Any], found: DatabaseCheck) -> DatabaseCheck:
    with conn.cursor(row_factory=dict_row) as cur:
        return replace(found, tables=tuple(cur.execute(TABLES).fetchall()))


def _clock(conn: psycopg.Connection[Any], found: DatabaseCheck) -> DatabaseCheck:
    before = time.time()
    row = conn.execute(CLOCK).fetchone()
    here = (before + time.time()) / 2
    return replace(found, clock_ahead_s=None if row is None else round(row[0] - here, 1))


def _accounts(known: KnownSettings, first: str) -> Step:
    def read(conn: psycopg.Connection[Any], found: DatabaseCheck) -> DatabaseCheck:
        facts = _facts(conn, known, first)
        looked_at = [account.account_id for account in facts.accounts[:MAX_ACCOUNTS_WITH_ATTEMPTS]]
        return replace(
            found,
            facts=facts,
            attempts={name: attempts.recent(conn, name, limit=ATTEMPTS_EACH) for name in looked_at},
            budgets=rate_budget.states(conn, looked_at),
        )

    return read


def _counts(conn: psycopg.Connection[Any], found: DatabaseCheck) -> DatabaseCheck:
    return replace(
        found, by_status={str(status): number for status, number in overview.read(conn).tokens.items()}
    )


def _workers(conn: psycopg.Connection[Any], found: DatabaseCheck) -> DatabaseCheck:
    return replace(found, workers=tuple(workers.heartbeats(conn, limit=MAX_WORKERS)))


def _row(conn: psycopg.Connection[Any], query: str) -> dict[str, Any]:
    with conn.cursor(row_factory=dict_row) as cur:
        return cur.execute(query.encode()).fetchone() or {}


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
