"""`/rd/api/<path>`: passes requests on to any route of RD Station, with the account's access token."""

import errno
import logging
import math
import threading
from collections.abc import Iterator
from http import HTTPStatus
from typing import cast

from flask import Blueprint, Flask, Response, current_app, request
from flask.typing import ResponseReturnValue

from rdservice import errors
from rdservice.accounts.ids import check_account_id
from rdservice.events.subscriptions.masking import masked
from rdservice.passthrough.headers import for_caller, for_rd_station
from rdservice.passthrough.relay import relay
from rdservice.passthrough.target import target_of
from rdservice.rdstation.rate_budget import CLOSED_WITHOUT_WORD_S
from rdservice.rdstation.streaming import (
    ClientDisconnected,
    IncompleteRead,
    Outgoing,
    StreamedResponse,
    Upload,
)
from rdservice.tokens.store import DEFAULT_ACCOUNT
from rdservice.web.http import bodies, guard, long_responses
from rdservice.web.http.context import services
from rdservice.web.http.long_responses import LongResponse
from rdservice.web.http.response_headers import KNOWN_METHODS

bp = Blueprint("passthrough", __name__)
log = logging.getLogger(__name__)

MAX_UPLOAD_BYTES = 10 * 1024 * 1024
AT_ONCE = 32
"""Concurrent calls per process. Each occupies a thread until RD Station and the client are done; half of the threads
remain for other routes."""
PLACES = "rdservice_passthrough_places"
BUSY_RETRY_S = 1.0
UPLOAD_WITHIN_S = 45.0
REPEATABLE_BYTES = 256 * 1024
"""A body up to this size is kept until the response arrives, for a repetition; a larger one is streamed."""
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; sandbox"
)
"""A page from RD Station must not act as a page of this service: `sandbox` gives it an opaque origin without scripts
and forms."""


ASKED_BY_HAND_OR_SCRIPT = frozenset({"document", "empty"})
"""Allowed values of Sec-Fetch-Dest: no page may use a response of RD Station as a script, a style or a frame."""


class _Relayed(Response):
    default_mimetype = None


def init_app(app: Flask) -> None:
    """Prepare `app` for the route of `bp`."""
    app.extensions[PLACES] = threading.BoundedSemaphore(AT_ONCE)


@bp.route("/rd/api/<path:path>", methods=sorted(KNOWN_METHODS), provide_automatic_options=False)
@bodies.left_to_view
@guard.requires("api:call")
def call(path: str) -> ResponseReturnValue:  # noqa: ARG001 - `target_of` needs the undecoded path
    """Pass the request on to RD Station, and its response back."""
    if request.headers.get("Sec-Fetch-Dest", "empty") not in ASKED_BY_HAND_OR_SCRIPT:
        raise errors.RouteForbidden("A page may not embed a response of RD Station.")
    places = cast(threading.BoundedSemaphore, current_app.extensions[PLACES])
    if not places.acquire(blocking=False):
        raise errors.TooManyRequests(
            f"{AT_ONCE} calls to RD Station are already running in this process. Wait for the time in Retry-After.",
            retry_after_s=BUSY_RETRY_S,
            extra={"reached_rd_station": "no"},
        )
    under_way = long_responses.begin()
    try:
        response = _relayed(under_way)
    except BaseException:
        under_way.close()
        places.release()
        raise
    # Called after the last byte, and also when the client disconnects before the first.
    response.call_on_close(under_way.close)
    response.call_on_close(places.release)
    return response


def _relayed(under_way: LongResponse) -> Response:
    outgoing = Outgoing(
        method=request.method,
        target=target_of(request.environ["RAW_URI"]),
        headers=for_rd_station(request.headers.items()),
        upload=_upload(),
    )
    api_response = relay(services(), _account_id(), outgoing, is_connected=under_way.is_connected)
    headers = [*for_caller(api_response.headers, services().settings.api_url), ("X-Answer-From", "rdstation")]
    response = _Relayed(_body(api_response), status=api_response.status, headers=headers)
    response.call_on_close(api_response.close)
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    if api_response.status == HTTPStatus.UNAUTHORIZED:
        # RFC 9110 15.5.2 requires it; RD Station does not always send it.
        response.headers.setdefault("WWW-Authenticate", "Bearer")
    if api_response.status == HTTPStatus.TOO_MANY_REQUESTS:
        # If RD Station sends no Retry-After, the budget is closed for at most this long.
        response.headers.setdefault("Retry-After", str(math.ceil(CLOSED_WITHOUT_WORD_S[1])))
    if api_response.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        # A browser would guess a missing type.
        response.headers.setdefault("Content-Type", "application/octet-stream")
    return response


def _account_id() -> str:
    given = request.headers.get("RD-Account")
    if given is None:
        return DEFAULT_ACCOUNT
    try:
        # WSGI decodes header bytes as Latin-1.
        return check_account_id(services().pool, given.encode("latin-1").decode())
    except UnicodeError:
        raise errors.InvalidField("RD-Account must be UTF-8.", extra={"field": "account_id"}) from None


def _upload() -> Upload | None:
    """Return the request's body: complete if it is small, else its first part and an iterator over the rest."""
    more = bodies.pieces(most_bytes=MAX_UPLOAD_BYTES, within_s=UPLOAD_WITHIN_S)
    if more is None:
        return None
    first = b""
    while len(first) <= REPEATABLE_BYTES:
        piece = next(more, None)
        if piece is None:
            return Upload(first=first, length=len(first), more=None)
        first += piece
    return Upload(first=first, length=request.content_length, more=more)


def _body(api_response: StreamedResponse) -> Iterator[bytes]:
    try:
        yield from masked(api_response.pieces())
    except ClientDisconnected as gone:
        raise BrokenPipeError(errno.EPIPE, "the client has disconnected") from gone
    except IncompleteRead as error:
        log.warning("%s", error)
        # Ends the connection, so that the client notices that the body is incomplete.
        raise BrokenPipeError(errno.EPIPE, "RD Station's response broke off") from error
