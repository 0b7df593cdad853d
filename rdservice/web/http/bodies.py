"""Reads request bodies: completely before the view runs, or piece by piece in views that are `left_to_view`."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from flask import current_app, request
from gunicorn.http.errors import ParseException
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.exceptions import RequestEntityTooLarge

from rdservice.errors import BadRequest, PayloadTooLarge
from rdservice.gunicorn_hooks.worker_class import ClientSocket

View = TypeVar("View", bound=Callable[..., Any])

MAX_BODY_BYTES = 64 * 1024
"""Limit for views that do not declare another with `takes`."""
PIECE_BYTES = 64 * 1024
_MOST_BYTES = "rdservice_most_bytes"
_LEFT_TO_VIEW = "rdservice_reads_body"

SHORT = "The body is shorter than its Content-Length."
MALFORMED = "The body's chunks are malformed."


def takes(most_bytes: int) -> Callable[[View], View]:
    """Return a decorator that sets the limit of the view's request bodies, in bytes."""

    def declare(view: View) -> View:
        setattr(view, _MOST_BYTES, most_bytes)
        return view

    return declare


def left_to_view(view: View) -> View:
    """Leave the body to the view, which reads it with `pieces`. A CSRF token must then come in a header."""
    setattr(view, _LEFT_TO_VIEW, True)
    return view


def read_body() -> None:
    """Read the whole body into the request; refuse one that is too large, incomplete or malformed.

    Werkzeug alone would accept a truncated body as complete, and the beginning of a longer body as the whole.
    """
    view = current_app.view_functions.get(request.endpoint or "")
    if hasattr(view, _LEFT_TO_VIEW):
        # Code that looks for form fields finds none and does not consume the body.
        request.form = ImmutableMultiDict()
        return
    most = getattr(view, _MOST_BYTES, MAX_BODY_BYTES)
    request.max_content_length = most
    announced = request.content_length
    if (announced or 0) > most:
        raise RequestEntityTooLarge
    try:
        read = len(request.get_data())
        if announced is None and read == most and request.environ["wsgi.input"].read(1):
            raise RequestEntityTooLarge
    except ParseException:
        raise BadRequest(MALFORMED) from None
    if read < (announced or 0):
        raise BadRequest(SHORT)


def pieces(*, most_bytes: int, within_s: float) -> Iterator[bytes] | None:
    """Return an iterator over the body as it arrives; None without a body. For views that are `left_to_view`.

    The body must arrive within `within_s` seconds. Raises PayloadTooLarge, immediately if Content-Length exceeds
    `most_bytes`. The iterator raises PayloadTooLarge or BadRequest.
    """
    announced = request.content_length
    if announced is None and "Transfer-Encoding" not in request.headers:
        return None
    if (announced or 0) > most_bytes:
        raise _too_large(most_bytes)
    client = request.environ.get("gunicorn.socket")
    if isinstance(client, ClientSocket):
        client.allow(within_s)
    return _read(request.environ["wsgi.input"], announced, most_bytes)


def _read(source: Any, announced: int | None, most_bytes: int) -> Iterator[bytes]:
    read = 0
    while announced is None or read < announced:
        wanted = PIECE_BYTES if announced is None else min(PIECE_BYTES, announced - read)
        try:
            piece = source.read(wanted)
        except ParseException:
            raise BadRequest(MALFORMED) from None
        except OSError:
            raise BadRequest("The body did not arrive.") from None
        if not piece:
            break
        read += len(piece)
        if read > most_bytes:
            raise _too_large(most_bytes)
        yield piece
    if read < (announced or 0):
        raise BadRequest(SHORT)


def _too_large(most_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"A request body may have at most {most_bytes >> 20} MiB here.")
