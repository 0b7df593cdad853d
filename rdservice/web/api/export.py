"""All leads of a segmentation over HTTP, for as long as the caller reads them."""

import errno
import logging
import threading
import time
from collections.abc import Iterator
from typing import cast

from flask import Blueprint, Flask, Response, current_app, request
from flask.typing import ResponseReturnValue

from rdservice import errors
from rdservice.accounts.ids import check_account_id
from rdservice.errors import RdServiceError
from rdservice.leads.export.formats import Format
from rdservice.leads.export.run import Export, Pause, Wanted, parse_after
from rdservice.tokens.store import DEFAULT_ACCOUNT
from rdservice.web.http import guard
from rdservice.web.http.context import query_text, services

log = logging.getLogger(__name__)

bp = Blueprint("export", __name__)

AT_ONCE = 4
"""Exports of one process: each holds a thread, and more of them would only share the same budget."""
PLACES = "rdservice_export_places"
RETRY_S = 30.0
PATIENCE_S = 20.0
"""How long an export waits until it begins: routers wait 30 seconds for the first byte."""
LOOK_S = 0.5
"""How often an export that waits looks whether its caller is still there."""
MEDIA_TYPES: dict[str, Format] = {"application/x-ndjson": "ndjson", "text/csv": "csv"}


class _ClientDisconnected(Exception):
    """The caller has gone, or this process must end."""


def init_app(app: Flask) -> None:
    """Prepare `app` for the route of `bp`."""
    app.extensions[PLACES] = threading.BoundedSemaphore(AT_ONCE)


@bp.get("/rd/leads/export")
@guard.requires("leads:read")
def export_leads() -> ResponseReturnValue:
    """Stream all leads of a segmentation. Errors before the first of them are problem documents."""
    wanted = _wanted()
    places = cast(threading.BoundedSemaphore, current_app.extensions[PLACES])
    if not places.acquire(blocking=False):
        raise errors.TooManyRequests(
            f"{AT_ONCE} exports already run in this process. Wait as long as Retry-After says.",
            retry_after_s=RETRY_S,
        )
    try:
        export = Export(
            services(), wanted, pause=_pause_while_wanted(), timeout_s=PATIENCE_S, by=guard.author()
        )
    except _ClientDisconnected:
        places.release()
        raise _cut_off() from None
    except BaseException:
        places.release()
        raise
    response = Response(_body(export, with_head=wanted.after is None), content_type=export.lines.content_type)
    # Called when the last byte was sent, and also when the caller goes before the first.
    response.call_on_close(export.close)
    response.call_on_close(places.release)
    response.headers["Content-Disposition"] = f"attachment; filename=leads.{wanted.format}"
    # Proxies that collect an answer would hide from us that its reader is slow, or gone.
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _wanted() -> Wanted:
    given, after = query_text("account_id"), query_text("after")
    return Wanted(
        account_id=DEFAULT_ACCOUNT if given is None else check_account_id(given),
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


def _pause_while_wanted() -> Pause:
    """Return a pause that ends with _NobodyWaits soon after the caller of this request has gone."""
    # Other servers than our gunicorn do not say; there the next write finds out.
    may_go_on = getattr(request.environ.get("gunicorn.socket"), "may_go_on", lambda: True)

    def pause(seconds: float) -> None:
        until = time.monotonic() + seconds
        while may_go_on():
            left_s = until - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(left_s, LOOK_S))
        raise _ClientDisconnected

    return pause


def _body(export: Export, *, with_head: bool) -> Iterator[bytes]:
    """Yield the answer. When it cannot go on the connection is cut, so that nobody takes a part for the whole."""
    try:
        if with_head:
            yield export.lines.head()
        for batch in export.batches():
            yield export.lines.lines(batch)
    except _ClientDisconnected:
        log.info("an export ended before its end: nobody waits for it, or this process must end")
        raise _cut_off() from None
    except RdServiceError as error:
        log.warning("an export was cut off: %s", error.code)
        raise _cut_off() from error


def _cut_off() -> OSError:
    """Return what makes the server close the connection without the chunk that ends an answer (RFC 9112 7.1)."""
    return BrokenPipeError(errno.EPIPE, "the export cannot go on")
