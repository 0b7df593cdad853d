"""The headers of every response: what browsers may do with it, and which caches may store it."""

from collections.abc import Callable

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from rdservice.config.settings import Settings
from rdservice.services import Services
from rdservice.web import create_app
from tests.support.browser import Browser
from tests.support.route_table import SAFE, Route, routes

POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "connect-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
}
FIXED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
CACHED = {"/static/<path:filename>": "no-cache, max-age=0"}
"""The only routes whose responses any cache may store. Only the client may store leads: see test_leads.py."""
FOREIGN = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
MakeServices = Callable[[Settings], Services]


def responses(browser: Browser, route: Route) -> list[TestResponse]:
    csrf_token = {"X-CSRFToken": browser.csrf_token("/connect")} if route.method not in SAFE else {}
    return [
        browser.open(route.method, route.path, FOREIGN | csrf_token),
        browser.open(route.method, route.path, FOREIGN | csrf_token | {"Accept": "application/json"}),
        Browser(browser.client.application).open(route.method, route.path, FOREIGN),
        Browser(browser.client.application, accept="*/*").open(route.method, route.path, FOREIGN),
        browser.open("PURGE", route.path, FOREIGN),
        browser.get(f"/nowhere{route.path}", FOREIGN),
    ]


@pytest.mark.parametrize(
    "route",
    [route for route in routes() if route.rule != "/logout"],
    ids=lambda route: f"{route.method} {route.rule}",
)
def test_every_answer_says_what_browsers_must_not_do_with_it(signed_in: Browser, route: Route) -> None:
    for response in responses(signed_in, route):
        headers = response.headers
        assert set(headers["Content-Security-Policy"].split("; ")) == POLICY
        assert {name: headers[name] for name in FIXED} == FIXED
        assert {"Accept", "Accept-Language", "Authorization", "Cookie"} <= set(headers["Vary"].split(", "))
        assert headers["Referrer-Policy"] in ("same-origin", "no-referrer")
        cached = (
            CACHED.get(route.rule)
            if response.status_code in (200, 304) and route.method in SAFE - {"OPTIONS"}
            else None
        )
        assert headers["Cache-Control"] == (cached or "no-store")
        assert not [name for name, _ in headers if name.startswith("Access-Control")]
        # The scheme is http here; without TLS no browser would heed it.
        assert "Strict-Transport-Security" not in headers
        for name in ("Server", "X-Powered-By"):
            assert name not in headers


def test_under_https_browsers_are_told_to_stay_there(
    variables: dict[str, str], make_services: MakeServices
) -> None:
    public = variables | {"RDSTATION_REDIRECT_URI": "https://app.example.com/rd/callback"}
    app = create_app(make_services(Settings.from_mapping(public)))
    for path in ("/healthz", "/login", "/", "/nowhere", "/static/site.css"):
        response = Browser(app).get(path)
        assert response.headers["Strict-Transport-Security"] == "max-age=31536000"


def test_an_error_of_the_service_has_the_headers_too(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(token: str | None) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("rdservice.web.api.metrics.check_reader", break_down)
    response = Browser(app).get("/metrics")
    assert response.status_code == 500
    assert set(response.headers["Content-Security-Policy"].split("; ")) == POLICY
    assert response.headers["Cache-Control"] == "no-store"


def test_pages_hold_no_script_no_style_and_no_handler_inside_and_no_session_id(signed_in: Browser) -> None:
    cookie = signed_in.client.get_cookie("rdservice_session_8000")
    assert cookie is not None
    for browser, path in (
        (signed_in, "/"),
        (signed_in, "/connect?account_id=a"),
        (signed_in, "/nowhere"),
        (signed_in, "/rd/callback"),
        (Browser(signed_in.client.application), "/login?next=/"),
    ):
        page = browser.get(path).text
        for forbidden in (
            "<script>",
            "<style",
            " style=",
            "javascript:",
            " on",
            "<iframe",
            "http://",
            "https://",
        ):
            if forbidden == " on":
                assert not any(
                    f" on{event}=" in page for event in ("click", "load", "error", "submit", "focus")
                )
            else:
                assert forbidden not in page.lower(), path
        assert cookie.value not in page
        assert cookie.value.split(".")[0] not in page
