"""Who may call which route with which method, and what all others get: the specification of access.

ROUTES (tests/support/route_table.py) lists every route and method with those who may call it, and with the response
that they get from an empty database. CALLERS says what each kind of caller gets at each kind of route. Every
combination is one request. A new route is one line in ROUTES; a new scope is one word in SCOPES; a new kind of caller
is one line in CALLERS and one method below.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from flask import Flask, session
from flask.testing import FlaskClient
from flask_wtf.csrf import generate_csrf
from werkzeug.test import TestResponse

from rdservice.access import keys, operators, sessions
from rdservice.web.http import browser_session
from tests.conftest import REDIRECT_URI
from tests.integration.web.conftest import EMAIL, PASSWORD
from tests.support.browser import HTML
from tests.support.route_table import SAFE, SCOPES, Route, routes

CALLERS = """
caller                                  anyone operator             scope                form visitor
                                        all    GET   HEAD  unsafe  GET   HEAD  unsafe   POST any
nobody                                  in     401   401   401     401   401   401      csrf in
nobody in a browser                     in     login 401   401     login 401   401      csrf in
malformed key                           in     401   401   401     401   401   401      csrf in
unknown key                             in     401   401   401     401   401   401      csrf in
key with a wrong secret                 in     401   401   401     401   401   401      csrf in
revoked key                             in     401   401   401     401   401   401      csrf in
empty Authorization, live session       in     401   401   401     401   401   401      in   on
unknown key, live session               in     401   401   401     401   401   401      in   on
key with the scope                      in     scope scope scope   in    in    in       csrf in
key with another scope                  in     scope scope scope   scope scope scope    csrf in
key with all scopes                     in     scope scope scope   in    in    in       csrf in
key with another scope, live session    in     scope scope scope   scope scope scope    in   on
key with all scopes, live session       in     scope scope scope   in    in    in       in   on
operator                                in     in    in    in      in    in    in       in   on
operator in a browser                   in     in    in    in      in    in    in       in   on
operator without CSRF token             in     in    in    csrf    in    in    csrf     csrf on
operator, CSRF token of another session in     in    in    csrf    in    in    csrf     csrf on
operator, method overridden by a header in     in    in    csrf    in    in    csrf     csrf on
another site's page, SameSite=Lax kept  in     in    in    401     in    in    401      csrf on
another site's page with all cookies    in     in    in    csrf    in    in    csrf     csrf on
another site's page with a CSRF token   in     in    in    csrf    in    in    csrf     csrf on
a sibling site's page with a CSRF token in     in    in    csrf    in    in    csrf     csrf on
ended session                           in     401   401   401     401   401   401      in   in
ended session in a browser              in     login 401   401     login 401   401      in   in
cookie signed with another secret       in     401   401   401     401   401   401      csrf in
"""
"""`in`: as ROUTES says; `login`: 302 to the login page; `scope` and `csrf`: 403 with that code; `on`: 302, as after a
login."""

REFUSALS = {
    "401": (401, "unauthorized"),
    "login": (302, None),
    "on": (302, None),
    "scope": (403, "insufficient_scope"),
    "csrf": (403, "csrf_failed"),
}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PURGE"]

PROGRAM = {"Accept": "*/*"}
BROWSER = {"Accept": HTML}
JSON = {"Accept": "application/json"}
CROSS_SITE = {
    "Origin": "https://evil.example",
    "Referer": "https://evil.example/page",
    "Sec-Fetch-Site": "cross-site",
}
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/rd/tokens"): {"json": {}},
    ("POST", "/rd/leads/lookup"): {"json": {"email": "nobody@example.com"}},
    ("POST", "/rd/privacy/erase"): {"json": {}},
    ("POST", "/keys"): {"data": {"name": "a program", "scopes": "leads:read"}},
    # From the password to itself: nobody else's log-in fails by it.
    ("POST", "/password"): {
        "data": dict.fromkeys(("current_password", "new_password", "new_password_again"), PASSWORD)
    },
    ("POST", "/login"): {"data": {"email": EMAIL, "password": PASSWORD}},
}


def callers() -> dict[str, dict[str, str]]:
    """Return the cells of CALLERS by caller and column."""
    lines = CALLERS.strip().splitlines()
    columns = [
        "anyone",
        *(f"{who} {kind}" for who in ("operator", "scope") for kind in ("GET", "HEAD", "unsafe")),
    ]
    columns += ["form", "visitor"]
    table = {}
    for line in lines[2:]:
        name, cells = line[:40].strip(), line[40:].split()
        table[name] = dict(zip(columns, cells, strict=True))
    return table


def test_every_route_and_method_has_a_line(app: Flask) -> None:
    offered = {(method, rule.rule) for rule in app.url_map.iter_rules() for method in rule.methods or ()}
    listed = [(route.method, route.rule) for route in routes()]
    assert len(listed) == len(set(listed))
    assert set(listed) == offered


def test_every_scope_is_known_here_and_guards_what_the_routes_say(app: Flask) -> None:
    assert list(keys.SCOPES) == SCOPES
    assert {route.who for route in routes()} <= {"anyone", "operator", "form", "visitor", *SCOPES}


@dataclass(frozen=True, slots=True)
class Login:
    """A session's cookie and CSRF token."""

    cookie: str
    csrf_token: str


class Callers:
    """Sends requests as each kind of caller. Each comes from an address of its own, so that no limit is ever spent."""

    def __init__(
        self,
        app: Flask,
        conn: psycopg.Connection[Any],
        make_key: Callable[..., str],
    ) -> None:
        self._app = app
        self._conn = conn
        self._addresses = itertools.count(0x0A000001)
        self._keys = {scope: make_key(scope) for scope in SCOPES}
        self._full_key = make_key(*SCOPES)
        self._revoked_key = make_key(*SCOPES)
        assert keys.revoke(conn, self._revoked_key[4:12])

    def responses(self, caller: str, route: Route) -> Iterator[tuple[str, TestResponse]]:
        """Yield the responses to this kind of caller, each with what is particular about it."""
        kind, with_session = caller.removesuffix(", live session"), caller.endswith(", live session")
        if "key" in kind or kind == "empty Authorization":
            for name, header in self._authorizations(kind, route):
                login = self._log_in() if with_session else None
                headers = PROGRAM | {"Authorization": header}
                # The two forms look at no key: there the session counts, with its token.
                csrf_token = login.csrf_token if login and route.who == "form" else None
                yield f"{caller} {name}", self._send(route, headers, login, csrf_token)
        else:
            yield caller, self._send(route, *self._in_a_browser(caller, route))

    def _in_a_browser(self, caller: str, route: Route) -> tuple[dict[str, str], Login | None, str | None]:
        """Return the headers, the session and the CSRF token that such a caller sends."""
        live = self._log_in()
        own, lax = live.csrf_token, live if route.method in SAFE else None
        if caller.startswith("ended"):
            self._end(live)
        same_site = {"Sec-Fetch-Site": "same-site", "Origin": "https://other.localhost"}
        return {
            "nobody": (JSON, None, None),
            "nobody in a browser": (BROWSER, None, None),
            "operator": (JSON, live, own),
            "operator in a browser": (BROWSER | {"Sec-Fetch-Site": "same-origin"}, live, own),
            "operator without CSRF token": (JSON, live, None),
            "operator, CSRF token of another session": (JSON, live, self._log_in().csrf_token),
            "operator, method overridden by a header": (JSON | self._override(route), live, None),
            "another site's page, SameSite=Lax kept": (JSON | CROSS_SITE, lax, None),
            "another site's page with all cookies": (JSON | CROSS_SITE, live, None),
            "another site's page with a CSRF token": (JSON | CROSS_SITE, live, own),
            "a sibling site's page with a CSRF token": (JSON | same_site, live, own),
            "ended session": (JSON, live, own),
            "ended session in a browser": (BROWSER, live, own),
            "cookie signed with another secret": (JSON, self._forge(live), own),
        }[caller]

    def _authorizations(self, kind: str, route: Route) -> Iterator[tuple[str, str]]:
        """Yield the `Authorization` headers of this kind, each with its name."""
        unknown = f"rdk_aaaaaaaa_{'A' * 43}"
        malformed = [
            "",
            "Bearer",
            "Bearer nonsense",
            f"Basic {self._full_key}",
            self._full_key,
            "Bearer ключ",
        ]
        own = route.who if route.who in SCOPES else None
        if kind == "key with the scope":
            # Where no scope is asked for, each of them.
            yield from ((scope, f"Bearer {self._keys[scope]}") for scope in SCOPES if own in (scope, None))
        elif kind == "key with another scope":
            yield from ((scope, f"bearer {self._keys[scope]}") for scope in SCOPES if scope != own)
        elif kind == "malformed key":
            yield from ((repr(header[:12]), header) for header in malformed)
        else:
            yield (
                "",
                {
                    "empty Authorization": "",
                    "unknown key": f"Bearer {unknown}",
                    "key with a wrong secret": f"Bearer {self._full_key[:-4]}AAAA",
                    "revoked key": f"Bearer {self._revoked_key}",
                    "key with all scopes": f"Bearer {self._full_key}",
                }[kind],
            )

    @staticmethod
    def _override(route: Route) -> dict[str, str]:
        other = "DELETE" if route.method != "DELETE" else "GET"
        names = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")
        return dict.fromkeys(names, other)

    def _log_in(self) -> Login:
        credentials = operators.find_credentials(self._conn, EMAIL)
        assert credentials is not None
        token = sessions.start(self._conn, credentials.operator_id, verified_hash=credentials.password_hash)
        assert token is not None
        with self._app.test_request_context():
            browser_session.begin(token)
            csrf_token = generate_csrf()
            return Login(self._sign(dict(session)), csrf_token)

    def _end(self, login: Login) -> None:
        sessions.end(self._conn, self._unsign(login)["_user_id"])

    def _forge(self, login: Login) -> Login:
        other = Flask("another")
        other.secret_key = "another secret key, of 32 letters"
        serializer = other.session_interface.get_signing_serializer(other)  # type: ignore[attr-defined]
        return Login(serializer.dumps(self._unsign(login)), login.csrf_token)

    def _sign(self, values: dict[str, Any]) -> str:
        serializer = self._app.session_interface.get_signing_serializer(self._app)  # type: ignore[attr-defined]
        return str(serializer.dumps(values))

    def _unsign(self, login: Login) -> dict[str, Any]:
        serializer = self._app.session_interface.get_signing_serializer(self._app)  # type: ignore[attr-defined]
        values: dict[str, Any] = serializer.loads(login.cookie)
        return values

    def _send(
        self, route: Route, headers: dict[str, str], login: Login | None, csrf_token: str | None
    ) -> TestResponse:
        if login is not None:
            headers = headers | {"Cookie": f"{self._app.config['SESSION_COOKIE_NAME']}={login.cookie}"}
        if csrf_token is not None:
            headers = headers | {"X-CSRFToken": csrf_token}
        address = ".".join(str(byte) for byte in next(self._addresses).to_bytes(4, "big"))
        client: FlaskClient = self._app.test_client(use_cookies=False)
        return client.open(
            route.path,
            method=route.method,
            base_url=REDIRECT_URI.removesuffix("/rd/callback"),
            headers=headers,
            environ_overrides={"REMOTE_ADDR": address},
            buffered=True,
            **BODIES.get((route.method, route.rule), {}),
        )


@pytest.fixture
def everyone(
    app: Flask, conn: psycopg.Connection[Any], operator: operators.Operator, make_key: Callable[..., str]
) -> Callers:
    return Callers(app, conn, make_key)


def told(response: TestResponse, method: str, code: str | None) -> str:
    """Return the status with the error code; HEAD has no body that could tell it, and pages tell it in words."""
    if response.status_code == 302 and urlsplit(response.location or "").path == "/login":
        return "302 login"
    if method == "HEAD" or response.status_code < 400:
        return f"{response.status_code}"
    if response.mimetype == "text/html":
        return f"{response.status_code} {code if code and f', {code}.' in response.text else 'another code'}"
    return f"{response.status_code} {(response.json or {}).get('code')}"


def expected(cell: str, route: Route) -> tuple[str, str | None]:
    status, code = (route.status, route.code) if cell == "in" else REFUSALS[cell]
    if cell == "login":
        return "302 login", None
    return (f"{status}" if route.method == "HEAD" or code is None else f"{status} {code}"), code


@pytest.mark.parametrize("caller", callers())
def test_each_caller_gets_at_every_route_exactly_what_the_tables_say(caller: str, everyone: Callers) -> None:
    differences = []
    for route in routes():
        cell = callers()[caller][route.column]
        want, code = expected(cell, route)
        for name, response in everyone.responses(caller, route):
            got = told(response, route.method, code)
            if got != want:
                differences.append(f"{route.method} {route.rule} by {name}: {got}, not {want}")
    assert differences == []


def test_methods_that_a_route_does_not_have_are_refused_to_everyone_alike(
    app: Flask, everyone: Callers
) -> None:
    paths = {route.path for route in routes()}
    adapter = app.url_map.bind("localhost")
    differences = []
    for path, method in itertools.product(paths, METHODS):
        # Not by rule: /rd/leads/lookup is also a /rd/leads/<lead_name:uuid>.
        if method in adapter.allowed_methods(path):
            continue
        route = Route(method, path, "anyone", 405, "method_not_allowed")
        for caller in ("nobody", "unknown key", "key with all scopes", "operator"):
            for name, response in everyone.responses(caller, route):
                got = told(response, method, route.code)
                if got != expected("in", route)[0]:
                    differences.append(f"{method} {path} by {name}: {got}")
    assert differences == []


def test_addresses_without_a_route_are_not_found_by_everyone_alike(everyone: Callers) -> None:
    for path in ("/nowhere", "/rd", "/rd/", "/rd/tokens/", "/rd//tokens", "/RD/tokens", "/rd/tokens/a/b/c"):
        for caller in callers():
            for name, response in everyone.responses(caller, Route("GET", path, "anyone", 404, "not_found")):
                assert told(response, "GET", "not_found") == "404 not_found", (path, name)
