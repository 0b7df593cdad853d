"""Probes RD Station with one account, under the same leases and back-off as every process of the service."""

import dataclasses
import time
from collections.abc import Iterable
from email.utils import parsedate_to_datetime

from rdservice.access.audit import Author
from rdservice.account_calls.failures import call_once, transport_error_behind
from rdservice.diagnosis.facts.types import Account, Probe
from rdservice.errors import RdServiceError, TooManyRequests
from rdservice.rdstation.client import ApiResponse, RDStation
from rdservice.services import Services
from rdservice.tokens.attempts import Attempt

ERROR_TYPES = frozenset(
    {"UNAUTHORIZED", "ACCESS_DENIED", "FORBIDDEN", "TOO_MANY_REQUESTS", "RESOURCE_NOT_FOUND"}
)
"""Values of `error_type` that are reported. Others are reported as `other`: they could contain personal data."""
NOT_OPENED = (400, 401, 422)
"""Statuses with which RD Station refuses the dialog. A 403 or 404 more likely comes from something in between."""


def skipped(reason: str) -> Probe:
    return Probe(result="skipped", reason=reason)


def refresh(services: Services, account: Account, *, by: Author) -> Probe:
    """Refresh the account's tokens now, under an operator's lease, like "Refresh now" on the pages."""
    if account.refresh_token.state != "readable":
        # A refresh would mark the row as damaged; a diagnosis must not change it.
        return skipped("the stored refresh token cannot be read")
    started = time.monotonic()
    try:
        result = services.access_tokens.refresh_now(account.account_id, by=by)
    except TooManyRequests:
        retry_at = account.retry_at.isoformat(timespec="seconds") if account.retry_at else "the next attempt"
        return skipped(f"back-off until {retry_at}")
    except RdServiceError as error:
        return _failed(error, started)
    return Probe(result=result.value, duration_ms=_milliseconds(started))


def with_outcome(probe: Probe, recent: Iterable[Attempt], *, claimed_by: str, after: int) -> Probe:
    """Return the probe of the refresh with the outcome that its recorded attempt has by now.

    `recent`: the account's attempts, newest first. `claimed_by`: the name of the process that refreshed. `after`: the
    last lease number before the refresh, since in containers every process may have the same name.
    """
    for attempt in recent:
        if attempt.claim_no > after and attempt.claimed_by == claimed_by and attempt.reason == "operator":
            return dataclasses.replace(
                probe,
                result=attempt.outcome or probe.result,
                http_status=attempt.http_status,
                error=attempt.error,
                duration_ms=probe.duration_ms if attempt.duration_ms is None else attempt.duration_ms,
                reason=None if attempt.outcome else probe.reason,
            )
    return probe


def dialog(rdstation: RDStation) -> Probe:
    """Open the consent dialog with the app's client id and redirect URI, without giving consent."""
    started = time.monotonic()
    try:
        response = call_once(rdstation.open_dialog)
    except RdServiceError as error:
        return _failed(error, started)
    refused = response.status in NOT_OPENED
    kind = "refused" if refused else "server_error" if response.status >= 500 else None
    return Probe(
        result="ok" if response.status < 400 else "failed",
        http_status=response.status,
        error=kind,
        duration_ms=_milliseconds(started),
        rdstation_clock_ahead_s=_clock_ahead_s(response),
    )


def leads(services: Services, account_id: str) -> Probe:
    """Make the smallest call that reading leads needs; keep nothing of the response."""
    sent = 0

    def send(access_token: str) -> ApiResponse:
        nonlocal sent
        sent += 1
        return services.rdstation.segmentations(access_token, {"page": 1, "page_size": 1})

    started = time.monotonic()
    try:
        response = services.account_calls.send(account_id, send, limit="segmentations")
    except TooManyRequests as error:
        return Probe(result="skipped", error="rate_limited", reason=error.detail)
    except RdServiceError as error:
        return _failed(error, started, renewed=sent > 1)
    kind = _error_kind(response)
    return Probe(
        result="ok" if kind is None else "failed",
        http_status=response.status,
        error=kind,
        duration_ms=_milliseconds(started),
        renewed=sent > 1,
        error_type=_error_type(response),
        rdstation_clock_ahead_s=_clock_ahead_s(response),
    )


def _failed(error: RdServiceError, started: float, *, renewed: bool = False) -> Probe:
    transport_error = transport_error_behind(error)
    if transport_error is None:
        return Probe(result=error.code, duration_ms=_milliseconds(started), reason=error.detail)
    return Probe(
        result="failed", error=transport_error.kind, duration_ms=_milliseconds(started), renewed=renewed
    )


def _error_type(response: ApiResponse) -> str | None:
    kind = response.error_type if response.status >= 400 else None
    return kind if kind is None or kind in ERROR_TYPES else "other"


def _clock_ahead_s(response: ApiResponse) -> float | None:
    """Return the seconds by which RD Station's clock is ahead of this machine's; None without a usable `Date`."""
    if "Age" in response.headers:
        # The response comes from a cache, and its Date is that of an earlier one (RFC 9110 6.6.1).
        return None
    try:
        sent = parsedate_to_datetime(response.headers["Date"])
    except (KeyError, ValueError, OverflowError):
        return None
    # A Date is truncated to whole seconds.
    return None if sent.tzinfo is None else round(sent.timestamp() + 0.5 - time.time(), 1)


def _error_kind(response: ApiResponse) -> str | None:
    """Return the error kind of a response to the call for leads; None for a valid response."""
    if response.status == 200:
        body = response.json()
        good = isinstance(body, dict) and isinstance(body.get("segmentations"), list)
        return None if good else "bad_payload"
    if response.status >= 500:
        return "server_error"
    return {401: "unauthorized", 403: "forbidden", 429: "rate_limited"}.get(response.status, "client_error")


def _milliseconds(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
