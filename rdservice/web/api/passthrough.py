"""`/rd/api/<path>`: any route of RD Station, with this service's access token."""

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
from rdservice.web.http import bodies, guard
from rdservice.web.http.context import services
from rdservice.web.http.response_headers import KNOWN_METHODS

bp = Blueprint("passthrough", __name__)
log = logging.getLogger(__name__)

MAX_UPLOAD_BYTES = 10 * 1024 * 1024
AT_ONCE = 32
"""Calls of one process: each holds a thread for as long as RD Station and the caller take, and half are for others."""
PLACES = "rdservice_passthrough_places"
BUSY_RETRY_S = 1.0
UPLOAD_WITHIN_S = 45.0
REPEATABLE_BYTES = 256 * 1024
"""A body up to this size is kept until the answer is there and can be sent again; a larger one passes through."""
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; sandbox"
)
"""A page of RD Station must not be one of ours: it gets an origin of its own, and neither scripts nor forms."""


ASKED_BY_HAND_OR_SCRIPT = frozenset({"document", "empty"})
"""Values of Sec-Fetch-Dest: what RD Station answers must not become a script, a style or a frame of a page of ours."""


class _Relayed(Response):
    default_mimetype = None


def init_app(app: Flask) -> None:
    """Prepare `app` for the route of `bp`."""
    app.extensions[PLACES] = threading.BoundedSemaphore(AT_ONCE)


@bp.route("/rd/api/<path:path>", methods=sorted(KNOWN_METHODS), provide_automatic_options=False)
@bodies.left_to_view
@guard.requires("api:call")
def call(path: str) -> ResponseReturnValue:  # noqa: ARG001 - it is taken as it was sent, before it was decoded
    """Pass the request on to RD Station, and its answer back."""
    if request.headers.get("Sec-Fetch-Dest", "empty") not in ASKED_BY_HAND_OR_SCRIPT:
        raise errors.RouteForbidden("A page may not embed what RD Station answers.")
    places = cast(threading.BoundedSemaphore, current_app.extensions[PLACES])
    if not places.acquire(blocking=False):
        raise errors.TooManyRequests(
            f"{AT_ONCE} calls to RD Station already run in this process. Wait as long as Retry-After says.",
            retry_after_s=BUSY_RETRY_S,
            extra={"reached_rd_station": "no"},
        )
    try:
        response = _relayed()
    except BaseException:
        places.release()
        raise
    # Called when the last byte was sent, and also when the caller goes before the first.
    response.call_on_close(places.release)
    return response


def _relayed() -> Response:
    outgoing = Outgoing(
        method=request.method,
        target=target_of(request.environ["RAW_URI"]),
        headers=for_rd_station(request.headers.items()),
        upload=_upload(),
    )
    # Other servers than our gunicorn do not say; there the next write finds out.
    is_connected = getattr(request.environ.get("gunicorn.socket"), "is_connected", lambda: True)
    api_response = relay(services(), _account_id(), outgoing, is_connected=is_connected)
    headers = [*for_caller(api_response.headers, services().settings.api_url), ("X-Answer-From", "rdstation")]
    response = _Relayed(_body(api_response), status=api_response.status, headers=headers)
    response.call_on_close(api_response.close)
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    if api_response.status == HTTPStatus.UNAUTHORIZED:
        # RFC 9110 15.5.2 asks for it; RD Station does not always send it.
        response.headers.setdefault("WWW-Authenticate", "Bearer")
    if api_response.status == HTTPStatus.TOO_MANY_REQUESTS:
        # The budget is closed for no longer than this where RD Station names no time.
        response.headers.setdefault("Retry-After", str(math.ceil(CLOSED_WITHOUT_WORD_S[1])))
    if api_response.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        # A browser guesses the type of what has none.
        response.headers.setdefault("Content-Type", "application/octet-stream")
    return response


def _account_id() -> str:
    given = request.headers.get("RD-Account")
    if given is None:
        return DEFAULT_ACCOUNT
    try:
        # WSGI hands bytes over as Latin-1.
        return check_account_id(given.encode("latin-1").decode())
    except UnicodeError:
        raise errors.InvalidField("RD-Account must be UTF-8.", extra={"field": "account_id"}) from None


def _upload() -> Upload | None:
    """Return the request's body: read to its end where it is small, else its first part and the rest to be read."""
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
        yield from api_response.pieces()
    except ClientDisconnected as gone:
        raise BrokenPipeError(errno.EPIPE, "the caller has gone") from gone
    except IncompleteRead as error:
        log.warning("%s", error)
        # Ends the connection: the caller must not take what has arrived for all.
        raise BrokenPipeError(errno.EPIPE, "RD Station's response broke off") from error
