"""Returns content from memory, from the table or from RD Station. All processes together fetch a key once at a time."""

import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import psycopg
from psycopg_pool import ConnectionPool

from rdservice import errors
from rdservice.cache import table
from rdservice.cache.entries import Content, Failure, FetchFailed, Served, State
from rdservice.cache.memory import CacheMemory, Entry, Name
from rdservice.cache.query import Fetch, Query, version_of
from rdservice.cache.single_flight import SingleFlight
from rdservice.cache.sweeper import Sweeper
from rdservice.database.pool import transaction, write_for_sure
from rdservice.encryption import KeyMissing, KeyRing, ValueDamaged
from rdservice.rdstation.client import CALL_DEADLINE_S
from rdservice.text.catalogue import message
from rdservice.tokens.access_tokens import AccessTokens
from rdservice.tokens.memory import TokenMemory
from rdservice.tokens.store import StoredToken

log = logging.getLogger(__name__)

T = TypeVar("T")

WAIT_S = 10.0
"""Longest wait of a caller for content that is being fetched."""
POLL_S = 0.1
COMMIT_ALLOWANCE_S = 5.0  # of the lease, for writing the response to the database
STORE_TIMEOUT_S = 10.0
STORE_PATIENCE_S = 2.0
"""How long callers wait for the table to take a response. Then they get it although it is not stored."""
FETCH_THREADS = 16
REVALIDATIONS = 8  # of these threads, in the background

Outcome = Served | Failure | None
"""None: the account has another connection or epoch by now, so the caller must read its row again."""


class _Seen(NamedTuple):
    """The table's row, its content (`fresh` or `old`), and the `lease` if this process must fetch."""

    row: table.Row
    fresh: Entry | None
    old: Entry | None
    lease: table.Lease | None


class NotCached(Exception):
    """This process's memory has no fresh content, and the caller allowed nothing else (RFC 9111 5.2.1.7)."""


class Cache:
    """The cache of one process. Safe to use from many threads."""

    def __init__(
        self,
        *,
        pool: ConnectionPool[psycopg.Connection[Any]],
        keys: KeyRing,
        tokens: TokenMemory,
        access_tokens: AccessTokens,
        secret_key: str,
        max_age_s: float,
        must_end: threading.Event,
        on_lost_note: Callable[[], None],
    ) -> None:
        """`max_age_s`: how long content is fresh, in seconds. `secret_key` makes the table's keys unguessable.

        `on_lost_note` is called when the table does not take a response in time.
        """
        self._pool = pool
        self._keys = keys
        self._tokens = tokens
        self._access_tokens = access_tokens
        self._secret_key = secret_key.encode()
        self._max_age_s = max_age_s
        self._must_end = must_end
        self._on_lost_note = on_lost_note
        self._memory = CacheMemory()
        self._sweeper = Sweeper(self._memory, pool)
        self._sweeper.start()
        # Fetches run here and not in the caller's thread: a caller may give up, but the response is stored.
        self._executor = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="fetch")
        self._flights: SingleFlight[Outcome] = SingleFlight()
        self._lock = threading.Lock()
        self._revalidating = 0

    def close(self) -> None:
        """Wait for the fetches under way."""
        self._sweeper.close()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def get(
        self,
        account_id: str,
        operation: str,
        parameters: tuple[str | int | None, ...],
        fetch: Fetch,
        *,
        max_age_s: float | None = None,
        only_if_cached: bool = False,
    ) -> Served:
        """Return the content of `operation` with these parameters; `fetch` gets it from RD Station.

        `max_age_s` overrides the cache's own age limit: older content is served only if RD Station fails. Of all
        callers in all processes that give the same `max_age_s`, one makes a call per `max_age_s` seconds.

        With `only_if_cached` the call raises NotCached instead of waiting, querying the database or fetching.

        Raises NotConnected, ReauthorizationRequired, TokenUnreadable, RdStationUnavailable when no content arrived
        within `WAIT_S`, or the error of the FetchFailed that `fetch` raised in this or another process.
        """
        name = (operation, parameters)
        deadline = time.monotonic() + WAIT_S
        while True:
            token = self._remembered(account_id) if only_if_cached else self._present(account_id)
            entry = self._memory.get(account_id, version_of(token), name)
            enough_s = self._max_age_s if max_age_s is None else max_age_s
            if entry is not None and entry.age_s() < enough_s and entry.is_confirmed():
                return entry.served("hit")
            if only_if_cached:
                raise NotCached
            query = Query(
                token=token,
                name=name,
                key=self.key(token.connection_id, token.cache_epoch, name),
                fetch=fetch,
                max_age_s=enough_s,
                known=entry,
                strict=max_age_s is not None,
            )
            outcome = self._join(query, deadline)
            if isinstance(outcome, Served):
                return outcome
            if outcome is not None:
                self._raise(account_id, outcome)
            if time.monotonic() > deadline:
                raise errors.RdStationUnavailable(
                    message("What was asked for keeps changing. Try again."), retry_after_s=2
                )
            self._tokens.forget(account_id)

    def _remembered(self, account_id: str) -> StoredToken:
        token = self._tokens.seen(account_id)
        if token is None or token.status == "reauthorization_required":
            raise NotCached
        return token

    def _present(self, account_id: str) -> StoredToken:
        """Return the account's token.

        Raises NotConnected without a row, ReauthorizationRequired when the token has expired and its authorization was
        refused.
        """
        try:
            token = self._access_tokens.stored(account_id)
        except errors.NotConnected:
            self._memory.drop(account_id)
            raise
        if token.status == "reauthorization_required" and token.life_left_s <= 0:
            self._access_tokens.raise_refused(account_id)
        return token

    def _raise(self, account_id: str, failure: Failure) -> None:
        if failure.code == errors.ReauthorizationRequired.code:
            # The failure may come from another process: the URL must come from this process's settings.
            self._access_tokens.raise_refused(account_id)
        raise failure.error()

    def key(self, connection_id: UUID, cache_epoch: int, name: Name) -> bytes:
        """Return the key in `rdstation_cache` of an account's content with this name."""
        text = json.dumps([str(connection_id), cache_epoch, *name])
        return hmac.digest(self._secret_key, b"rdservice cache\0" + text.encode(), hashlib.sha256)

    def _join(self, query: Query, deadline: float) -> Outcome:
        """Return the outcome of the flight of this key in this process. Leads the flight if there is none yet."""
        flight, first = self._flights.join(query.flight)
        if first:
            self._lead(query, flight, deadline)
        try:
            return flight.result(timeout=max(0.0, deadline - time.monotonic()))
        except FutureTimeout:
            return self._after_timeout(query)

    def _after_timeout(self, query: Query) -> Served | Failure:
        """Return the outcome for a caller whose wait has timed out."""
        old = None
        if query.strict and not query.refused:
            # Read again: content that was dropped meanwhile must not come back.
            old = self._memory.get(query.token.account_id, query.version, query.name)
        error = errors.RdStationUnavailable(
            "RD Station is slow. The data is still being fetched. Try again.", retry_after_s=2
        )
        return _stale_or(Failure.of(error, stale=True), old)

    def _lead(self, query: Query, flight: Future[Outcome], deadline: float) -> None:
        """Settle the flight from the table, or hand it to a fetch in the background that settles it."""
        state: State = "hit"
        try:
            while not self._settled(query, flight, state):
                if time.monotonic() > deadline or self._must_end.wait(POLL_S):
                    self._flights.settle(query.flight, flight, self._after_timeout(query))
                    return
                state = "miss"
        except BaseException as error:
            self._flights.settle(query.flight, flight, error)
            raise

    def _settled(self, query: Query, flight: Future[Outcome], state: State) -> bool:
        """Read the table once. Returns False if another process fetches and there is nothing to serve meanwhile.

        `state` labels fresh content: it is a miss if this caller has waited for another process.
        """
        seen = self._look(query)
        if seen is None:
            self._flights.settle(query.flight, flight, None)
            return True
        failure = seen.row.last_failure
        if seen.fresh:
            self._flights.settle(query.flight, flight, seen.fresh.served(state))
        elif seen.lease is not None:
            if seen.old is None or not query.may_serve_old(seen.row):
                self._executor.submit(self._fetch, query, seen.lease, seen.old, flight)
                return True
            with self._lock:
                self._revalidating += 1
            self._executor.submit(self._revalidate, query, seen.lease, seen.old)
            self._flights.settle(query.flight, flight, seen.old.served("stale"))
        elif seen.row.failing and failure is not None and query.still_counts(failure):
            self._flights.settle(query.flight, flight, _stale_or(failure, seen.old))
        elif seen.old is not None and query.may_serve_old(seen.row):
            self._flights.settle(query.flight, flight, seen.old.served("stale"))
        else:
            return False
        return True

    def _look(self, query: Query) -> _Seen | None:
        """Read the row, and lease it if a fetch is due. None: the account has another connection or epoch by now."""
        lease, looked_at = None, time.monotonic()
        with transaction(self._pool) as conn:
            known = query.known.fetched_at if query.known is not None else None
            row = table.look(conn, query.key, query.token, known=known, failure_s=query.failure_s)
            if row is None:
                return None
            if self._is_due(row, query):
                lease = table.lease(
                    conn, query.key, query.token, max_age_s=query.max_age_s, failure_s=query.failure_s
                )
        entry = self._entry(query, row, looked_at)
        if entry is None and row.fetched_at is not None and lease is None:
            # The stored value cannot be decrypted: replace it now.
            with transaction(self._pool) as conn:
                lease = table.lease(conn, query.key, query.token, max_age_s=0.0)
        fresh = entry is not None and entry.age_s() < query.max_age_s
        return _Seen(row, entry if fresh else None, None if fresh else entry, lease)

    def _is_due(self, row: table.Row, query: Query) -> bool:
        """Return whether to try to lease the row; the lease's statement checks once more."""
        if row.age_s is not None and row.age_s < query.max_age_s:
            return False
        failure = row.last_failure
        if row.leased or (row.failing and failure is not None and query.still_counts(failure)):
            return False
        # With stale content to serve there is no hurry: fetches that callers wait for go first.
        return row.fetched_at is None or not query.may_serve_old(row) or self._revalidating < REVALIDATIONS

    def _entry(self, query: Query, row: table.Row, looked_at: float) -> Entry | None:
        """Return the row's content, from memory if that has the same, or None without readable content."""
        if row.fetched_at is None or row.age_s is None:
            self._memory.remove(query.token.account_id, query.name)
            return None
        # The age comes from the database: this process's clock stops while its machine sleeps.
        born = time.monotonic() - row.age_s
        if query.known is not None and query.known.fetched_at == row.fetched_at:
            return self._remember(query, replace(query.known, born=born, confirmed_at=looked_at))
        if row.value is None:
            return None
        try:
            content = Content.decrypt(self._keys, query.key, query.token.account_id, row.value)
        except (KeyMissing, ValueDamaged) as error:
            log.warning("cached content is fetched again: %s", error)
            return None
        entry = Entry(content=content, fetched_at=row.fetched_at, born=born, confirmed_at=looked_at)
        return self._remember(query, entry)

    def _remember(self, query: Query, entry: Entry) -> Entry:
        self._memory.put(query.token.account_id, query.version, query.name, entry)
        return entry

    def _fetch(
        self, query: Query, lease: table.Lease, old: Entry | None, flight: Future[Outcome] | None
    ) -> None:
        """Call RD Station and settle the flight with the outcome. Without a flight no caller waits for it."""
        try:
            outcome: Outcome | BaseException = self._fetched(query, lease, old, flight)
        except BaseException as error:  # noqa: BLE001 - the waiting callers raise it, or it is logged
            outcome = error
        if flight is not None:
            self._flights.settle(query.flight, flight, outcome)
        elif isinstance(outcome, BaseException):
            log.error("revalidating cached content failed unexpectedly", exc_info=outcome)

    def _revalidate(self, query: Query, lease: table.Lease, old: Entry) -> None:
        try:
            self._fetch(query, lease, old, None)
        finally:
            with self._lock:
                self._revalidating -= 1

    def _fetched(
        self, query: Query, lease: table.Lease, old: Entry | None, flight: Future[Outcome] | None
    ) -> Outcome:
        deadline = lease.started + table.LEASE_S - CALL_DEADLINE_S - COMMIT_ALLOWANCE_S
        entry: Entry | None = None
        try:
            content = query.fetch(deadline)
            value = content.encrypt(self._keys, query.key, query.token.account_id)
            entry = Entry(
                content=content,
                fetched_at=lease.claimed_at,
                born=lease.started,
                confirmed_at=time.monotonic(),
            )
            answer: Served | Failure = entry.served("miss")
            change = partial(table.store, lease=lease, value=value)
        except FetchFailed as failed:
            answer = _stale_or(failed.failure, old)
            change = partial(table.fail, lease=lease, failed=failed)
        except BaseException:
            self._write(partial(table.release, lease=lease))
            raise
        late = None
        if flight is not None:
            late = self._flights.settle_after(STORE_PATIENCE_S, query.flight, flight, answer, self._on_late)
        try:
            kept = self._write(change)
        finally:
            if late is not None:
                late.cancel()
        if kept and entry is not None:
            self._remember(query, entry)
        return answer if kept else None

    def _on_late(self) -> None:
        log.warning("a response of RD Station was served although the database has not taken it")
        self._on_lost_note()

    def _write(self, change: Callable[[psycopg.Connection[Any]], T]) -> T:
        return write_for_sure(self._pool, change, give_up=self._must_end, timeout_s=STORE_TIMEOUT_S)


def _stale_or(failure: Failure, old: Entry | None) -> Served | Failure:
    return old.served("stale") if old is not None and failure.stale else failure
