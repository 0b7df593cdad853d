"""Adds security headers and the request id to every response, and writes the access log."""

import logging
import time

from flask import Flask, Response, g, request

from rdservice.config.settings import Settings
from rdservice.logs.formatting import ACCESS_LOG
from rdservice.web.http.context import request_id

access_log = logging.getLogger(ACCESS_LOG)

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Loads nothing from other origins and runs only this service's own script files. A Permissions-Policy, which restricts
foreign scripts, would therefore add nothing."""
DEPENDS_ON = ("Accept", "Accept-Language", "Authorization", "Cookie")
"""The request headers on which a response depends: caller, media type and language."""
VARY = ", ".join(DEPENDS_ON)
ONE_YEAR_S = 31_536_000
KNOWN_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})


ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    # The same as frame-ancestors, for browsers that do not support it.
    "X-Frame-Options": "DENY",
    # Other sites can neither keep a reference to a window of this service nor load a response into their process.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
UNLESS_THE_VIEW_SAYS_ELSE = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    # Not no-referrer: under https, Flask-WTF checks by the Referer that a form came from this service's pages.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def always(settings: Settings) -> dict[str, str]:
    """Return the headers of every response; views cannot change them."""
    under_https = {"Strict-Transport-Security": f"max-age={ONE_YEAR_S}"} if settings.served_over_https else {}
    return ALWAYS | under_https


def init_app(app: Flask, settings: Settings) -> None:
    """Process every response of `app`. Call before registering anything else that handles requests."""
    on_every_response = always(settings)

    def secure(response: Response) -> Response:
        headers = response.headers
        for name, value in on_every_response.items():
            headers[name] = value
        for name, value in UNLESS_THE_VIEW_SAYS_ELSE.items():
            headers.setdefault(name, value)
        response.vary.update(DEPENDS_ON)
        headers["X-Request-ID"] = request_id()
        return response

    app.before_request(start)
    # Flask runs the last one registered first, so the log line is written last.
    app.after_request(write_access_log)
    app.after_request(secure)


def start() -> None:
    g.started = time.monotonic()
    request_id()


def write_access_log(response: Response) -> Response:
    """Log the request."""
    route = request.url_rule.rule if request.url_rule is not None else "(no route)"
    method = request.method if request.method in KNOWN_METHODS else "(other)"
    duration_s = time.monotonic() - g.started if "started" in g else 0.0
    log_request(method, route, response.status_code, duration_s, request_id())
    return response


def log_request(method: str, route: str, status: int, duration_s: float, request_id: str) -> None:
    """Log a request with its route, not with path and query, which contain e-mail addresses and secrets."""
    fields = {
        "method": method,
        "route": route,
        "status": status,
        "duration_ms": round(duration_s * 1000, 1),
    }
    extra = {"fields": fields, "request_id": request_id}
    access_log.info("%s %s %d %.1f ms", *fields.values(), extra=extra)
