"""Adds a process's counts to the database in a background thread, so that no request waits for it.

Each flush sends the differences since the last one, computed from the counters in memory, so nothing queues up while
the database is down.
"""

import atexit
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any, TypeGuard
from uuid import uuid4

import psycopg
from psycopg_pool import ConnectionPool

from rdservice.database import outage
from rdservice.database.pool import POOL_TIMEOUT_S, UNAVAILABLE, is_read_only, transaction
from rdservice.metrics import store
from rdservice.metrics.definitions import Metrics, Series
from rdservice.metrics.state import State
from rdservice.metrics.store import Batch

log = logging.getLogger(__name__)

EVERY_S = 10.0
SOON_S = 0.5
"""Delay of a flush after an outgoing call, so that the call is in the database within a second."""
LAST_FLUSH_S = 5.0
"""How long a process that ends retries its last flush."""
LAST_FLUSH_PAUSE_S = 0.2
CLOSE_WITHIN_S = LAST_FLUSH_S + POOL_TIMEOUT_S + 1.0


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The sums over all processes, and the state at the same moment."""

    totals: dict[Series, float]
    state: State
    flushed: bool
    """Whether the sums include the latest counts of this process."""
    read_only: bool
    """Whether the database refuses writes."""


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A batch, and the process's counts at the time of the batch."""

    batch: Batch
    counted: dict[Series, float]


class Flusher:
    """Adds the counts of `metrics` to the database: every ten seconds, within a second after `hurry`, and at the end.

    Call `start` once, in the process that counts. An atexit handler calls `close` if nothing else has.
    """

    def __init__(
        self,
        metrics: Metrics,
        pool: ConnectionPool[psycopg.Connection[Any]],
        read_state: Callable[[psycopg.Connection[Any]], State],
    ) -> None:
        """`read_state` is called for each snapshot, in its transaction."""
        self._metrics = metrics
        self._pool = pool
        self._read_state = read_state
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        # Guarded by `_wake`.
        self._wake = threading.Condition()
        self._due_at = time.monotonic() + EVERY_S
        self._waiting: list[Future[Snapshot]] = []
        self._closing = False
        # Used by the thread only.
        self._process = uuid4()
        self._sequence = 0
        self._added: dict[Series, float] = {}
        self._unsure: _Step | None = None
        self._failing = False

    def start(self) -> None:
        self._thread.start()
        atexit.register(self.close)

    def close(self) -> None:
        """Flush the last counts and end the thread. Idempotent."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(CLOSE_WITHIN_S)
        atexit.unregister(self.close)

    def hurry(self) -> None:
        """Flush within a second."""
        soon = time.monotonic() + SOON_S
        with self._wake:
            if soon < self._due_at:
                self._due_at = soon
                self._wake.notify()

    def snapshot(self, within_s: float) -> Snapshot | None:
        """Flush, then return the sums and the state; None when the database does not respond within `within_s` seconds.

        Returns them also when the database is read-only. Raises psycopg.Error when a query fails otherwise.
        """
        asked: Future[Snapshot] = Future()
        with self._wake:
            self._waiting.append(asked)
            self._due_at = time.monotonic()
            self._wake.notify()
        try:
            return asked.result(within_s)
        except (FutureTimeout, *UNAVAILABLE):
            return None

    def _run(self) -> None:
        closing = False
        while not closing:
            waiting, closing = self._wait()
            error = self._flush()
            if waiting:
                _resolve(waiting, error if _is_silence(error) else self._take_snapshot(flushed=error is None))
        give_up_at = time.monotonic() + LAST_FLUSH_S
        while isinstance(error, UNAVAILABLE) and time.monotonic() < give_up_at:
            time.sleep(LAST_FLUSH_PAUSE_S)
            error = self._flush()
        if error is not None:
            log.error("the database did not take the last counts of this process: they are lost")

    def _wait(self) -> tuple[list[Future[Snapshot]], bool]:
        """Wait until a flush is due; return the futures that wait for a snapshot, and whether to close."""
        with self._wake:
            while not self._closing and (pause_s := self._due_at - time.monotonic()) > 0:
                self._wake.wait(pause_s)
            waiting, self._waiting = self._waiting, []
            self._due_at = time.monotonic() + EVERY_S
            return waiting, self._closing

    def _flush(self) -> Exception | None:
        """Add the latest counts to the sums; return the error that prevented it, or None."""
        try:
            if self._unsure is not None:
                self._add(self._unsure)
            step = self._next_step()
            if step.batch.deltas:
                self._add(step)
        except Exception as error:  # noqa: BLE001 - the thread must go on; `_report` logs it
            self._metrics.flush_failure()
            self._report(error)
            return error
        if self._failing:
            log.info("the database takes counts again")
        self._failing = False
        return None

    def _next_step(self) -> _Step:
        counted = self._metrics.current()
        deltas = {
            series: value - self._added.get(series, 0.0)
            for series, value in counted.items()
            if value != self._added.get(series, 0.0)
        }
        batch = Batch(process=self._process, sequence=self._sequence + 1, deltas=deltas)
        return _Step(batch=batch, counted=counted)

    def _add(self, step: _Step) -> None:
        # Until the commit is confirmed, its outcome is unknown: this batch is sent again before any other.
        self._unsure = step
        self._sequence = step.batch.sequence
        with transaction(self._pool) as conn:
            store.add(conn, step.batch)
        # Not a sum of the differences: rounding could leave it above the count, and the next difference negative.
        self._added = step.counted
        self._unsure = None

    def _take_snapshot(self, *, flushed: bool) -> Snapshot | Exception:
        try:
            with transaction(self._pool) as conn:
                return Snapshot(
                    totals=store.totals(conn),
                    state=self._read_state(conn),
                    flushed=flushed,
                    read_only=is_read_only(conn),
                )
        except Exception as error:  # noqa: BLE001 - `snapshot` raises it
            self._report(error)
            return error

    def _report(self, error: Exception) -> None:
        """Log the first of consecutive database failures, and every unexpected error with its traceback."""
        if not isinstance(error, UNAVAILABLE):
            log.error("the counts cannot be brought to the database", exc_info=error)
        elif not self._failing:
            outage.log.warning("the database does not take counts (%s): they wait", type(error).__name__)
        self._failing = True


def _is_silence(error: Exception | None) -> TypeGuard[Exception]:
    """Return whether the error has no SQLSTATE: the database did not respond."""
    return error is not None and getattr(error, "sqlstate", None) is None


def _resolve(waiting: list[Future[Snapshot]], outcome: Snapshot | Exception) -> None:
    for asked in waiting:
        if isinstance(outcome, Snapshot):
            asked.set_result(outcome)
        else:
            asked.set_exception(outcome)
