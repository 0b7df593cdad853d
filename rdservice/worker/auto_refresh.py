"""The loop that keeps every account's token fresh."""

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from rdservice.data_protection import retention
from rdservice.database import outage
from rdservice.database.pool import transaction
from rdservice.encryption import KeyMissing
from rdservice.logs.formatting import log_context
from rdservice.tokens import leases, workers
from rdservice.tokens.leases import Lease
from rdservice.tokens.refresh import Refresher, Result
from rdservice.worker.bell import Bell

log = logging.getLogger(__name__)

CONCURRENCY = 32
LOOK_EVERY_S = 2.0
"""Longest pause between two queries for due accounts; within it the worker notices an upload."""
SHORTEST_PAUSE_S = 0.05
GATHER_S = 0.01
GATHER_SHARE = 0.25
"""Leasing one account costs as much as leasing many. While more accounts are due than there are slots, the worker waits
until `GATHER_SHARE` of its slots are free, or for `GATHER_S`."""
BEAT_EVERY_S = 10.0
REPORT_EVERY_S = 300.0
"""How often the worker logs that it could not decrypt a row because the key is missing."""


Prune = Callable[[ConnectionPool[psycopg.Connection[Any]]], None]
"""Deletes rows that are too old."""


def auto_refresh_tokens(
    refresher: Refresher,
    bell: Bell,
    *,
    concurrency: int = CONCURRENCY,
    executor: Executor | None = None,
    prune: Prune = retention.enforce,
) -> None:
    """Refresh due tokens until the bell is stopped, then wait for the refreshes in flight and return.

    `executor` runs up to `concurrency` refreshes at a time and is shut down at the end; None: a new pool of threads.
    The loop never leases more accounts than it can refresh immediately. During an outage of the database it waits.
    `prune` is called with each heartbeat.
    Raises KeyMissing if this process has the encryption key of no account at all.
    """
    with executor or ThreadPoolExecutor(concurrency, thread_name_prefix="refresh") as threads:
        loop = _Loop(refresher, bell, threads, concurrency, prune)
        while not bell.stopped:
            bell.wait(loop.step())
        log.info("stopping: %d refreshes are in flight", loop.in_flight)


class _Loop:
    """The loop's state. Each `step` leases due accounts once and returns the seconds until the next step."""

    def __init__(
        self,
        refresher: Refresher,
        bell: Bell,
        executor: Executor,
        concurrency: int,
        prune: Prune = retention.enforce,
    ) -> None:
        self._refresher = refresher
        self._bell = bell
        self._executor = executor
        self._concurrency = concurrency
        self._prune = prune
        self._running: dict[Future[Result], Lease] = {}
        self._ended: deque[Future[Result]] = deque()
        self._more_is_due = False
        self._free_since: float | None = None
        self._beaten_at: float | None = None
        self._reported_at: float | None = None
        self._database_down = False

    @property
    def in_flight(self) -> int:
        return len(self._running)

    def step(self) -> float:
        try:
            self._reap()
            pause_s = self._lease_and_start()
        except (psycopg.Error, PoolTimeout) as error:
            if not self._database_down:
                outage.log.warning("waiting for the database (%s)", type(error).__name__)
            self._database_down = True
            return LOOK_EVERY_S
        if self._database_down:
            log.info("the database is back")
            self._database_down = False
        self._beat()
        return pause_s

    def _beat(self) -> None:
        """Record a heartbeat and delete old rows, every ten seconds. A failure does not disturb the refreshes."""
        now = self._refresher.monotonic()
        if self._beaten_at is not None and now - self._beaten_at < BEAT_EVERY_S:
            return
        self._beaten_at = now
        try:
            with transaction(self._refresher.pool) as conn:
                workers.beat(conn, self._refresher.claimed_by)
        except (psycopg.Error, PoolTimeout) as error:
            outage.log.warning("the heartbeat was not written (%s); refreshes go on", type(error).__name__)
            return
        self._prune(self._refresher.pool)

    def _lease_and_start(self) -> float:
        free = self._concurrency - len(self._running)
        if free == 0:
            return LOOK_EVERY_S
        gather_s = self._gather_s(free)
        if gather_s > 0:
            return gather_s
        self._free_since = None
        with transaction(self._refresher.pool) as conn:
            leased = leases.lease_due(
                conn,
                started=self._refresher.monotonic(),
                fingerprint=self._refresher.fingerprint,
                slots=free,
                claimed_by=self._refresher.claimed_by,
                backlog=self._more_is_due,
            )
            due_in_s = None if leased else leases.seconds_until_due(conn)
        self._more_is_due = len(leased) == free
        for lease in leased:
            self._start(lease)
        if leased:
            return 0.0
        if due_in_s is None or due_in_s <= 0:
            # Overdue but not claimable: others hold it, or RD Station refuses the client credentials.
            return LOOK_EVERY_S
        return min(LOOK_EVERY_S, max(SHORTEST_PAUSE_S, due_in_s))

    def _gather_s(self, free: int) -> float:
        """Return how many seconds to wait for more free slots before leasing; 0: lease now."""
        if not self._more_is_due or free >= GATHER_SHARE * self._concurrency:
            return 0.0
        now = self._refresher.monotonic()
        if self._free_since is None:
            self._free_since = now
        return max(0.0, self._free_since + GATHER_S - now)

    def _start(self, lease: Lease) -> None:
        running = self._executor.submit(self._refresher.refresh, lease)
        self._running[running] = lease
        running.add_done_callback(self._end)

    def _end(self, ended: Future[Result]) -> None:
        self._ended.append(ended)
        self._bell.ring()

    def _reap(self) -> None:
        while self._ended:
            ended = self._ended.popleft()
            lease = self._running.pop(ended)
            error = ended.exception()
            with log_context(claim=lease.fence):
                if isinstance(error, KeyMissing):
                    self._report_missing_key(error)
                elif error is not None:
                    _log_failure(error)

    def _report_missing_key(self, error: KeyMissing) -> None:
        """Log which key is missing. Raises the error if this worker can decrypt no row at all."""
        now = self._refresher.monotonic()
        if self._reported_at is not None and now - self._reported_at < REPORT_EVERY_S:
            return
        with transaction(self._refresher.pool) as conn:
            can_decrypt_any = leases.can_decrypt_any(conn, self._refresher.keys)
        if not can_decrypt_any:
            raise error
        self._reported_at = now
        log.critical(
            "%s: postponed by five minutes for a worker that has the key; all others are refreshed", error
        )


def _log_failure(error: BaseException) -> None:
    """Log a refresh that ended with an exception."""
    if isinstance(error, psycopg.Error | PoolTimeout):
        outage.log.warning("a refresh did not finish (%s); its lease will expire", type(error).__name__)
    else:
        log.error("a refresh failed unexpectedly", exc_info=error)
