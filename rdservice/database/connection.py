"""A connection to PostgreSQL on which no call waits for ever.

A server that accepts bytes and never responds, as after a failover behind a proxy, is noticed by neither the kernel nor
the server's timeouts. So each call has a bound here: the connection is closed, and the caller may try again on another.
A call that does not end even so, for instance in the name service, ends the process; a supervisor starts it again.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar, Self, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg_pool import PoolTimeout

from rdservice.database import outage

log = logging.getLogger(__name__)

T = TypeVar("T")

RESPONSE_S = 50.0
"""How long a statement or a commit may take: longer than every statement_timeout."""
HANGING_TICKS = 60
TICK_S = 1.0


class Silent(psycopg.OperationalError):
    """The server has not responded within `RESPONSE_S`; the connection is closed."""


class Watchdog:
    """Ends the process when one call has not returned for `HANGING_TICKS`.

    It counts its own turns and not the time: a process that was suspended is not hanging. A caller that tries again
    makes a new call, so an outage does not end a process that has something to write.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._turn = 0
        self._began: dict[object, int] = {}
        """The calls under way, by an object of their own, and the turn in which each began."""

    def start(self) -> None:
        """Begin to watch. Idempotent; call it in the process that is watched."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()

    def watch(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, or raise what it raises."""
        this = object()
        self._began[this] = self._turn
        try:
            return call()
        finally:
            del self._began[this]

    def _run(self) -> None:
        while True:
            time.sleep(TICK_S)
            self._turn += 1
            if any(self._turn - began > HANGING_TICKS for began in list(self._began.values())):
                log.critical(
                    "a call to the database has not returned for %d s: ending", HANGING_TICKS * TICK_S
                )
                logging.shutdown()
                os._exit(os.EX_TEMPFAIL)


watchdog = Watchdog()


class Connection(psycopg.Connection[Any]):
    """A connection that knows its age, whose calls have a bound, and whose failure to connect is logged."""

    failure: ClassVar[str | None] = None
    """Why the last attempt to connect has failed; None: it succeeded."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.opened_at = time.monotonic()

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        try:
            opened = watchdog.watch(lambda: super(Connection, cls).connect(conninfo, **kwargs))
        except psycopg.Error as error:
            cls.failure = reason(error)
            outage.log.warning("cannot connect to the database: %s", cls.failure)
            raise
        cls.failure = None
        return opened

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Wait for a statement, a commit or a rollback. psycopg calls it. Raises Silent."""
        bound_s = RESPONSE_S if timeout is None else timeout
        try:
            return watchdog.watch(lambda: super(Connection, self).wait(gen, interval, bound_s))
        except psycopg.OperationalError as error:
            if self.closed or self.info.transaction_status is not TransactionStatus.ACTIVE:
                raise
            self.close()
            raise Silent(f"the server has not responded within {bound_s:.0f} s") from error


def reason(error: psycopg.Error | PoolTimeout) -> str:
    """Return what PostgreSQL or libpq says, in one line. It may name host, user and database; it quotes no row."""
    said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return " ".join((said or str(error)).split())
