"""Through the levels: memory, table, RD Station; with one fetch of a key at a time in all processes together."""

import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import psycopg
from psycopg_pool import ConnectionPool

from rdservice import errors
from rdservice.cache import table
from rdservice.cache.entries import Content, Failure, FetchFailed, Served, State
from rdservice.cache.memory import CacheMemory, Entry, Name, Version
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
"""How long a caller waits for content that is being fetched."""
POLL_S = 0.1
COMMIT_ALLOWANCE_S = 5.0
"""Part of the lease that must be left over for writing the answer."""
STORE_PATIENCE_S = 10.0
FETCH_THREADS = 16
RENEWALS = 8
"""How many of them may renew content in the background while its callers have older content."""

Fetch = Callable[[float], Content]
"""Fetches content. Takes the moment of the monotonic clock after which no call may begin; raises FetchFailed."""
Outcome = Served | Failure | None
"""None: the account has moved on meanwhile; see what its row says now."""


@dataclass(frozen=True, kw_only=True)
class _Query:
    """What a caller wants, for the account as `token` shows it."""

    token: StoredToken
    name: Name
    key: bytes
    fetch: Fetch = field(repr=False)
    max_age_s: float
    known: Entry | None
    insists: bool = False
    """The caller asks for nothing older than `fresh_s`: it waits for RD Station rather than have older content."""

    @property
    def flight(self) -> bytes:
        """What callers share who wait for the same and are content with the same."""
        return self.key + repr(self.max_age_s).encode() if self.insists else self.key

    @property
    def failure_s(self) -> float:
        """The age up to which a failure may be the answer, where it stands for that long."""
        return self.max_age_s if self.insists else table.CEILING_S

    @property
    def version(self) -> Version:
        return _version(self.token)

    @property
    def refused(self) -> bool:
        """Whether RD Station has refused the account's authorization: then nothing old may hide it."""
        return self.token.status == "reauthorization_required"

    def may_serve_old(self, row: table.Row) -> bool:
        """Return whether old content may be served before RD Station was asked: nothing speaks for a dead account."""
        failure = row.last_failure
        return not self.insists and not self.refused and (failure is None or failure.stale)


class _Seen(NamedTuple):
    """The table's row, its content as `fresh` or `old`, and `claim` when this process is the one to fetch."""

    row: table.Row
    fresh: Entry | None
    old: Entry | None
    lease: table.Lease | None


class NotCached(Exception):
    """What was asked for is not to be had from this process's memory alone."""


class Cache:
    """Safe to use from many threads."""

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
    ) -> None:
        """`fresh_s`: how long content is served without asking RD Station again. `secret_key` hides what keys name."""
        self._pool = pool
        self._keys = keys
        self._tokens = tokens
        self._access_tokens = access_tokens
        self._secret_key = secret_key.encode()
        self._max_age_s = max_age_s
        self._must_end = must_end
        self._memory = CacheMemory()
        self._sweeper = Sweeper(self._memory, pool)
        self._sweeper.start()
        # Fetches run here and not in the caller's thread: the caller may give up, what RD Station answers is kept.
        self._executor = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="fetch")
        self._flights: SingleFlight[Outcome] = SingleFlight()
        self._lock = threading.Lock()
        self._renewing = 0

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

        With `fresh_s` older content is served only where RD Station fails. Of all callers in all processes who ask for
        the same so, one in `fresh_s` seconds makes a call.

        With `at_once` it raises NotAtOnce rather than wait, ask the database or fetch.

        Raises NotConnected, ReauthorizationRequired, TokenUnreadable, RdStationUnavailable when nothing came within
        10 s, or the error of the FetchFailed that `fetch` raised, here or in another process.
        """
        name = (operation, parameters)
        give_up_at = time.monotonic() + WAIT_S
        while True:
            token = self._remembered(account_id) if only_if_cached else self._present(account_id)
            entry = self._memory.get(account_id, _version(token), name)
            enough_s = self._max_age_s if max_age_s is None else max_age_s
            if entry is not None and entry.age_s() < enough_s and entry.is_confirmed():
                return _served(entry, "hit")
            if only_if_cached:
                raise NotCached
            query = _Query(
                token=token,
                name=name,
                key=self.key(token.connection_id, token.cache_epoch, name),
                fetch=fetch,
                max_age_s=enough_s,
                known=entry,
                insists=max_age_s is not None,
            )
            outcome = self._join(query, give_up_at)
            if isinstance(outcome, Served):
                return outcome
            if outcome is not None:
                self._raise(account_id, outcome)
            if time.monotonic() > give_up_at:
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
        """Return the account's token. Raises NotConnected without a row, ReauthorizationRequired for a dead account."""
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
            # With the URL as this process's settings say.
            self._access_tokens.raise_refused(account_id)
        raise failure.error()

    def key(self, connection_id: UUID, cache_epoch: int, name: Name) -> bytes:
        """Return the table's key for what an account has under this name."""
        text = json.dumps([str(connection_id), cache_epoch, *name])
        return hmac.digest(self._secret_key, b"rdservice cache\0" + text.encode(), hashlib.sha256)

    def _join(self, query: _Query, give_up_at: float) -> Outcome:
        """Wait for what the first caller of this key in this process finds; be that one when there is none."""
        flight, first = self._flights.join(query.flight)
        if first:
            self._lead(query, flight, give_up_at)
        try:
            return flight.result(timeout=max(0.0, give_up_at - time.monotonic()))
        except FutureTimeout:
            return self._in_the_end(query)

    def _in_the_end(self, query: _Query) -> Served | Failure:
        """Return what a caller gets who has waited for too long."""
        old = None
        if query.insists and not query.refused:
            # Looked up again: what was dropped meanwhile must not come back.
            old = self._memory.get(query.token.account_id, query.version, query.name)
        error = errors.RdStationUnavailable(
            "RD Station is slow; what was asked for is still being fetched. Try again.", retry_after_s=2
        )
        return _instead_of(Failure.of(error, stale=True), old)

    def _lead(self, query: _Query, flight: Future[Outcome], give_up_at: float) -> None:
        """Settle the flight from the table, or leave that to a fetch in the background."""
        state: State = "hit"
        try:
            while not self._settled(query, flight, state):
                if time.monotonic() > give_up_at or self._must_end.wait(POLL_S):
                    self._flights.settle(query.flight, flight, self._in_the_end(query))
                    return
                state = "miss"
        except BaseException as error:
            self._flights.settle(query.flight, flight, error)
            raise

    def _settled(self, query: _Query, flight: Future[Outcome], state: State) -> bool:
        """Look once at the table. False: another process fetches, and there is nothing to serve meanwhile.

        `state` is how fresh content is served: a miss after others were waited for.
        """
        seen = self._look(query)
        if seen is None:
            self._flights.settle(query.flight, flight, None)
            return True
        failure = seen.row.last_failure
        if seen.fresh:
            self._flights.settle(query.flight, flight, _served(seen.fresh, state))
        elif seen.lease is not None:
            if seen.old is None or not query.may_serve_old(seen.row):
                self._executor.submit(self._fetch, query, seen.lease, seen.old, flight)
                return True
            with self._lock:
                self._renewing += 1
            self._executor.submit(self._renew, query, seen.lease, seen.old)
            self._flights.settle(query.flight, flight, _served(seen.old, "stale"))
        elif seen.row.failing and failure is not None and _stands(failure, query):
            self._flights.settle(query.flight, flight, _instead_of(failure, seen.old))
        elif seen.old is not None and query.may_serve_old(seen.row):
            self._flights.settle(query.flight, flight, _served(seen.old, "stale"))
        else:
            return False
        return True

    def _look(self, query: _Query) -> _Seen | None:
        """Read the row, and claim the fetch where it is due and free. None: the account has moved on."""
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
            # What cannot be read is fetched anew by whoever finds that.
            with transaction(self._pool) as conn:
                lease = table.lease(conn, query.key, query.token, max_age_s=0.0)
        fresh = entry is not None and entry.age_s() < query.max_age_s
        return _Seen(row, entry if fresh else None, None if fresh else entry, lease)

    def _is_due(self, row: table.Row, query: _Query) -> bool:
        """Return whether a fetch is worth a claim; the claim itself looks once more."""
        if row.age_s is not None and row.age_s < query.max_age_s:
            return False
        failure = row.last_failure
        if row.leased or (row.failing and failure is not None and _stands(failure, query)):
            return False
        # With old content to serve nobody is in a hurry: fetches that callers wait for go first.
        return row.fetched_at is None or not query.may_serve_old(row) or self._renewing < RENEWALS

    def _entry(self, query: _Query, row: table.Row, looked_at: float) -> Entry | None:
        """Return the row's content, from memory where it is known, or None without readable content."""
        if row.fetched_at is None or row.age_s is None:
            self._memory.remove(query.token.account_id, query.name)
            return None
        # The database tells the age: this process's clock stands still while its machine sleeps.
        born = time.monotonic() - row.age_s
        if query.known is not None and query.known.fetched_at == row.fetched_at:
            return self._remember(query, replace(query.known, born=born, confirmed_at=looked_at))
        if row.value is None:
            return None
        try:
            content = Content.unsealed(self._keys, query.key, query.token.account_id, row.value)
        except (KeyMissing, ValueDamaged) as error:
            log.warning("cached content is fetched anew: %s", error)
            return None
        entry = Entry(content=content, fetched_at=row.fetched_at, born=born, confirmed_at=looked_at)
        return self._remember(query, entry)

    def _remember(self, query: _Query, entry: Entry) -> Entry:
        self._memory.put(query.token.account_id, query.version, query.name, entry)
        return entry

    def _fetch(
        self, query: _Query, lease: table.Lease, old: Entry | None, flight: Future[Outcome] | None
    ) -> None:
        """Call RD Station and settle the flight with what comes of it; without a flight nobody waits."""
        try:
            outcome: Outcome | BaseException = self._fetched(query, lease, old)
        except BaseException as error:  # noqa: BLE001 - it is raised where the outcome is awaited, or logged
            outcome = error
        if flight is not None:
            self._flights.settle(query.flight, flight, outcome)
        elif isinstance(outcome, BaseException):
            log.error("renewing cached content failed unexpectedly", exc_info=outcome)

    def _renew(self, query: _Query, lease: table.Lease, old: Entry) -> None:
        try:
            self._fetch(query, lease, old, None)
        finally:
            with self._lock:
                self._renewing -= 1

    def _fetched(self, query: _Query, lease: table.Lease, old: Entry | None) -> Outcome:
        deadline = lease.started + table.LEASE_S - CALL_DEADLINE_S - COMMIT_ALLOWANCE_S
        try:
            content = query.fetch(deadline)
        except FetchFailed as failed:
            return self._failed(lease, failed, old)
        except BaseException:
            self._write(lambda conn: table.release(conn, lease))
            raise
        value = content.sealed(self._keys, query.key, query.token.account_id)
        written_at = time.monotonic()
        if not self._write(lambda conn: table.store(conn, lease, value)):
            return None
        entry = Entry(
            content=content, fetched_at=lease.claimed_at, born=lease.started, confirmed_at=written_at
        )
        return _served(self._remember(query, entry), "miss")

    def _failed(self, lease: table.Lease, failed: FetchFailed, old: Entry | None) -> Outcome:
        kept = self._write(
            lambda conn: table.fail(conn, lease, failed.failure, shared_s=failed.shared_s, gone=failed.gone)
        )
        return _instead_of(failed.failure, old) if kept else None

    def _write(self, change: Callable[[psycopg.Connection[Any]], T]) -> T:
        return write_for_sure(self._pool, change, give_up=self._must_end, timeout_s=STORE_PATIENCE_S)


def _version(token: StoredToken) -> Version:
    return token.connection_id, token.cache_epoch


def _served(entry: Entry, state: State) -> Served:
    return Served(content=entry.content, age_s=entry.age_s(), state=state)


def _instead_of(failure: Failure, old: Entry | None) -> Served | Failure:
    return _served(old, "stale") if old is not None and failure.stale else failure


def _stands(failure: Failure, query: _Query) -> bool:
    """Return whether a failure counts: a refused authorization no longer does once there is a new one."""
    return query.refused or failure.code != errors.ReauthorizationRequired.code
