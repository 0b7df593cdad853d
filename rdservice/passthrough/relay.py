"""Sends a program's request to RD Station with a valid access token, within the budget, with retries if safe."""

import logging
import random
import time
from collections.abc import Callable
from http import HTTPStatus

from rdservice import errors
from rdservice.account_calls.failures import transport_error_behind
from rdservice.database.pool import UNAVAILABLE
from rdservice.errors import RdServiceError
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

log = logging.getLogger(__name__)

DEADLINE_S = 60.0
"""For all attempts together, including the whole response."""
LAST_ATTEMPT_S = 20.0
"""No retry begins later: hosting platforms give up on a response that has not begun after 30 seconds."""
RETRY_S = 5.0
MAX_RETRIES = 2
PAUSE_S = 0.5
"""Longest pause before the first retry; it doubles for the next one."""
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""RFC 9110 9.2.2: several identical requests have the effect of one."""
TRANSIENT = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})


def relay(
    services: Services,
    account_id: str,
    outgoing: Outgoing,
    *,
    is_connected: Callable[[], bool] = lambda: True,
) -> StreamedResponse:
    """Return RD Station's response, whatever its status, as soon as its head has arrived. The caller must close it.

    `is_connected` returns whether the client is still connected; the call ends soon after it returns False. After a
    401, the token is refreshed once and the request sent once more.

    Raises what `AccessTokens.usable` raises, TooManyRequests while the budget is used up, RdStationUnavailable or
    RdStationTimeout without a response, RdStationFailed for a response that cannot be passed on, BadRequest when the
    client has disconnected, and what reading the client's body raises.
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
    """One request of a program, which may take several attempts."""

    def __init__(
        self, services: Services, account_id: str, outgoing: Outgoing, is_connected: Callable[[], bool]
    ) -> None:
        self._services = services
        self._account_id = account_id
        self._outgoing = outgoing
        self._is_connected = is_connected
        self._began = time.monotonic()
        self._retries = 0
        self._sent = 0
        """How often the request has been sent."""
        self._response: StreamedResponse | None = None
        """The latest response, open until the next attempt is sent."""

    def close(self) -> None:
        """End the call if it still runs."""
        if self._response is not None:
            self._response.close()

    def make(self) -> StreamedResponse:
        """Call RD Station until there is a response to pass on, or a retry would be useless or unsafe."""
        outcome = self._attempt()
        while (pause_s := self._pause_s(outcome)) is not None and self._goes_on_after(pause_s):
            self._retries += 1
            sent = self._sent
            try:
                outcome = self._attempt()
            except RdServiceError:
                if self._sent != sent:
                    raise
                # Nothing was sent, so the outcome of the previous attempt tells the caller more.
                break
        if isinstance(outcome, RdServiceError):
            raise outcome
        return outcome

    @property
    def _can_be_sent(self) -> bool:
        return self._outgoing.upload is None or self._outgoing.upload.can_be_sent

    def _attempt(self) -> StreamedResponse | RdServiceError:
        """Return RD Station's response, or the error if there is none."""
        try:
            return self._services.account_calls.send(
                self._account_id,
                self._send,
                limit=limit_of(self._outgoing.method, self._outgoing.target),
                before_retry=self._check_can_resend,
                passed_through=True,
            )
        except (errors.RdStationTimeout, errors.RdStationUnavailable) as error:
            if transport_error_behind(error) is None:
                raise
            return error
        except UNAVAILABLE as failure:
            # What is noted after a call never fails it. So nothing was sent, or RD Station refused the token.
            log.warning("database unavailable: %s", type(failure).__name__, exc_info=failure)
            raise errors.DatabaseUnavailable(
                "The database does not respond. Nothing took effect at RD Station: send the request again.",
                retry_after_s=RETRY_S,
                extra={"reached_rd_station": "no"},
            ) from failure
        except ClientDisconnected as gone:
            raise _client_disconnected(sent=gone.sent) from gone
        except UploadBroken as broken:
            if isinstance(broken.__cause__, RdServiceError):
                raise broken.__cause__ from None
            raise errors.BadRequest("The request's body is incomplete.") from broken

    def _send(self, access_token: str) -> StreamedResponse:
        self.close()
        self._response = None
        self._sent += 1
        self._response = self._services.streamed_calls.send(
            self._outgoing, access_token, deadline=self._began + DEADLINE_S, is_connected=self._is_connected
        )
        return self._response

    def _check_can_resend(self) -> None:
        """Raise RdStationUnavailable if the body cannot be sent again after a 401, by which nothing took effect."""
        if not self._can_be_sent:
            raise errors.RdStationUnavailable(
                "RD Station refused the access token, which has been refreshed. The request's body had been read"
                " already, so it was not sent again. Nothing took effect: send the request again.",
                retry_after_s=1,
                extra={"reached_rd_station": "no"},
            )

    def _pause_s(self, outcome: StreamedResponse | RdServiceError) -> float | None:
        """Return the seconds to wait before a retry, or None if there must be none."""
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
        if not is_safe or not self._can_be_sent or self._retries >= MAX_RETRIES:
            return None
        pause_s = max(asked_s, random.uniform(0, PAUSE_S * 2**self._retries))  # noqa: S311 - no secret
        return pause_s if time.monotonic() + pause_s < self._began + LAST_ATTEMPT_S else None

    def _goes_on_after(self, seconds: float) -> bool:
        """Wait; return False as soon as the process must end or the client has disconnected."""
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0:
            if self._services.refresher.must_end.wait(min(left_s, LOOK_S)) or not self._is_connected():
                return False
        return True


def limit_of(method: str, target: str) -> Limit:
    """Return the class of a request in the rate budget."""
    path = target.partition("?")[0].rstrip("/")
    if path == "/platform/segmentations":
        return "segmentations"
    is_scarce = path.startswith("/platform/contacts/") and (method != "GET" or "/funnels/" in path)
    return "contact" if is_scarce else "account"


def _client_disconnected(*, sent: bool) -> RdServiceError:
    return errors.BadRequest(
        "The connection was closed before RD Station responded. Keep it open in both directions."
        + (" The request may have taken effect: check before you repeat it." if sent else ""),
        extra={"reached_rd_station": "unknown" if sent else "no"},
    )


def _check(response: StreamedResponse, method: str) -> None:
    """Raise RdStationFailed for a response that cannot be passed on."""
    length = response.head.headers.get("Content-Length", "")
    if method != "HEAD" and length.isascii() and length.isdigit() and int(length) > MAX_RESPONSE_BYTES:
        raise errors.RdStationFailed(
            f"RD Station's response is larger than {MAX_RESPONSE_BYTES >> 20} MiB. Request less at once.",
            extra={"reached_rd_station": "yes"},
        )
    if response.head.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise errors.RdStationFailed(
            "RD Station compressed its response without being asked to, so this service cannot mask secrets in it.",
            extra={"reached_rd_station": "yes"},
        )
    if not 200 <= response.status <= 599:
        raise errors.RdStationFailed(
            "RD Station responded with an invalid status. Check before you repeat the request.",
            extra={"reached_rd_station": "yes"},
        )
