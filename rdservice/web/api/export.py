"""Streams all leads of a segmentation, for as long as the client reads."""

import errno
import logging
import threading
import time
from collections.abc import Iterator
from typing import cast

from flask import Blueprint, Flask, Response, current_app, request
from flask.typing import ResponseReturnValue

from rdservice import errors
from rdservice.errors import RdServiceError
from rdservice.leads.export.formats import Format
from rdservice.leads.export.run import Export, Pause, Wanted, parse_after
from rdservice.web.http import guard, long_responses
from rdservice.web.http.accounts import requested_account
from rdservice.web.http.context import query_text, services
from rdservice.web.http.long_responses import LongResponse

log = logging.getLogger(__name__)

bp = Blueprint("export", __name__)

AT_ONCE = 4
"""Concurrent exports per process. Each occupies a thread, and more would only share the same budget."""
PLACES = "rdservice_export_places"
RETRY_S = 30.0
START_TIMEOUT_S = 20.0
"""How long an export may wait before its first byte: routers give up after 30 seconds."""
LOOK_S = 0.5
"""How often a waiting export checks whether its client is still connected."""
MEDIA_TYPES: dict[str, Format] = {"application/x-ndjson": "ndjson", "text/csv": "csv"}


class _Unwanted(Exception):
    """The client has disconnected or has lost the right to the export, or this process is stopping."""


def init_app(app: Flask) -> None:
    """Prepare `app` for the route of `bp`."""
    app.extensions[PLACES] = threading.BoundedSemaphore(AT_ONCE)


@bp.get("/rd/leads/export")
@guard.requires("leads:read")
def export_leads() -> ResponseReturnValue:
    """Stream all leads of a segmentation. Errors before the first lead are problem documents."""
    wanted = _wanted()
    places = cast(threading.BoundedSemaphore, current_app.extensions[PLACES])
    if not places.acquire(blocking=False):
        raise errors.TooManyRequests(
            f"{AT_ONCE} exports are already running in this process. Wait for the time in Retry-After.",
            retry_after_s=RETRY_S,
        )
    under_way = long_responses.begin()
    try:
        export = Export(
            services(), wanted, pause=_pause_in(under_way), timeout_s=START_TIMEOUT_S, by=guard.author()
        )
    except BaseException as error:
        under_way.close()
        places.release()
        if isinstance(error, _Unwanted):
            raise _cut_off() from None
        raise
    response = Response(_body(export, with_head=wanted.after is None), content_type=export.lines.content_type)
    # Called after the last byte, and also when the client disconnects before the first.
    response.call_on_close(export.close)
    response.call_on_close(under_way.close)
    response.call_on_close(places.release)
    response.headers["Content-Disposition"] = f"attachment; filename=leads.{wanted.format}"
    # A proxy that buffers the response would hide a slow or disconnected client.
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _wanted() -> Wanted:
    after = query_text("after")
    return Wanted(
        account_id=requested_account(),
        segmentation=query_text("segmentation"),
        format=_format(query_text("format")),
        full=_full(query_text("full")),
        after=None if after is None else parse_after(after),
    )


def _format(name: str | None) -> Format:
    if name is None:
        return MEDIA_TYPES[request.accept_mimetypes.best_match(MEDIA_TYPES, default="application/x-ndjson")]
    if name not in ("ndjson", "csv"):
        raise errors.InvalidField("format must be ndjson or csv.", extra={"field": "format"})
    return cast(Format, name)


def _full(text: str | None) -> bool:
    if text not in (None, "true", "false"):
        raise errors.InvalidField("full must be true or false.", extra={"field": "full"})
    return text == "true"


def _pause_in(under_way: LongResponse) -> Pause:
    """Return a pause that raises _Unwanted soon after the response must end."""

    def pause(seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while under_way.may_go_on():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(left_s, LOOK_S))
        raise _Unwanted

    return pause


def _body(export: Export, *, with_head: bool) -> Iterator[bytes]:
    """Yield the response body. On failure, cut the connection, so that the client notices the incomplete body."""
    try:
        if with_head:
            yield export.lines.head()
        for batch in export.batches():
            yield export.lines.lines(batch)
    except _Unwanted:
        log.info(
            "an export stopped early: its client may not or does not read on, or this process is stopping"
        )
        raise _cut_off() from None
    except RdServiceError as error:
        log.warning("an export was cut off: %s", error.code)
        raise _cut_off() from error


def _cut_off() -> OSError:
    """Return an error that makes the server close the connection without the last chunk (RFC 9112 7.1)."""
    return BrokenPipeError(errno.EPIPE, "the export cannot go on")
