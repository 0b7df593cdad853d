"""Access tokens for callers: a live one at once where there is one, else after the one refresh that everyone shares."""

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
from rdservice.tokens import credentials, leases
from rdservice.tokens.leases import Lease, SeenReason
from rdservice.tokens.memory import TokenMemory
from rdservice.tokens.refresh import Refresher, Result
from rdservice.tokens.store import StoredToken

WAIT_S = 10.0
"""How long a caller waits for a refresh."""
POLL_S = 0.1
SHORT_POLL_S = 0.015
SHORT_POLLS = 80
"""While another process renews, one thread looks at the row for all who wait in this one: more often at first, since an
exchange takes a fraction of a second as a rule."""
EARLY_S = 60.0
EARLY_SHARE = 0.1
"""Requests claim a refresh early only below the smaller of these: the worker should have renewed long before."""
DYING_SHARE = 0.1
"""Share of that threshold below which a token would die on the way to RD Station: it is not given out any more."""
REFRESH_THREADS = 8


class AccessTokens:
    """Gives out access tokens and refreshes them on demand. Safe to use from many threads."""

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
        # Refreshes run here and not in the caller's thread: the caller may give up, the refresh may not.
        self._executor = executor or ThreadPoolExecutor(REFRESH_THREADS, thread_name_prefix="refresh")
        self._lock = threading.Lock()
        self._under_way: dict[str, Future[None]] = {}

    def close(self) -> None:
        """Wait for the refreshes under way; they end by themselves, or with `Refresher.must_end`."""
        self._executor.shutdown(wait=True)

    def usable(self, account_id: str, *, min_ttl_s: float | None = None) -> StoredToken:
        """Return an access token that lives, for at least `min_ttl_s` seconds where that is given.

        A token that lives never waits for RD Station. Raises NotConnected, ReauthorizationRequired, InvalidField
        (`min_ttl_s` above half the lifetime), RdStationUnavailable, CredentialsRefused or TokenUnreadable.
        """
        give_up_at = self._refresher.monotonic() + WAIT_S
        token = self.stored(account_id)
        while token.life_left_s < self._needed_s(token, min_ttl_s):
            self._wait_for(self._join_refresh(token), give_up_at - self._refresher.monotonic())
            # The refresh has just read the row for everyone who waited for it.
            seen, token = token, self.stored(account_id)
            if _same_response(seen, token):
                self._raise_why_not(token)
        if token.life_left_s < _early_s(token) and _may_be_renewed(token):
            self._join_refresh(token)
        return token

    def usable_if_cached(self, account_id: str, *, min_ttl_s: float | None = None) -> StoredToken | None:
        """Return what `usable` would return, if that is in memory and nothing else is to be done; else None.

        Raises InvalidField.
        """
        token = self._memory.fresh(account_id)
        if token is None or token.life_left_s < max(self._needed_s(token, min_ttl_s), _early_s(token)):
            return None
        return token

    def stored(self, account_id: str) -> StoredToken:
        """Return the account's token, live or not, as remembered for half a second.

        Raises NotConnected or TokenUnreadable.
        """
        return self._found(account_id, self._memory.get)

    def replace_rejected(self, rejected: StoredToken) -> StoredToken | None:
        """Return the token that takes the place of one that RD Station refused with 401, or None when there is none.

        Everyone who meets the same refusal shares one refresh. Raises ReauthorizationRequired, RdStationUnavailable or
        TokenUnreadable.
        """
        now = self._read(rejected.account_id)
        if _same_response(rejected, now):
            self._wait_for(self._join_refresh(now, "rejected"), WAIT_S)
            now = self._read(rejected.account_id)
        if not _same_response(rejected, now):
            return now
        if now.status == "reauthorization_required":
            self.raise_refused(now.account_id)
        return None

    def refresh_now(self, account_id: str, *, by: Author) -> Result:
        """Refresh because `by` asked; wait for one that is under way instead of starting a second.

        Raises NotConnected, TooManyRequests while a back-off runs, CredentialsRefused, RdStationUnavailable or
        TokenUnreadable.
        """
        seen = self._read(account_id)
        give_up_at = self._refresher.monotonic() + WAIT_S
        waited = False
        while True:
            lease = self._lease_by_hand(seen, by)
            if lease is not None:
                return self._run(lease)
            now = self._read(account_id)
            if not _same_response(seen, now):
                return Result.STORED
            if not now.leased:
                _raise_if_backing_off(now)
                self._raise_why_not(now)
            elif not waited:
                self._refresher.metrics.token_refresh("waited")
                waited = True
            if self._refresher.monotonic() > give_up_at or self._refresher.must_end.wait(POLL_S):
                raise _slow()

    def _run(self, lease: Lease) -> Result:
        refresh = self._executor.submit(self._refresher.renew, lease)
        try:
            return refresh.result(timeout=WAIT_S)
        except FutureTimeout:
            raise errors.RdStationUnavailable(
                "RD Station is slow; the renewal goes on in the background.", retry_after_s=5
            ) from None
        except KeyMissing as error:
            raise _unreadable(error) from error
        finally:
            self._memory.forget(lease.account_id)

    def reauthorize_url(self, account_id: str) -> str:
        """Return the URL that an operator opens to authorize the account (again)."""
        return f"{self._settings.public_origin}/rd/login?{urlencode({'account_id': account_id})}"

    def raise_refused(self, account_id: str) -> NoReturn:
        """Raise ReauthorizationRequired for the account."""
        raise errors.ReauthorizationRequired(
            f"RD Station no longer accepts the authorization of account {account_id!r}. "
            "An operator opens reauthorize_url.",
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
                f"No RD Station account is connected as {account_id!r}. An operator opens reauthorize_url.",
                extra={"reauthorize_url": self.reauthorize_url(account_id)},
            )
        return token

    def _needed_s(self, token: StoredToken, min_ttl_s: float | None) -> float:
        """Return the seconds of life that a token must have left to be given out."""
        # Rounded up: the token's own `exp` has whole seconds, so a life of a day is a little shorter.
        longest_s = math.ceil(token.lifetime_s / 2)
        if min_ttl_s is not None and min_ttl_s > longest_s:
            raise errors.InvalidField(
                f"min_ttl may be at most half the lifetime of the token: {longest_s} seconds.",
                extra={"field": "min_ttl"},
            )
        return max(min_ttl_s or 0.0, _early_s(token) * DYING_SHARE)

    def _join_refresh(self, seen: StoredToken, reason: SeenReason = "early") -> Future[None]:
        """Return the refresh of this account that runs in this process; start it when there is none."""
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
        """Refresh what was seen, or wait until another process has, or until it is known that nobody will."""
        is_remembered = False
        try:
            give_up_at = self._refresher.monotonic() + WAIT_S
            waited = idle = held = False
            pauses_s = itertools.chain([SHORT_POLL_S] * SHORT_POLLS, itertools.repeat(POLL_S))
            while self._refresher.monotonic() < give_up_at:
                # While another process holds the row, looking at it costs half of trying to claim it.
                lease = None if held else self._lease_seen(seen, reason)
                if lease is not None:
                    self._refresher.renew(lease)
                    return
                now = self._memory.read(seen.account_id)
                if now is None or not _same_response(seen, now):
                    is_remembered = True
                    return
                # A row that nobody holds may have been locked by a claim that was not visible yet: look twice.
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
                self._remember_anew(seen.account_id)
            with self._lock:
                self._under_way.pop(seen.account_id, None)

    def _remember_anew(self, account_id: str) -> None:
        """Read the row once for all who wait. Where that fails each of them asks, and finds out why."""
        self._memory.forget(account_id)
        with contextlib.suppress(*UNAVAILABLE, KeyMissing, ValueDamaged):
            self._memory.read(account_id)

    def _lease_seen(self, seen: StoredToken, reason: SeenReason) -> Lease | None:
        with transaction(self._refresher.pool) as conn:
            return self._claim(conn, seen, reason)

    def _lease_by_hand(self, seen: StoredToken, by: Author) -> Lease | None:
        with transaction(self._refresher.pool) as conn:
            lease = self._claim(conn, seen, "operator")
            if lease is not None:
                audit.record(conn, by, "tokens_refreshed", account_id=seen.account_id)
            return lease

    def _claim(self, conn: psycopg.Connection[Any], seen: StoredToken, reason: SeenReason) -> Lease | None:
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

    def _raise_why_not(self, token: StoredToken) -> None:
        """Raise the reason for which a refresh brought no new token; return when another try is worth it."""
        if token.status == "reauthorization_required":
            self.raise_refused(token.account_id)
        with transaction(self._refresher.pool) as conn:
            closed_for_s = credentials.closed_for(conn, self._refresher.fingerprint)
        if closed_for_s is not None:
            raise errors.CredentialsRefused(
                "RD Station refuses the client id and secret. Correct RDSTATION_CLIENT_ID and RDSTATION_CLIENT_SECRET; "
                "the stored tokens are kept.",
                retry_after_s=max(closed_for_s, 1.0),
            )
        if token.retry_in_s:
            raise errors.RdStationUnavailable(
                f"The last renewal failed ({token.last_error}); it is tried again automatically after the wait.",
                retry_after_s=token.retry_in_s,
            )


def _raise_if_backing_off(token: StoredToken) -> None:
    if token.retry_in_s and token.status != "reauthorization_required":
        raise errors.TooManyRequests(
            f"The last attempt failed ({token.last_error}); the next one is possible after the wait.",
            retry_after_s=token.retry_in_s,
        )


def _early_s(token: StoredToken) -> float:
    return min(EARLY_S, EARLY_SHARE * token.lifetime_s)


def _same_response(seen: StoredToken, now: StoredToken) -> bool:
    return (seen.authorization_id, seen.stored_claim) == (now.authorization_id, now.stored_claim)


def _may_be_renewed(token: StoredToken) -> bool:
    return token.status != "reauthorization_required" and not token.retry_in_s and not token.leased


def _slow() -> errors.RdStationUnavailable:
    return errors.RdStationUnavailable(
        "The access token is being renewed and RD Station is slow. Try again.", retry_after_s=2
    )


def _unreadable(error: Exception) -> errors.TokenUnreadable:
    return errors.TokenUnreadable(f"The stored token cannot be decrypted: {error}.")
