"""Serves the two busiest reads in front of Flask when this process's memory has all that they need.

These are pages of cached leads and valid access tokens, for programs with an API key. Flask needs about five times as
much CPU for the same response: 240 µs instead of 45 µs, besides the 250 µs or so of gunicorn.

The functions of the views check, build, count and log these responses too. Every request that is not plain, not in
memory or an error goes on to Flask; nothing is changed before the response is certain. A test compares the responses of
both paths.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from flask import Flask

from rdservice.accounts.ids import check_new_account_id
from rdservice.cache.cache import NotCached
from rdservice.errors import RdServiceError
from rdservice.leads.parameters import parse_listing
from rdservice.leads.queries import list_leads
from rdservice.services import Services
from rdservice.tokens.store import DEFAULT_ACCOUNT
from rdservice.web.api.leads import has, response_headers_of
from rdservice.web.api.metrics import RequestCounts
from rdservice.web.api.tokens import given_out, parse_min_ttl
from rdservice.web.http import guard, response_headers
from rdservice.web.http.context import choose_request_id

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LEADS = "/rd/leads"
ACCESS_TOKEN = "/rd/tokens/<account_id>/access-token"  # noqa: S105 - a route
ACCESS_TOKEN_PATH = re.compile(r"/rd/tokens/([A-Za-z0-9_.-]+)/access-token")

NOT_PLAIN = frozenset(
    {
        "HTTP_COOKIE",
        "HTTP_CACHE_CONTROL",
        "HTTP_PRAGMA",
        "HTTP_TRANSFER_ENCODING",
        "HTTP_UPGRADE",
        "CONTENT_LENGTH",
    }
)
"""Must be absent: a session, a request for fresh content, a body, another protocol."""
# Stricter than Flask.
HOST = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?){0,7}"
    r"(:[1-9][0-9]{0,3}|:[1-5][0-9]{4})?"
)
# No percent-encoding, no plus sign, no empty name or value.
QUERY = re.compile(r"([a-z_]+=[A-Za-z0-9_.:-]+(&[a-z_]+=[A-Za-z0-9_.:-]+)*)?")


class Read(NamedTuple):
    """A response: its route, status, specific headers and body."""

    route: str
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class FastReads:
    """The WSGI application in front of Flask's, `flask_app`."""

    def __init__(
        self, app: Flask, services: Services, counts: RequestCounts, flask_app: WSGIApplication
    ) -> None:
        self.flask_app = flask_app
        self._services = services
        self._counts = counts
        self._may_read_leads = guard.key_check(app, "leads.list_leads")
        self._may_read_tokens = guard.key_check(app, "tokens.access_token")
        self._believes_proxies = services.settings.trusted_proxies > 0
        self._on_every_response = [
            *response_headers.always(services.settings).items(),
            ("Vary", response_headers.VARY),
        ]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        started = time.monotonic()
        try:
            read = self._read(environ)
        except (NotCached, RdServiceError):
            # Flask reports the error.
            read = None
        if read is None:
            return self.flask_app(environ, start_response)
        given_id = environ.get("HTTP_X_REQUEST_ID", "")
        request_id = choose_request_id(given_id, believe=self._believes_proxies)
        headers = [*read.headers, *self._on_every_response, ("X-Request-ID", request_id)]
        named = {name for name, _ in read.headers}
        headers += [
            (name, value)
            for name, value in response_headers.UNLESS_THE_VIEW_SAYS_ELSE.items()
            if name not in named
        ]
        duration_s = time.monotonic() - started
        self._counts.count("GET", read.route, read.status, duration_s)
        response_headers.log_request("GET", read.route, read.status, duration_s, request_id)
        start_response("200 OK" if read.status == 200 else "304 NOT MODIFIED", headers)
        return [read.body]

    def _read(self, environ: WSGIEnvironment) -> Read | None:
        """Return the response. When Flask must respond, return None or raise NotCached or an RdServiceError."""
        path, authorization = environ.get("PATH_INFO", ""), environ.get("HTTP_AUTHORIZATION")
        if environ["REQUEST_METHOD"] != "GET" or authorization is None:
            return None
        account = None if path == LEADS else ACCESS_TOKEN_PATH.fullmatch(path)
        if (path != LEADS and account is None) or environ.get("SCRIPT_NAME"):
            return None
        if not NOT_PLAIN.isdisjoint(environ):
            return None
        given = _parameters(environ.get("QUERY_STRING", ""))
        if given is None or not HOST.fullmatch(environ.get("HTTP_HOST", "")):
            return None
        if account is None:
            if not self._may_read_leads(authorization):
                return None
            return self._leads(given, environ.get("HTTP_IF_NONE_MATCH"))
        return self._access_token(account[1], given) if self._may_read_tokens(authorization) else None

    def _leads(self, given: dict[str, str], if_none_match: str | None) -> Read:
        listing = parse_listing(given.get("page"), given.get("page_size"), given.get("order"))
        account_id = check_new_account_id(given.get("account_id", DEFAULT_ACCOUNT))
        served = list_leads(
            self._services, account_id, given.get("segmentation"), listing, only_if_cached=True
        )
        self._services.metrics.leads_served(served.state)
        headers = response_headers_of(served)
        if has(if_none_match, served.content.etag):
            return Read(LEADS, 304, headers, b"")
        return Read(LEADS, 200, headers + _about(served.content.body), served.content.body)

    def _access_token(self, account_id: str, given: dict[str, str]) -> Read | None:
        if "account_id" in given:
            return None
        min_ttl_s = parse_min_ttl(given.get("min_ttl"))
        token = self._services.access_tokens.usable_if_cached(
            check_new_account_id(account_id), min_ttl_s=min_ttl_s
        )
        if token is None:
            return None
        body = given_out(token)
        return Read(ACCESS_TOKEN, 200, _about(body), body)


def init_app(app: Flask, services: Services, counts: RequestCounts) -> None:
    """Put the fast reads in front of `app`. Call after its views are registered."""
    app.wsgi_app = FastReads(app, services, counts, app.wsgi_app)  # type: ignore[method-assign]


def _parameters(query: str) -> dict[str, str] | None:
    """Return the parameters of a plain query without duplicates; None for any other query."""
    if not query:
        return {}
    if not QUERY.fullmatch(query):
        return None
    pairs = [pair.split("=", 1) for pair in query.split("&")]
    given = dict(pairs)
    return given if len(given) == len(pairs) else None


def _about(body: bytes) -> list[tuple[str, str]]:
    return [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
