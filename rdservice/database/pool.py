"""Connections to PostgreSQL, and transactions with time-outs.

Everything here works behind PgBouncer in transaction mode: no prepared statements, no start-up options, no session
state.
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

log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5
POOL_TIMEOUT_S = 5.0
FIRST_WRITE_PAUSE_S = 0.1
LONGEST_WRITE_PAUSE_S = 1.0
UNAVAILABLE = (
    psycopg.OperationalError,
    PoolTimeout,
    # psycopg counts the SQLSTATE class 25 as mistakes of the program. A standby, or a server that protects a full disk,
    # takes no writes; and a process that stood still finds its transaction ended by the server.
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.TransactionTimeout,
)
"""What a database that is down, restarting, overloaded, full or read-only raises."""

# One round trip: the time-outs ride on the BEGIN. SET LOCAL, because a session's setting would stay on PgBouncer's
# server connection.
BEGIN = """
BEGIN;
SET LOCAL statement_timeout = '10s';
SET LOCAL lock_timeout = '5s';
SET LOCAL idle_in_transaction_session_timeout = '15s'
"""


def create_pool(url: str, *, max_size: int, name: str) -> ConnectionPool[psycopg.Connection[Any]]:
    """Return an open pool; it connects in the background, so a database that is down does not prevent the start."""
    return ConnectionPool(
        url,
        min_size=1,
        max_size=max_size,
        timeout=POOL_TIMEOUT_S,
        # A failed attempt ends soon: the next caller starts a new one at once, instead of waiting for the pool's
        # exponential back-off to notice that the database is back.
        reconnect_timeout=1.0,
        max_idle=120,
        kwargs={
            "autocommit": True,
            "prepare_threshold": None,
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
    """Yield a connection inside a transaction that commits at the end, and rolls back on an exception.

    Raises one of `UNAVAILABLE` when the database cannot be reached or takes no writes.
    """
    conn = _begin(pool)
    try:
        with conn:
            yield conn
    finally:
        pool.putconn(conn)


def _begin(pool: ConnectionPool[psycopg.Connection[Any]]) -> psycopg.Connection[Any]:
    """Return a connection on which a transaction has begun.

    After a restart of the server every idle connection is a dead one, which only the first statement shows. The pool's
    own check waits longer and longer between two of them, so that a caller who meets some is refused.
    """
    give_up_at = time.monotonic() + POOL_TIMEOUT_S
    while True:
        conn = pool.getconn(give_up_at - time.monotonic())
        try:
            conn.execute(BEGIN)
        except BaseException as error:
            pool.putconn(conn)
            if not (conn.closed and isinstance(error, psycopg.OperationalError)):
                raise
        else:
            return conn


def write_if_possible(conn: psycopg.Connection[Any], query: str, values: dict[str, Any]) -> None:
    """Run a statement whose loss does no harm, in a transaction that goes on without it.

    A database with a full disk, or a standby, still answers what it is asked.
    """
    try:
        with conn.transaction():
            conn.execute(query.encode(), values)
    except UNAVAILABLE as error:
        log.warning("the database did not take a note (%s)", type(error).__name__)


def write_for_sure(
    pool: ConnectionPool[psycopg.Connection[Any]],
    change: Callable[[psycopg.Connection[Any]], T],
    *,
    give_up: threading.Event,
    timeout_s: float = math.inf,
    monotonic: Callable[[], float] = time.monotonic,
) -> T:
    """Run `change` in a transaction, again and again until it succeeds, and return its result.

    For what cannot be had a second time, such as an answer that holds the only valid refresh token. `change` may run
    although an earlier commit of it went through unseen. Raises the database's last error when `give_up` is set or
    `patience_s` seconds are over.
    """
    started, pause_s = monotonic(), FIRST_WRITE_PAUSE_S
    while True:
        try:
            with transaction(pool) as conn:
                return change(conn)
        except (psycopg.Error, PoolTimeout) as error:
            if monotonic() - started > timeout_s or give_up.wait(pause_s):
                raise
            log.warning("the database did not take a write (%s): trying again", type(error).__name__)
            pause_s = min(pause_s * 2, LONGEST_WRITE_PAUSE_S)
