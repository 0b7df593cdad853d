"""Access tokens for callers. A valid token is returned at once; otherwise all callers share one refresh."""

import contextlib
import itertools
import math
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, NoReturn
from urllib.parse import urlencode

import psycopg

from rdservice import errors
from rdservice.access import audit
from rdservice.access.audit import Author
from rdservice.config.settings import Settings
from rdservice.database.pool import UNAVAILABLE, transaction
from rdservice.encryption import KeyMissing, ValueDamaged
from rdservice.text.catalogue import message
from rdservice.tokens import credentials, leases
from rdservice.tokens.leases import Lease, SeenReason
from rdservice.tokens.memory import TokenMemory
from rdservice.tokens.refresh import Refresher, Result
from rdservice.tokens.store import StoredToken

WAIT_S = 10.0
"""Longest wait of a caller for a refresh."""
POLL_S = 0.1
SHORT_POLL_S = 0.015
SHORT_POLLS = 80
"""While another process refreshes, one thread polls the row for all callers in this process. The first polls come at
short intervals, since an exchange usually takes a fraction of a second."""
EARLY_S = 60.0
EARLY_SHARE = 0.1
"""A request starts a refresh when less than the smaller of these is left (seconds; share of the lifetime). The worker
should have refreshed long before."""
DYING_SHARE = 0.1
"""Share of that threshold below which a token may expire on its way to RD Station: callers no longer get it."""
REFRESH_THREADS = 8


class AccessTokens:
    """Returns access tokens and refreshes them on demand. Safe to use from many threads."""

    def __init__(
        self,
        settings: Settings,
        memory: TokenMemory,
        refresher: Refresher,
        *,
        executor: Executor | None = None,
    ) -> None:
        self._settings = settings
        self._memory = memory
        self._refresher = refresher
        # Refreshes run here and not in the caller's thread: a caller may give up, a refresh must not.
        self._executor = executor or ThreadPoolExecutor(REFRESH_THREADS, thread_name_prefix="refresh")
        self._lock = threading.Lock()
        self._under_way: dict[str, Future[None]] = {}

    def close(self) -> None:
        """Wait until the refreshes under way have ended, at the latest soon after `Refresher.must_end` is set."""
        self._executor.shutdown(wait=True)

    def usable(self, account_id: str, *, min_ttl_s: float | None = None) -> StoredToken:
        """Return a valid access token, valid for at least `min_ttl_s` more seconds if that is given.

        A token that is valid for long enough is returned without a wait for RD Station. Otherwise the call waits up to
        `WAIT_S` for a refresh. Raises NotConnected, ReauthorizationRequired, InvalidField (`min_ttl_s` above half the
        lifetime), RdStationUnavailable, CredentialsRefused or TokenUnreadable.
        """
        deadline = self._refresher.monotonic() + WAIT_S
        token = self.stored(account_id)
        while token.life_left_s < self._needed_s(token, min_ttl_s):
            self._wait_for(self._join_refresh(token), deadline - self._refresher.monotonic())
            # The refresh has just read the row for all callers that waited for it.
            seen, token = token, self.stored(account_id)
            if _is_unchanged(seen, token):
                self._raise_cause(token)
        if token.life_left_s < _early_s(token) and _may_be_refreshed(token):
            self._join_refresh(token)
        return token

    def usable_if_cached(self, account_id: str, *, min_ttl_s: float | None = None) -> StoredToken | None:
        """Return what `usable` would return if this process remembers it and need not refresh it, else None.

        Neither waits nor reads the database. Raises InvalidField.
        """
        token = self._memory.fresh(account_id)
        if token is None or token.life_left_s < max(self._needed_s(token, min_ttl_s), _early_s(token)):
            return None
        return token

    def stored(self, account_id: str) -> StoredToken:
        """Return the account's token, valid or expired, as the row was at most half a second ago.

        Raises NotConnected or TokenUnreadable.
        """
        return self._found(account_id, self._memory.get)

    def replace_rejected(self, rejected: StoredToken) -> StoredToken | None:
        """Return the token that replaces one to which RD Station responded with 401, or None when there is none.

        All callers with the same rejected token share one refresh. Raises NotConnected, ReauthorizationRequired,
        RdStationUnavailable or TokenUnreadable.
        """
        now = self._read(rejected.account_id)
        if _is_unchanged(rejected, now):
            self._wait_for(self._join_refresh(now, "rejected"), WAIT_S)
            now = self._read(rejected.account_id)
        if not _is_unchanged(rejected, now):
            return now
        if now.status == "reauthorization_required":
            self.raise_refused(now.account_id)
        return None

    def refresh_now(self, account_id: str, *, by: Author) -> Result:
        """Refresh because `by` requested it. If a refresh is under way, wait for it instead of starting a second one.

        Raises NotConnected, TooManyRequests during a back-off, CredentialsRefused, RdStationUnavailable or
        TokenUnreadable.
        """
        seen = self._read(account_id)
        deadline = self._refresher.monotonic() + WAIT_S
        waited = False
        while True:
            lease = self._lease_for_operator(seen, by)
            if lease is not None:
                return self._run(lease)
            now = self._read(account_id)
            if not _is_unchanged(seen, now):
                return Result.STORED
            if not now.leased:
                _raise_if_backing_off(now)
                self._raise_cause(now)
            elif not waited:
                self._refresher.metrics.token_refresh("waited")
                waited = True
            if self._refresher.monotonic() > deadline or self._refresher.must_end.wait(POLL_S):
                raise _slow()

    def _run(self, lease: Lease) -> Result:
        refresh = self._executor.submit(self._refresher.refresh, lease)
        try:
            return refresh.result(timeout=WAIT_S)
        except FutureTimeout:
            raise errors.RdStationUnavailable(
                message("RD Station is slow. The refresh continues in the background."), retry_after_s=5
            ) from None
        except KeyMissing as error:
            raise _unreadable(error) from error
        finally:
            self._memory.forget(lease.account_id)

    def reauthorize_url(self, account_id: str) -> str:
        """Return the URL at which an operator authorizes the account, or authorizes it again."""
        return f"{self._settings.public_origin}/rd/login?{urlencode({'account_id': account_id})}"

    def raise_refused(self, account_id: str) -> NoReturn:
        """Raise ReauthorizationRequired for the account."""
        raise errors.ReauthorizationRequired(
            message(
                "RD Station no longer accepts the authorization of account '%(account)s'. An operator must"
                " open reauthorize_url."
            ),
            values={"account": account_id},
            extra={"reauthorize_url": self.reauthorize_url(account_id)},
        )

    def _read(self, account_id: str) -> StoredToken:
        return self._found(account_id, self._memory.read)

    def _found(self, account_id: str, read: Callable[[str], StoredToken | None]) -> StoredToken:
        try:
            token = read(account_id)
        except (KeyMissing, ValueDamaged) as error:
            raise _unreadable(error) from error
        if token is None:
            raise errors.NotConnected(
                message(
                    "No RD Station account is connected as '%(account)s'. An operator must open reauthorize_url."
                ),
                values={"account": account_id},
                extra={"reauthorize_url": self.reauthorize_url(account_id)},
            )
        return token

    def _needed_s(self, token: StoredToken, min_ttl_s: float | None) -> float:
        """Return for how many more seconds a token must be valid so that callers may get it."""
        # Rounded up: the token's `exp` has whole seconds, so a stored lifetime of a day is a little shorter.
        longest_s = math.ceil(token.lifetime_s / 2)
        if min_ttl_s is not None and min_ttl_s > longest_s:
            raise errors.InvalidField(
                f"min_ttl must not exceed half the lifetime of the token: {longest_s} seconds.",
                extra={"field": "min_ttl"},
            )
        return max(min_ttl_s or 0.0, _early_s(token) * DYING_SHARE)

    def _join_refresh(self, seen: StoredToken, reason: SeenReason = "early") -> Future[None]:
        """Return the refresh of this account that runs in this process. Starts it when none runs."""
        with self._lock:
            refresh = self._under_way.get(seen.account_id)
            if refresh is None:
                refresh = self._executor.submit(self._refresh_seen, seen, reason)
                self._under_way[seen.account_id] = refresh
            return refresh

    def _wait_for(self, refresh: Future[None], seconds: float) -> None:
        try:
            refresh.result(timeout=max(0.0, seconds))
        except FutureTimeout:
            raise _slow() from None
        except KeyMissing as error:
            raise _unreadable(error) from error

    def _refresh_seen(self, seen: StoredToken, reason: SeenReason) -> None:
        """Refresh `seen`, or wait until another process has done so, or until it is certain that none does."""
        is_remembered = False
        try:
            deadline = self._refresher.monotonic() + WAIT_S
            waited = idle = held = False
            pauses_s = itertools.chain([SHORT_POLL_S] * SHORT_POLLS, itertools.repeat(POLL_S))
            while self._refresher.monotonic() < deadline:
                # While another process holds the lease, reading the row costs half as much as trying to lease it.
                lease = None if held else self._lease_seen(seen, reason)
                if lease is not None:
                    self._refresher.refresh(lease)
                    return
                now = self._memory.read(seen.account_id)
                if now is None or not _is_unchanged(seen, now):
                    is_remembered = True
                    return
                # A free row may have been locked by a lease that had not been committed yet: read it twice.
                if not now.leased and (idle or now.retry_in_s):
                    return
                held, idle = now.leased, not now.leased
                if held and not waited:
                    self._refresher.metrics.token_refresh("waited")
                    waited = True
                if self._refresher.must_end.wait(next(pauses_s)):
                    return
        finally:
            if not is_remembered:
                self._reload(seen.account_id)
            with self._lock:
                self._under_way.pop(seen.account_id, None)

    def _reload(self, account_id: str) -> None:
        """Read the row once for all waiting callers. If that fails, each of them reads it and gets the error."""
        self._memory.forget(account_id)
        with contextlib.suppress(*UNAVAILABLE, KeyMissing, ValueDamaged):
            self._memory.read(account_id)

    def _lease_seen(self, seen: StoredToken, reason: SeenReason) -> Lease | None:
        with transaction(self._refresher.pool) as conn:
            return self._lease(conn, seen, reason)

    def _lease_for_operator(self, seen: StoredToken, by: Author) -> Lease | None:
        with transaction(self._refresher.pool) as conn:
            lease = self._lease(conn, seen, "operator")
            if lease is not None:
                audit.record(conn, by, "tokens_refreshed", account_id=seen.account_id)
            return lease

    def _lease(self, conn: psycopg.Connection[Any], seen: StoredToken, reason: SeenReason) -> Lease | None:
        return leases.lease_seen(
            conn,
            seen.account_id,
            authorization_id=seen.authorization_id,
            stored_claim=seen.stored_claim,
            started=self._refresher.monotonic(),
            fingerprint=self._refresher.fingerprint,
            claimed_by=self._refresher.claimed_by,
            reason=reason,
        )

    def _raise_cause(self, token: StoredToken) -> None:
        """Raise the reason why a refresh brought no new token. Returns when another attempt may succeed."""
        if token.status == "reauthorization_required":
            self.raise_refused(token.account_id)
        with transaction(self._refresher.pool) as conn:
            closed_for_s = credentials.closed_for(conn, self._refresher.fingerprint)
        if closed_for_s is not None:
            raise errors.CredentialsRefused(
                message(
                    "RD Station refuses the client ID and secret. Correct RDSTATION_CLIENT_ID and"
                    " RDSTATION_CLIENT_SECRET. The stored tokens are kept."
                ),
                retry_after_s=max(closed_for_s, 1.0),
            )
        if token.retry_in_s:
            raise errors.RdStationUnavailable(
                message(
                    "The last refresh failed (%(error)s). It is repeated automatically after Retry-After."
                ),
                values={"error": token.last_error},
                retry_after_s=token.retry_in_s,
            )


def _raise_if_backing_off(token: StoredToken) -> None:
    if token.retry_in_s:
        raise errors.TooManyRequests(
            message("The last refresh failed (%(error)s). The next attempt is possible after Retry-After."),
            values={"error": token.last_error},
            retry_after_s=token.retry_in_s,
        )


def _early_s(token: StoredToken) -> float:
    return min(EARLY_S, EARLY_SHARE * token.lifetime_s)


def _is_unchanged(seen: StoredToken, now: StoredToken) -> bool:
    return (seen.authorization_id, seen.stored_claim) == (now.authorization_id, now.stored_claim)


def _may_be_refreshed(token: StoredToken) -> bool:
    return token.status != "reauthorization_required" and not token.retry_in_s and not token.leased


def _slow() -> errors.RdStationUnavailable:
    return errors.RdStationUnavailable(
        message("The access token is being refreshed and RD Station is slow. Try again."), retry_after_s=2
    )


def _unreadable(error: Exception) -> errors.TokenUnreadable:
    return errors.TokenUnreadable(
        message("The stored token cannot be decrypted: %(reason)s."), values={"reason": error}
    )
