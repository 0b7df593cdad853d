"""The errors that callers see when RD Station does not respond, or responds with something unusable."""

from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

from rdservice import errors
from rdservice.errors import RdServiceError
from rdservice.rdstation.client import ApiResponse, TransportError
from rdservice.text.catalogue import message

RETRY_S = 2.0
"""`Retry-After` in seconds, if RD Station sends none."""

T = TypeVar("T")


def call_once(call: Callable[[], T], *, passed_through: bool = False) -> T:
    """Return what `call` returns. Raises RdStationTimeout or RdStationUnavailable when RD Station does not respond.

    `passed_through`: the request comes from a program. The error then tells in `reached_rd_station` whether the request
    may have taken effect (`unknown`) or was never sent (`no`).
    """
    try:
        return call()
    except TransportError as failure:
        raise _unanswered(failure, passed_through=passed_through) from failure


def transport_error_behind(error: RdServiceError) -> TransportError | None:
    """Return why RD Station did not respond, or None if the error has another cause, such as a token's refresh."""
    cause = error.__cause__
    return cause if isinstance(cause, TransportError) else None


def refusal(response: ApiResponse) -> RdServiceError:
    """Return the error for an unusable response: one with another status than 200, or with an unexpected body."""
    status = response.status
    if status == HTTPStatus.OK:
        return errors.RdStationFailed(
            message("RD Station's response has an unexpected form or is incomplete. Try again."),
            retry_after_s=RETRY_S,
        )
    if status == HTTPStatus.UNAUTHORIZED:
        return errors.RdStationFailed(
            message(
                "RD Station responds with 401 to a valid access token: the app may lack a scope, or its access was"
                " revoked. An operator must connect the account again."
            )
        )
    if status == HTTPStatus.FORBIDDEN:
        return errors.RdStationFailed(
            message(
                "RD Station responds with 403: the app's scope or the account's plan does not allow this. Check both."
            )
        )
    if status == HTTPStatus.NOT_FOUND:
        return errors.NotFound(message("RD Station has no such resource."))
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return errors.TooManyRequests(
            message("RD Station limits the calls of this account. Wait as long as Retry-After says."),
            retry_after_s=response.retry_after_s or RETRY_S,
        )
    return errors.RdStationFailed(
        message("RD Station failed (HTTP %(status)s). Try again."),
        values={"status": status},
        retry_after_s=RETRY_S,
    )


def is_transient(response: ApiResponse) -> bool:
    """Return whether another attempt may succeed after this unusable response."""
    return response.status in (HTTPStatus.OK, HTTPStatus.TOO_MANY_REQUESTS) or response.status >= 500


def _unanswered(failure: TransportError, *, passed_through: bool) -> RdServiceError:
    kind = errors.RdStationTimeout if failure.kind == "timeout" else errors.RdStationUnavailable
    if not passed_through:
        slow = failure.kind == "timeout"
        return kind(
            message("RD Station did not respond in time. Try again.")
            if slow
            else message("RD Station cannot be reached. Try again."),
            retry_after_s=RETRY_S,
        )
    if failure.sent:
        reached = "unknown"
        detail = "RD Station did not respond. The request may have taken effect: check before you repeat it."
    else:
        reached, detail = "no", "RD Station cannot be reached; the request was not sent. Try again."
    return kind(detail, retry_after_s=RETRY_S, extra={"reached_rd_station": reached})
