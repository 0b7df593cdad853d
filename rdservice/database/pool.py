"""Connections to PostgreSQL, and transactions with timeouts.

All of it works behind PgBouncer in transaction mode: no prepared statements, no startup parameters, no session state.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
import psycopg.errors
from psycopg_pool import ConnectionPool, PoolTimeout

from rdservice.database import outage
from rdservice.database.connection import Connection, Silent, watchdog

# It would log each failed attempt, without pause; the lines of `outage.log` say the same.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5
POOL_TIMEOUT_S = 5.0
IDLE_S = 25.0
"""How long a connection beyond the smallest number may be unused."""
KEEP_READ_ONLY_S = 5.0
"""How long a connection that refuses writes is used for reading before it is replaced."""
FIRST_WRITE_PAUSE_S = 0.1
LONGEST_WRITE_PAUSE_S = 1.0
UNAVAILABLE = (
    psycopg.OperationalError,
    PoolTimeout,
    # psycopg treats SQLSTATE class 25 as programming errors. But a standby, or a server that protects a full disk,
    # refuses writes; and after a process was suspended, the server has terminated its transaction.
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.TransactionTimeout,
)
"""Exceptions raised when the database is down, restarting, overloaded, full or read-only."""

READ_ONLY = "SELECT current_setting('transaction_read_only')::boolean"
# Sends BEGIN, the question and the timeouts in one round trip. SET LOCAL, because a session setting would stay on
# PgBouncer's server connection. The isolation level is named because a database may have another default: transactions
# lock a row and then read it in a new statement, which must see what was committed while they waited.
BEGIN = f"""
BEGIN ISOLATION LEVEL READ COMMITTED;
{READ_ONLY};
SET LOCAL statement_timeout = '10s';
SET LOCAL lock_timeout = '5s';
SET LOCAL idle_in_transaction_session_timeout = '15s'
"""


def create_pool(
    url: str, *, max_size: int, name: str, min_size: int = 1
) -> ConnectionPool[psycopg.Connection[Any]]:
    """Return an open pool. It connects in the background, so the process starts even when the database is down.

    `min_size` connections stay open. PostgreSQL shows them as `rdservice NAME` (application_name).
    """
    watchdog.start()
    return ConnectionPool(
        url,
        connection_class=Connection,
        # PgBouncer accepts connections while PostgreSQL is away, and only the first statement fails. A connection that
        # fails here is tried again after a pause; in a caller's hands it would be replaced at once, without end.
        configure=ConnectionPool.check_connection,
        min_size=min_size,
        max_size=max_size,
        timeout=POOL_TIMEOUT_S,
        # Gives up a failed reconnection early: the next caller starts a new one at once, instead of waiting for the
        # pool's exponential back-off after the database is back.
        reconnect_timeout=1.0,
        # The pool closes one unused connection each time this has passed: all of them within IDLE_S.
        max_idle=IDLE_S / (max_size + 1),
        kwargs={
            "autocommit": True,
            "prepare_threshold": None,
            "application_name": f"rdservice {name}",
            "connect_timeout": CONNECT_TIMEOUT_S,
            "keepalives_idle": 20,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
        },
        name=name,
        open=True,
    )


@contextmanager
def transaction(pool: ConnectionPool[psycopg.Connection[Any]]) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection in a transaction that commits at the end and rolls back on an exception.

    Raises one of `UNAVAILABLE` when the database cannot be reached or refuses writes.
    """
    conn = _begin(pool)
    try:
        with conn:
            yield conn
    except Silent:
        # The others of a failover are silent too, and each would take as long to show it.
        pool.drain()
        raise
    finally:
        pool.putconn(conn)


def _begin(pool: ConnectionPool[psycopg.Connection[Any]]) -> psycopg.Connection[Any]:
    """Return a connection with a transaction begun.

    After a server restart every idle connection is dead, and only its first statement shows it; after a failover those
    to the demoted primary refuse writes. The pool's own check backs off after each such connection, so a caller that
    meets several would time out; here the next one is tried at once.
    """
    give_up_at = time.monotonic() + POOL_TIMEOUT_S
    while True:
        try:
            conn = pool.getconn(give_up_at - time.monotonic())
        except PoolTimeout as error:
            raise PoolTimeout(Connection.failure or str(error)) from error
        try:
            writable = not _begin_on(conn)
        except BaseException as error:
            pool.putconn(conn)
            if isinstance(error, Silent):
                pool.drain()
            if not (conn.closed and isinstance(error, psycopg.OperationalError)):
                raise
        else:
            if writable or not _is_old(conn):
                return conn
            conn.close()
            pool.putconn(conn)


def _begin_on(conn: psycopg.Connection[Any]) -> bool:
    """Begin a transaction and return whether it is read-only."""
    results = conn.execute(BEGIN)
    results.nextset()
    return results.fetchone() == (True,)


def _is_old(conn: psycopg.Connection[Any]) -> bool:
    """Return whether a new connection may lead to another server. While the whole database is read-only it does not,
    and replacing each connection after one transaction would cost more than the transactions."""
    return isinstance(conn, Connection) and time.monotonic() - conn.opened_at > KEEP_READ_ONLY_S


def is_read_only(conn: psycopg.Connection[Any]) -> bool:
    """Return whether the transaction can only read: on a standby, a demoted primary, or a server whose disk is full."""
    return conn.execute(READ_ONLY).fetchone() == (True,)


def write_if_possible(conn: psycopg.Connection[Any], query: str, values: dict[str, Any]) -> None:
    """Run a statement in a savepoint; log and ignore its failure when the database refuses writes.

    For writes that may be lost. A standby, or a database with a full disk, still serves reads.
    """
    try:
        with conn.transaction():
            conn.execute(query.encode(), values)
    except UNAVAILABLE as error:
        outage.log.warning("the database did not take a note (%s)", type(error).__name__)


def write_for_sure(
    pool: ConnectionPool[psycopg.Connection[Any]],
    change: Callable[[psycopg.Connection[Any]], T],
    *,
    give_up: threading.Event,
    timeout_s: float = math.inf,
    monotonic: Callable[[], float] = time.monotonic,
) -> T:
    """Run `change` in a transaction, retry until it succeeds, and return its result.

    For data that exists only once, such as a response with the only valid refresh token. `change` must be idempotent:
    it may run again although an earlier commit succeeded without confirmation. Raises the last database error when
    `give_up` is set or `timeout_s` seconds have passed.
    """
    started, pause_s = monotonic(), FIRST_WRITE_PAUSE_S
    while True:
        try:
            with transaction(pool) as conn:
                return change(conn)
        except (psycopg.Error, PoolTimeout) as error:
            if monotonic() - started > timeout_s or give_up.wait(pause_s):
                raise
            outage.log.warning("the database did not take a write (%s): trying again", type(error).__name__)
            pause_s = min(pause_s * 2, LONGEST_WRITE_PAUSE_S)
