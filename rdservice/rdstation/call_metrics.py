"""Counts calls to RD Station in the metrics."""

import logging
from collections.abc import Callable
from http import HTTPStatus

from rdservice.metrics.definitions import OPERATIONS, Metrics, Operation, Reason, StatusClass
from rdservice.rdstation.client import ApiResponse, TransportError
from rdservice.rdstation.token_responses import Meaning, judge

log = logging.getLogger(__name__)

SECOND_LOOK = "second_look"
"""Another try of a refused token: a request like any other, and no failure whatever the response."""
TOKEN_OPERATIONS = frozenset({"token_exchange", "token_refresh", SECOND_LOOK})
# Operations whose good responses may have any body.
ANY_BODY = frozenset({"revoke", "other"})

STATUS_CLASSES: dict[int, StatusClass] = {2: "2xx", 3: "3xx", 4: "4xx"}
REASONS: dict[Meaning, Reason] = {
    Meaning.REFUSED: "refused",
    Meaning.UNAUTHORIZED: "unauthorized",
    Meaning.CREDENTIALS: "credentials",
    Meaning.RATE_LIMITED: "rate_limited",
    Meaning.CLIENT_ERROR: "client_error",
}


def count(
    metrics: Metrics, hurry: Callable[[], None], outcome: ApiResponse | TransportError, duration_s: float
) -> None:
    """Count one call, `duration_s` seconds long, and call `hurry`, which flushes the counts to the database soon.

    Never raises: the call has been made, and its caller gets the response.
    """
    try:
        _count(metrics, outcome, duration_s)
        hurry()
    except Exception:
        log.exception("a call to RD Station could not be counted")


def _count(metrics: Metrics, outcome: ApiResponse | TransportError, duration_s: float) -> None:
    operation = _operation(outcome)
    metrics.api_requests.labels(operation, status_class(outcome)).inc()
    metrics.api_request_duration.labels(operation).observe(duration_s)
    reason = failure_reason(outcome)
    if reason is not None and outcome.operation != SECOND_LOOK:
        metrics.api_failures.labels(operation, reason).inc()
    if outcome.operation not in TOKEN_OPERATIONS and _is_unauthorized(outcome):
        metrics.auth_failure("api_call")


def status_class(outcome: ApiResponse | TransportError) -> StatusClass:
    """Return the class of the status, or `none` without a response. An invalid status counts as 5xx (RFC 9110 15)."""
    if isinstance(outcome, TransportError):
        return "none"
    return STATUS_CLASSES.get(outcome.status // 100, "5xx")


def failure_reason(outcome: ApiResponse | TransportError) -> Reason | None:
    """Return why the call failed, or None if it succeeded."""
    if isinstance(outcome, TransportError):
        return "timeout" if outcome.kind == "timeout" else "connection"
    response_class = status_class(outcome)
    if response_class == "2xx":
        return None if _is_understood(outcome) else "bad_payload"
    if response_class == "5xx":
        return "server_error"
    return REASONS[judge(outcome).meaning]


def _is_understood(response: ApiResponse) -> bool:
    if response.operation in TOKEN_OPERATIONS:
        return judge(response).pair is not None
    return response.operation in ANY_BODY or response.json() is not None


def _is_unauthorized(outcome: ApiResponse | TransportError) -> bool:
    return isinstance(outcome, ApiResponse) and outcome.status == HTTPStatus.UNAUTHORIZED


def _operation(outcome: ApiResponse | TransportError) -> Operation:
    if outcome.operation == SECOND_LOOK:
        return "token_refresh"
    return next((known for known in OPERATIONS if known == outcome.operation), "other")
