"""One refresh of one account: check the claim, exchange the refresh token, write down what came of it.

Web processes and the worker use this one function. No transaction and no pooled connection is held during the call to
RD Station.
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
from rdservice.rdstation.client import EXCHANGE_DEADLINE_S, NoAnswer, RDStation
from rdservice.rdstation.token_responses import REFUSALS, Meaning, TokenAnswer, judge
from rdservice.tokens import attempts, credentials, jwt_claims, leases
from rdservice.tokens.leases import Claim

log = logging.getLogger(__name__)

T = TypeVar("T")

COMMIT_ALLOWANCE_S = 5.0
"""Part of the lease that must be left over for writing the answer."""
SLOW_RETRY_S = 600.0


class Result(StrEnum):
    """What came of a claim."""

    STORED = "stored"
    REFUSED = "refused"
    TRANSIENT = "transient"
    SUPERSEDED = "superseded"
    """The row moved on meanwhile: a newer authorization, a newer answer, or no row any more."""


@dataclass(frozen=True, kw_only=True)
class Refresher:
    """What a refresh needs. `must_end` is set when the process cannot wait any longer for the database."""

    pool: ConnectionPool[psycopg.Connection[Any]]
    keys: KeyRing
    metrics: Metrics
    rdstation: RDStation
    fingerprint: str
    must_end: threading.Event
    monotonic: Callable[[], float] = time.monotonic
    """Seconds of a clock that is never set."""
    claimed_by: str = f"{socket.gethostname()}:{os.getpid()}"

    def renew(self, claim: Claim) -> Result:
        """Exchange the refresh token of a claim and write down the answer.

        Raises KeyMissing when this process cannot decrypt the token: the row is left as it was, but for workers put off
        if a worker claimed it. Raises the database's errors from before the exchange, which lose nothing since the
        lease ends by itself, or when `must_end` was set before the database took the answer.
        """
        with log_context(claim=claim.claim_no):
            result = self._renew(claim)
        self.metrics.token_refresh(result.value)
        return result

    def _renew(self, claim: Claim) -> Result:
        try:
            refresh_token = self.keys.decrypt("refresh_token", claim.account_id, claim.refresh_token)
        except KeyMissing:
            self._write(lambda conn: self._cannot_open(conn, claim))
            raise
        except ValueDamaged as error:
            log.error("refresh impossible: %s", error)  # noqa: TRY400
            self._write(lambda conn: self._record(conn, claim, leases.damaged, "refused", error="damaged"))
            return Result.REFUSED
        if not self._may_send(claim):
            self._give_back(claim)
            return Result.SUPERSEDED
        started = self.monotonic()
        answer = self._exchange(refresh_token)
        duration_s = self.monotonic() - started
        result = self._write(lambda conn: self._settle(conn, claim, answer, duration_s))
        _log_result(claim, answer, result)
        return result

    def _may_send(self, claim: Claim) -> bool:
        """Return whether the lease outlasts the exchange and the row is still ours: asked last before sending."""
        with transaction(self.pool) as conn:
            held = leases.holds(conn, claim)
        return held and claim.lease_left_s(self.monotonic()) >= EXCHANGE_DEADLINE_S + COMMIT_ALLOWANCE_S

    def _exchange(self, refresh_token: str) -> TokenAnswer:
        try:
            answer = judge(self.rdstation.refresh(refresh_token))
        except NoAnswer as error:
            return judge(error)
        if answer.meaning in REFUSALS:
            self.metrics.auth_failure("refresh")
        return answer

    def _settle(
        self, conn: psycopg.Connection[Any], claim: Claim, answer: TokenAnswer, duration_s: float
    ) -> Result:
        """Write an answer into the account's row and its attempt, in the caller's transaction."""
        result = self._apply(conn, claim, answer)
        attempts.finish(
            conn,
            claim.claim_no,
            result.value,
            http_status=answer.http_status,
            duration_s=duration_s,
            error=answer.error,
            answer_unknown=answer.answer_unknown,
        )
        return result

    def _apply(self, conn: psycopg.Connection[Any], claim: Claim, answer: TokenAnswer) -> Result:
        if answer.pair is not None:
            credentials.record_success(conn, self.fingerprint)
            expires_at = jwt_claims.expiry(
                answer.pair.access_token, issued_at=claim.claimed_at, expires_in_s=answer.pair.expires_in_s
            )
            stored = leases.store(
                conn,
                claim,
                self.keys,
                access_token=answer.pair.access_token,
                refresh_token=answer.pair.refresh_token,
                expires_at=expires_at,
            )
            return Result.STORED if stored else Result.SUPERSEDED
        error = answer.error or "server_error"
        if answer.meaning is Meaning.CREDENTIALS:
            if credentials.record_refusal(conn, self.fingerprint):
                return _transient(leases.credentials_refused(conn, claim))
            return _transient(leases.slow_down(conn, claim, error, wait_s=credentials.PROBE_EVERY_S))
        if answer.meaning in (Meaning.REFUSED, Meaning.UNAUTHORIZED):
            doubtful = answer.meaning is Meaning.UNAUTHORIZED
            return _refused(leases.refuse(conn, claim, error, doubtful=doubtful))
        if answer.meaning is Meaning.RATE_LIMITED and answer.retry_after_s is not None:
            return _transient(leases.slow_down(conn, claim, error, wait_s=answer.retry_after_s))
        if answer.meaning is Meaning.CLIENT_ERROR:
            return _transient(leases.slow_down(conn, claim, error, wait_s=SLOW_RETRY_S))
        return _transient(leases.back_off(conn, claim, error))

    def _cannot_open(self, conn: psycopg.Connection[Any], claim: Claim) -> None:
        """Let others have the account, and the gate's probe if this was one: nothing was sent."""
        give_back = leases.put_off if claim.reason == "due" else leases.release
        self._record(conn, claim, give_back, "released", error="key_missing")
        credentials.give_probe_back(conn, self.fingerprint)

    def _give_back(self, claim: Claim) -> None:
        self._write(lambda conn: self._record(conn, claim, leases.release, "released", error=None))

    def _record(
        self,
        conn: psycopg.Connection[Any],
        claim: Claim,
        change: Callable[[psycopg.Connection[Any], Claim], object],
        outcome: attempts.Outcome,
        *,
        error: str | None,
    ) -> None:
        change(conn, claim)
        attempts.finish(conn, claim.claim_no, outcome, error=error)

    def _write(self, change: Callable[[psycopg.Connection[Any]], T]) -> T:
        return write_for_sure(self.pool, change, give_up=self.must_end)


def _transient(counted: bool) -> Result:
    return Result.TRANSIENT if counted else Result.SUPERSEDED


def _refused(refusal: leases.Refusal | None) -> Result:
    if refusal is None:
        return Result.SUPERSEDED
    return Result.REFUSED if refusal.final or refusal.brought_back else Result.TRANSIENT


def _log_result(claim: Claim, answer: TokenAnswer, result: Result) -> None:
    level = logging.WARNING if result in (Result.REFUSED, Result.TRANSIENT) else logging.INFO
    log.log(
        level,
        "refresh of account %s: %s (claim %d, HTTP %s, %s)",
        account_in_logs(claim.account_id),
        result,
        claim.claim_no,
        answer.http_status or "none",
        answer.error or "no error",
    )
