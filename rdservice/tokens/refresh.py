"""One refresh of one account: check the lease, exchange the refresh token, record the result.

Web processes and the worker use the same code. It holds no transaction and no pooled connection during the call to RD
Station.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import psycopg
from psycopg_pool import ConnectionPool

from rdservice.database.pool import transaction, write_for_sure
from rdservice.encryption import KeyMissing, KeyRing, ValueDamaged
from rdservice.logs.formatting import log_context
from rdservice.metrics.definitions import Metrics
from rdservice.names import account_in_logs
from rdservice.rdstation.client import EXCHANGE_DEADLINE_S, RDStation, TransportError
from rdservice.rdstation.token_responses import REFUSALS, Meaning, TokenResponse, judge
from rdservice.tokens import attempts, credentials, identity, jwt_claims, leases
from rdservice.tokens.leases import Lease

log = logging.getLogger(__name__)

T = TypeVar("T")

COMMIT_ALLOWANCE_S = 5.0
"""Seconds of the lease reserved for writing the response to the database."""
SLOW_RETRY_S = 600.0
"""Wait after a 4xx that says nothing about the token."""


class Result(StrEnum):
    """The outcome of a lease."""

    STORED = "stored"
    REFUSED = "refused"
    TRANSIENT = "transient"
    SUPERSEDED = "superseded"
    """The row changed meanwhile: it has a newer authorization or a newer response, or it is gone."""


@dataclass(frozen=True, kw_only=True)
class Refresher:
    """Refreshes tokens. Set `must_end` when the process cannot wait any longer for the database."""

    pool: ConnectionPool[psycopg.Connection[Any]]
    keys: KeyRing
    metrics: Metrics
    rdstation: RDStation
    fingerprint: str
    must_end: threading.Event
    monotonic: Callable[[], float] = time.monotonic
    """The process's monotonic clock, in seconds."""
    claimed_by: str = f"{socket.gethostname()}:{os.getpid()}"

    def refresh(self, lease: Lease) -> Result:
        """Exchange the refresh token of a lease and store the response.

        Raises KeyMissing when this process lacks the token's encryption key. The row then stays unchanged, but workers
        skip it for five minutes if a worker had leased it. Raises the database's errors when it fails before the
        exchange, which loses nothing because the lease expires, or when `must_end` is set before the database accepts
        the response.
        """
        with log_context(claim=lease.fence):
            result = self._refresh(lease)
        self.metrics.token_refresh("second_look" if lease.reason == "second_look" else result.value)
        return result

    def _refresh(self, lease: Lease) -> Result:
        try:
            refresh_token = self.keys.decrypt("refresh_token", lease.account_id, lease.refresh_token)
        except KeyMissing:
            self._write(lambda conn: self._cannot_open(conn, lease))
            raise
        except ValueDamaged as error:
            log.error("refresh impossible: %s", error)  # noqa: TRY400
            self._write(lambda conn: self._record(conn, lease, leases.damaged, "refused", error="damaged"))
            return Result.REFUSED
        if self._skip_look(lease):
            return Result.SUPERSEDED
        if lease.name_due and (result := self._ask_whose(lease)) is not None:
            return result
        if not self._may_send(lease):
            self._give_back(lease)
            return Result.SUPERSEDED
        started = self.monotonic()
        response = self._exchange(lease, refresh_token)
        duration_s = self.monotonic() - started
        result, is_orphan = self._write(lambda conn: self._settle(conn, lease, response, duration_s))
        _log_result(lease, response, result)
        if is_orphan and response.pair is not None:
            self._revoke(lease, response.pair.access_token)
        return result

    def _ask_whose(self, lease: Lease) -> Result | None:
        """Ask whose tokens these are; return the outcome of the lease if the refresh token must not be used now.

        Using it up could end the connection of another account here, or of another system.
        """
        settled = identity.settle(self.pool, self.keys, self.rdstation, lease.account_id)
        if settled.whose == "another":
            self._write(
                lambda conn: self._record(conn, lease, leases.release, "refused", error="another_account")
            )
            return Result.REFUSED
        if settled.whose == "unknown":

            def put_off(conn: psycopg.Connection[Any], lease: Lease) -> bool:
                if lease.refused:
                    return leases.look_later(conn, lease)
                return leases.back_off(conn, lease, settled.error)

            self._write(lambda conn: self._record(conn, lease, put_off, "transient", error=settled.error))
            return Result.TRANSIENT
        return None

    def _may_send(self, lease: Lease) -> bool:
        """Return whether this process still holds the lease, and holds it until the exchange must have ended.

        This is the last check before the request is sent.
        """
        with transaction(self.pool) as conn:
            held = leases.holds(conn, lease)
        return held and lease.left_s(self.monotonic()) >= EXCHANGE_DEADLINE_S + COMMIT_ALLOWANCE_S

    def _exchange(self, lease: Lease, refresh_token: str) -> TokenResponse:
        is_second_look = lease.reason == "second_look"
        try:
            response = judge(self.rdstation.refresh(refresh_token, second_look=is_second_look))
        except TransportError as error:
            return judge(error)
        if response.meaning in REFUSALS and not is_second_look:
            self.metrics.auth_failure("refresh")
        return response

    def _settle(
        self, conn: psycopg.Connection[Any], lease: Lease, response: TokenResponse, duration_s: float
    ) -> tuple[Result, bool]:
        """Write a response to the account's row and to its attempt, in the caller's transaction.

        Returns also whether the response holds tokens that nobody here knows or needs any more.
        """
        wrong_settings = (
            response.meaning is Meaning.CREDENTIALS
            and not lease.refused
            and not credentials.worked_recently(conn, self.fingerprint)
        )
        result = self._apply(conn, lease, response, wrong_settings=wrong_settings)
        attempts.finish(
            conn,
            lease.fence,
            result.value,
            http_status=response.http_status,
            duration_s=duration_s,
            error=response.error,
            answer_unknown=response.answer_unknown,
        )
        # Last, in every transaction: all accounts share this row.
        if response.pair is not None:
            credentials.record_success(conn, self.fingerprint)
        elif wrong_settings:
            credentials.record_refusal(conn, self.fingerprint)
        is_orphan = (
            response.pair is not None and result is Result.SUPERSEDED and leases.is_orphan(conn, lease)
        )
        return result, is_orphan

    def _apply(
        self,
        conn: psycopg.Connection[Any],
        lease: Lease,
        response: TokenResponse,
        *,
        wrong_settings: bool,
    ) -> Result:
        if response.pair is not None:
            expires_at = jwt_claims.expiry(
                response.pair.access_token,
                issued_at=lease.claimed_at,
                expires_in_s=response.pair.expires_in_s,
            )
            stored = leases.store(
                conn,
                lease,
                self.keys,
                access_token=response.pair.access_token,
                refresh_token=response.pair.refresh_token,
                expires_at=expires_at,
            )
            return Result.STORED if stored else Result.SUPERSEDED
        error = response.error or "server_error"
        if lease.refused and response.meaning not in (Meaning.REFUSED, Meaning.UNAUTHORIZED):
            return _transient(leases.look_later(conn, lease))
        if response.meaning is Meaning.CREDENTIALS:
            if wrong_settings:
                return _transient(leases.credentials_refused(conn, lease))
            return _transient(leases.slow_down(conn, lease, error, wait_s=credentials.PROBE_EVERY_S))
        if response.meaning in (Meaning.REFUSED, Meaning.UNAUTHORIZED):
            doubtful = response.meaning is Meaning.UNAUTHORIZED
            return _refused(leases.refuse(conn, lease, error, doubtful=doubtful))
        if response.meaning is Meaning.RATE_LIMITED and response.retry_after_s is not None:
            return _transient(leases.slow_down(conn, lease, error, wait_s=response.retry_after_s))
        if response.meaning is Meaning.CLIENT_ERROR:
            return _transient(leases.slow_down(conn, lease, error, wait_s=SLOW_RETRY_S))
        return _transient(leases.back_off(conn, lease, error))

    def _revoke(self, lease: Lease, access_token: str) -> None:
        """Revoke new tokens of an account that was removed during the exchange (RFC 7009). Nobody could later."""
        try:
            outcome = f"HTTP {self.rdstation.revoke(access_token).status}"
        except TransportError as error:
            outcome = error.kind
        log.warning(
            "account %s was removed during its refresh; its new tokens were revoked at RD Station (%s)",
            account_in_logs(lease.account_id),
            outcome,
        )

    def _cannot_open(self, conn: psycopg.Connection[Any], lease: Lease) -> None:
        """End the lease, and make the probe available again if the lease had it: nothing was sent."""
        give_back = leases.postpone if lease.reason in ("due", "second_look") else leases.release
        self._record(conn, lease, give_back, "released", error="key_missing")
        credentials.give_probe_back(conn, self.fingerprint)

    def _give_back(self, lease: Lease) -> None:
        self._write(lambda conn: self._record(conn, lease, leases.release, "released", error=None))

    def _skip_look(self, lease: Lease) -> bool:
        """Return whether this is a second look that must not be made, and plan the next one then."""
        if lease.reason != "second_look":
            return False
        with transaction(self.pool) as conn:
            is_dangerous = leases.same_name_works(conn, lease)
        if is_dangerous:
            self._write(lambda conn: self._record(conn, lease, leases.skip_look, "released", error=None))
        return is_dangerous

    def _record(
        self,
        conn: psycopg.Connection[Any],
        lease: Lease,
        change: Callable[[psycopg.Connection[Any], Lease], object],
        outcome: attempts.Outcome,
        *,
        error: str | None,
    ) -> None:
        change(conn, lease)
        attempts.finish(conn, lease.fence, outcome, error=error)

    def _write(self, change: Callable[[psycopg.Connection[Any]], T]) -> T:
        return write_for_sure(self.pool, change, give_up=self.must_end)


def _transient(counted: bool) -> Result:
    return Result.TRANSIENT if counted else Result.SUPERSEDED


def _refused(refusal: leases.Refusal | None) -> Result:
    if refusal is None:
        return Result.SUPERSEDED
    return Result.REFUSED if refusal.final or refusal.brought_back else Result.TRANSIENT


def _log_result(lease: Lease, response: TokenResponse, result: Result) -> None:
    is_news = result in (Result.REFUSED, Result.TRANSIENT) and lease.reason != "second_look"
    level = logging.WARNING if is_news else logging.INFO
    log.log(
        level,
        "refresh of account %s: %s (claim %d, HTTP %s, %s)",
        account_in_logs(lease.account_id),
        result,
        lease.fence,
        response.http_status or "none",
        response.error or "no error",
    )
