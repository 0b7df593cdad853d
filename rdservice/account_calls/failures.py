"""What callers are told when RD Station does not respond, or not with what was asked for."""

from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

from rdservice import errors
from rdservice.errors import RdServiceError
from rdservice.rdstation.client import ApiResponse, TransportError
from rdservice.text.catalogue import message

RETRY_S = 2.0
"""When to try again where RD Station does not say."""

T = TypeVar("T")


def call_once(call: Callable[[], T], *, passed_through: bool = False) -> T:
    """Return what `call` returns. Raises RdStationTimeout or RdStationUnavailable when RD Station does not respond.

    `passed_through`: the request is a program's own. The error then says in `reached_rd_station` whether the request
    may have taken effect (`unknown`) or was never sent (`no`).
    """
    try:
        return call()
    except TransportError as failure:
        raise _unanswered(failure, passed_through=passed_through) from failure


def no_answer_behind(error: RdServiceError) -> TransportError | None:
    """Return why RD Station did not respond; None for an error of another origin, such as a token's renewal."""
    cause = error.__cause__
    return cause if isinstance(cause, TransportError) else None


def refusal(response: ApiResponse) -> RdServiceError:
    """Return the error for a response that is not what was asked for, by its status or by its body."""
    status = response.status
    if status == HTTPStatus.OK:
        return errors.RdStationFailed(
            message(
                "RD Station answered with something else than what was asked for, or not to the end. Try again."
            ),
            retry_after_s=RETRY_S,
        )
    if status == HTTPStatus.UNAUTHORIZED:
        return errors.RdStationFailed(
            message(
                "RD Station answers 401 in spite of a valid access token: the app may lack the scope contacts, or its"
                " access was taken back. An operator connects the account again."
            )
        )
    if status == HTTPStatus.FORBIDDEN:
        return errors.RdStationFailed(
            message(
                "RD Station answers 403: neither the app's scope nor the account's plan may allow this. Check both."
            )
        )
    if status == HTTPStatus.NOT_FOUND:
        return errors.NotFound(message("RD Station does not know what was asked for."))
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return errors.TooManyRequests(
            message(
                "RD Station's own limit of calls for the account is spent. Wait as long as Retry-After says."
            ),
            retry_after_s=response.retry_after_s or RETRY_S,
        )
    return errors.RdStationFailed(
        message("RD Station failed (HTTP %(status)s). Try again."),
        values={"status": status},
        retry_after_s=RETRY_S,
    )


def is_transient(response: ApiResponse) -> bool:
    """Return whether another attempt may bring what was asked for, and this response was not that."""
    return response.status in (HTTPStatus.OK, HTTPStatus.TOO_MANY_REQUESTS) or response.status >= 500


def _unanswered(failure: TransportError, *, passed_through: bool) -> RdServiceError:
    kind = errors.RdStationTimeout if failure.kind == "timeout" else errors.RdStationUnavailable
    if not passed_through:
        slow = failure.kind == "timeout"
        return kind(
            message("RD Station did not answer in time. Try again.")
            if slow
            else message("RD Station cannot be reached. Try again."),
            retry_after_s=RETRY_S,
        )
    if failure.sent:
        reached = "unknown"
        detail = "RD Station did not answer. The request may have taken effect: look before you repeat it."
    else:
        reached, detail = "no", "RD Station cannot be reached; the request was not sent. Try again."
    return kind(detail, retry_after_s=RETRY_S, extra={"reached_rd_station": reached})
