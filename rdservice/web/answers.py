"""What every answer gets: security headers, the request's id, and one line in the access log."""

import logging
import time

from flask import Flask, Response, g, request

from rdservice.settings import Settings
from rdservice.web.context import request_id

access_log = logging.getLogger("rdservice.access")

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing comes from elsewhere, and of scripts only our own files run: no foreign one whom a Permissions-Policy could
hold back."""
DEPENDS_ON = ("Accept", "Accept-Language", "Authorization", "Cookie")
"""The request headers that decide on an answer: who asks, and whether for a page, and in which language."""
ONE_YEAR_S = 31_536_000
KNOWN_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})


def init_app(app: Flask, settings: Settings) -> None:
    """Prepare every answer of `app`. Call before anything else that looks at requests."""

    def secure(response: Response) -> Response:
        headers = response.headers
        headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        headers["X-Content-Type-Options"] = "nosniff"
        # Says what frame-ancestors says, to browsers that do not know it.
        headers["X-Frame-Options"] = "DENY"
        # Other sites neither keep a handle on a window of ours nor load an answer into their own process.
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        # Not no-referrer: Flask-WTF wants to see under https that a form came from our own pages.
        headers.setdefault("Referrer-Policy", "same-origin")
        if settings.served_over_https:
            headers["Strict-Transport-Security"] = f"max-age={ONE_YEAR_S}"
        headers.setdefault("Cache-Control", "no-store")
        response.vary.update(DEPENDS_ON)
        headers["X-Request-ID"] = request_id()
        return response

    app.before_request(start)
    # The last one registered runs first: the log line comes after all else.
    app.after_request(write_access_log)
    app.after_request(secure)


def start() -> None:
    g.started = time.monotonic()
    request_id()


def write_access_log(response: Response) -> Response:
    """Log the request by its route. Paths and queries hold e-mail addresses and secrets; they are never logged."""
    route = request.url_rule.rule if request.url_rule is not None else "(no route)"
    method = request.method if request.method in KNOWN_METHODS else "(other)"
    duration_ms = round((time.monotonic() - g.started) * 1000, 1) if "started" in g else 0.0
    fields = {"method": method, "route": route, "status": response.status_code, "duration_ms": duration_ms}
    access_log.info("%s %s %d %.1f ms", *fields.values(), extra={"fields": fields})
    return response
