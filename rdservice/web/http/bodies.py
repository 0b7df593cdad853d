"""How the bodies of requests are read: whole before the view sees them, or by a view that says so, piece by piece."""

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
"""Of every request for whose view nothing else is said."""
PIECE_BYTES = 64 * 1024
_MOST_BYTES = "rdservice_most_bytes"
_LEFT_TO_VIEW = "rdservice_reads_body"

SHORT = "The body is shorter than its Content-Length."
MALFORMED = "The body's chunks are malformed."


def takes(most_bytes: int) -> Callable[[View], View]:
    """Let the view's requests have bodies of up to so many bytes."""

    def declare(view: View) -> View:
        setattr(view, _MOST_BYTES, most_bytes)
        return view

    return declare


def left_to_view(view: View) -> View:
    """Leave the body to the view, which takes it with `pieces`. A session's CSRF token must then come in a header."""
    setattr(view, _LEFT_TO_VIEW, True)
    return view


def read_body() -> None:
    """Read the whole body, where views then find it, or refuse one that is too large, incomplete or malformed.

    Werkzeug by itself takes a body that ends early for a complete one, and the beginning of a longer one for all.
    """
    view = current_app.view_functions.get(request.endpoint or "")
    if hasattr(view, _LEFT_TO_VIEW):
        # Whoever looks for form fields finds none, and leaves the body where it is.
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
    """Return the body as it arrives, None for a request without one. For views that are `left_to_view`.

    Raises PayloadTooLarge at once, or while it is read, and BadRequest then.
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
    return PayloadTooLarge(f"A request's body may have {most_bytes >> 20} MiB at most here.")
