"""A program's request at RD Station: with a live access token, within the budget, repeated where that is safe."""

import random
import time
from collections.abc import Callable
from http import HTTPStatus

from rdservice import errors
from rdservice.account_calls.failures import transport_error_behind
from rdservice.errors import RdServiceError, TooManyRequests
from rdservice.rdstation.rate_budget import Limit
from rdservice.rdstation.streaming import (
    LOOK_S,
    MAX_RESPONSE_BYTES,
    ClientDisconnected,
    Outgoing,
    StreamedResponse,
    UploadBroken,
)
from rdservice.services import Services

DEADLINE_S = 60.0
"""For all attempts together, and the whole of the answer."""
LAST_ATTEMPT_S = 20.0
"""After this nothing is repeated: platforms give up on an answer that has not begun after 30 seconds."""
MOST_REPETITIONS = 2
PAUSE_S = 0.5
"""The longest pause before the first repetition; it doubles."""
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""RFC 9110 9.2.2: doing it twice is doing it once."""
TRANSIENT = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})


def relay(
    services: Services,
    account_id: str,
    outgoing: Outgoing,
    *,
    is_connected: Callable[[], bool] = lambda: True,
) -> StreamedResponse:
    """Return RD Station's answer, whatever its status; its body is still on its way, and the caller closes it.

    `is_wanted` tells whether whoever asked is still there; all ends soon after it says False.
    A 401 is worth one refresh of the refused token and one repetition. Raises what `AccessTokens.usable` raises,
    TooManyRequests while the budget is spent, RdStationUnavailable or RdStationTimeout without an answer,
    RdStationFailed for one that cannot be passed on, BadRequest when nobody wants it any more, and what reading the
    caller's body raises.
    """
    call = _Call(services, account_id, outgoing, is_connected)
    try:
        response = call.make()
        _check(response, outgoing.method)
    except BaseException:
        call.close()
        raise
    return response


class _Call:
    """One request of a program, which may take several calls."""

    def __init__(
        self, services: Services, account_id: str, outgoing: Outgoing, is_connected: Callable[[], bool]
    ) -> None:
        self._services = services
        self._account_id = account_id
        self._outgoing = outgoing
        self._is_connected = is_connected
        self._began = time.monotonic()
        self._repetitions = 0
        self._answer: StreamedResponse | None = None
        """The latest one, open until the next attempt is sent."""

    def close(self) -> None:
        """End the call, if it still runs."""
        if self._answer is not None:
            self._answer.close()

    def make(self) -> StreamedResponse:
        """Call RD Station until there is an answer to pass on, or another attempt would be in vain or unsafe."""
        outcome = self._attempt()
        while (pause_s := self._pause_s(outcome)) is not None and self._goes_on_after(pause_s):
            self._repetitions += 1
            latest = self._answer
            try:
                outcome = self._attempt()
            except TooManyRequests:
                if self._answer is not latest:
                    raise
                # Nothing was sent: what came of the attempt before says more.
                break
        if isinstance(outcome, RdServiceError):
            raise outcome
        return outcome

    @property
    def _can_be_sent(self) -> bool:
        return self._outgoing.upload is None or self._outgoing.upload.can_be_sent

    def _attempt(self) -> StreamedResponse | RdServiceError:
        """Return RD Station's answer, or the error of none."""
        try:
            return self._services.account_calls.send(
                self._account_id,
                self._send,
                limit=limit_of(self._outgoing.method, self._outgoing.target),
                before_retry=self._check_repeatable,
                passed_through=True,
            )
        except (errors.RdStationTimeout, errors.RdStationUnavailable) as error:
            if transport_error_behind(error) is None:
                raise
            return error
        except ClientDisconnected as gone:
            raise _nobody_waits(sent=gone.sent) from gone
        except UploadBroken as broken:
            if isinstance(broken.__cause__, RdServiceError):
                raise broken.__cause__ from None
            raise errors.BadRequest("The request's body broke off.") from broken

    def _send(self, access_token: str) -> StreamedResponse:
        self.close()
        self._answer = None
        self._answer = self._services.streamed_calls.send(
            self._outgoing, access_token, deadline=self._began + DEADLINE_S, is_connected=self._is_connected
        )
        return self._answer

    def _check_repeatable(self) -> None:
        """Raise RdStationUnavailable when the body cannot be sent again after a 401, by which nothing took effect."""
        if not self._can_be_sent:
            raise errors.RdStationUnavailable(
                "RD Station refused the access token, which has been renewed, and the request's body was read already."
                " Nothing took effect: send the request again.",
                retry_after_s=1,
                extra={"reached_rd_station": "no"},
            )

    def _pause_s(self, outcome: StreamedResponse | RdServiceError) -> float | None:
        """Return how long to wait before another attempt, or None when there must be none."""
        repeatable = self._outgoing.method in IDEMPOTENT
        if isinstance(outcome, RdServiceError):
            transport_error = transport_error_behind(outcome)
            is_safe = transport_error is not None and (
                not transport_error.sent or (repeatable and transport_error.kind == "connection")
            )
            asked_s = 0.0
        else:
            is_safe = repeatable and outcome.status in TRANSIENT
            asked_s = outcome.retry_after_s or 0.0
        if not is_safe or not self._can_be_sent or self._repetitions >= MOST_REPETITIONS:
            return None
        pause_s = max(asked_s, random.uniform(0, PAUSE_S * 2**self._repetitions))  # noqa: S311 - no secret
        return pause_s if time.monotonic() + pause_s < self._began + LAST_ATTEMPT_S else None

    def _goes_on_after(self, seconds: float) -> bool:
        """Wait; return False as soon as the process must end, or nobody wants the answer any more."""
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            if self._services.refresher.must_end.wait(min(left_s, LOOK_S)) or not self._is_connected():
                return False
        return True


def limit_of(method: str, target: str) -> Limit:
    """Return which of RD Station's limits a request falls under."""
    path = target.partition("?")[0].rstrip("/")
    if path == "/platform/segmentations":
        return "segmentations"
    is_scarce = path.startswith("/platform/contacts/") and (method != "GET" or "/funnels/" in path)
    return "contact" if is_scarce else "account"


def _nobody_waits(*, sent: bool) -> RdServiceError:
    return errors.BadRequest(
        "The connection was closed before RD Station answered. Keep it open in both directions."
        + (" The request may have taken effect: check before you repeat it." if sent else ""),
        extra={"reached_rd_station": "unknown" if sent else "no"},
    )


def _check(response: StreamedResponse, method: str) -> None:
    """Raise RdStationFailed for an answer that cannot be passed on."""
    length = response.head.headers.get("Content-Length", "")
    if method != "HEAD" and length.isascii() and length.isdigit() and int(length) > MAX_RESPONSE_BYTES:
        raise errors.RdStationFailed(
            f"RD Station's answer is larger than {MAX_RESPONSE_BYTES >> 20} MiB. Ask for less at once.",
            extra={"reached_rd_station": "yes"},
        )
    if not 200 <= response.status <= 599:
        raise errors.RdStationFailed(
            "RD Station answered with a status that does not exist. Look before you repeat the request.",
            extra={"reached_rd_station": "yes"},
        )
