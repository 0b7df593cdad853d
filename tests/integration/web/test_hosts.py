"""Hosts and forwarded headers are the client's word: nothing is built from them that leads anywhere."""

import itertools
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from rdservice.config.settings import Settings
from rdservice.services import Services
from rdservice.web import create_app
from rdservice.web.http.browser_session import cookie_name
from tests.conftest import REDIRECT_URI
from tests.integration.web.conftest import EMAIL, PASSWORD
from tests.support.browser import Browser

ORIGIN = REDIRECT_URI.removesuffix("/rd/callback")
HOSTS = [
    "evil.example",
    "evil.example:8000",
    "localhost:8000@evil.example",
    "evil.example#localhost:8000",
    "user:password@localhost:8000",
    "localhost:8000, evil.example",
    "localhost:8000:8000",
    "localhost:99999999",
    "localhost:",
    "localhost:8000.",
    "[::1",
    "évil.example",
    "evil.example/a",
    "",
]
NO_HOSTS = ["x" * 3000, "a..b", "."]
FORWARDED = {
    "Forwarded": 'for=203.0.113.9;host="evil.example";proto=https',
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Server": "evil.example",
    "X-Forwarded-Port": "6666",
    "X-Forwarded-Prefix": "/evil",
    "X-Original-Host": "evil.example",
    "X-Original-URL": "/rd/evil",
    "X-Rewrite-URL": "/rd/evil",
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
}
MakeServices = Callable[[Settings], Services]


def ask(app: Flask, path: str, cookie: str, *, host: str | None = None, **headers: str) -> TestResponse:
    """Ask as an operator's browser does; `host` None: at the redirect URI's host."""
    return app.test_client(use_cookies=False).get(
        path,
        headers={"Accept": "text/html", "Cookie": cookie, **headers},
        environ_overrides={"HTTP_HOST": "localhost:8000" if host is None else host},
    )


@pytest.fixture
def cookie(signed_in: Browser, settings: Settings) -> str:
    found = signed_in.client.get_cookie(cookie_name(settings))
    assert found is not None
    return f"{found.key}={found.value}"


def everything_in(response: TestResponse) -> str:
    return f"{response.headers}\n{response.text}"


@pytest.mark.parametrize("host", HOSTS)
def test_no_link_cookie_or_redirect_is_built_from_the_host(app: Flask, cookie: str, host: str) -> None:
    for path in (
        "/",
        "/connect",
        "/login",
        "/rd/login",
        "/rd/callback",
        "/nowhere",
        "/rd/tokens/x/access-token",
    ):
        response = ask(app, path, cookie, host=host)
        assert response.status_code < 500
        assert "evil" not in everything_in(response), path
        assert "Domain" not in response.headers.get("Set-Cookie", "")
        location = response.location or "/"
        assert location.startswith(("/", f"{ORIGIN}/rd/login?")), (path, location)
    moved = ask(app, "/rd/login?account_id=acme", cookie, host=host)
    assert (moved.status_code, moved.location) == (302, f"{ORIGIN}/rd/login?account_id=acme&moved=1")
    told = ask(app, "/rd/tokens/acme/access-token", cookie, host=host, Accept="application/json")
    assert told.json is not None
    assert told.json["reauthorize_url"] == f"{ORIGIN}/rd/login?account_id=acme"


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
@pytest.mark.parametrize("host", NO_HOSTS)
def test_what_names_no_host_is_a_malformed_request(app: Flask, host: str, accept: str) -> None:
    for path in ("/", "/healthz", "/nowhere"):
        response = ask(app, path, "", host=host, Accept=accept)
        assert response.status_code == 400
        assert response.json is not None
        assert response.json["code"] == "bad_request"
        assert response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("trusted", ["0", "1", "2"])
def test_forged_forwarded_headers_change_neither_host_nor_port_nor_path(
    variables: dict[str, str], make_services: MakeServices, cookie: str, trusted: str
) -> None:
    app = create_app(make_services(Settings.from_mapping(variables | {"TRUSTED_PROXIES": trusted})))
    for names in ([], *([name] for name in FORWARDED), list(FORWARDED)):
        for times in (1, 2, 3):
            forged = {name: ", ".join([FORWARDED[name]] * times) for name in names}
            for path in ("/", "/connect", "/rd/login", "/login", "/nowhere"):
                response = ask(app, path, cookie, **forged)
                assert "evil" not in everything_in(response), (path, forged)
                assert ":6666" not in everything_in(response)
                assert response.status_code == {"/login": 302, "/rd/login": 302, "/nowhere": 404}.get(
                    path, 200
                )
            dialog = ask(app, "/rd/login", cookie, **forged).location
            assert dialog is not None
            assert dialog.startswith("http://127.0.0.1:9/auth/dialog?")


ADDRESSES = [
    # X-Forwarded-For as the last proxy passes it on, and the address that counts with 0, 1 and 2 trusted proxies
    (None, "192.0.2.1", "192.0.2.1", "192.0.2.1"),
    ("", "192.0.2.1", "192.0.2.1", "192.0.2.1"),
    ("198.51.100.7", "192.0.2.1", "198.51.100.7", "192.0.2.1"),
    ("203.0.113.9, 198.51.100.7", "192.0.2.1", "198.51.100.7", "203.0.113.9"),
    ("1.1.1.1, 203.0.113.9, 198.51.100.7", "192.0.2.1", "198.51.100.7", "203.0.113.9"),
    ("127.0.0.1, 127.0.0.1, 203.0.113.9,198.51.100.7", "192.0.2.1", "198.51.100.7", "203.0.113.9"),
    ("2001:db8::1, 2001:db8:5::1", "192.0.2.1", "2001:db8:5::1", "2001:db8::1"),
]


@pytest.mark.parametrize(("header", "none", "one", "two"), ADDRESSES)
def test_the_client_s_address_is_what_the_trusted_proxies_say_and_never_further_left(
    variables: dict[str, str],
    make_services: MakeServices,
    monkeypatch: pytest.MonkeyPatch,
    header: str | None,
    none: str,
    one: str,
    two: str,
) -> None:
    counted: list[str] = []

    def limits(secret_key: str, address: str) -> list[Any]:
        counted.append(address)
        return []

    monkeypatch.setattr("rdservice.access.throttle.key_limits", limits)
    monkeypatch.setattr("rdservice.access.throttle.count_attempt", lambda conn, limits: None)
    for trusted in ("0", "1", "2"):
        app = create_app(make_services(Settings.from_mapping(variables | {"TRUSTED_PROXIES": trusted})))
        headers = {"Authorization": "Bearer nonsense"} | (
            {} if header is None else {"X-Forwarded-For": header}
        )
        assert Browser(app, accept="*/*").get("/", headers).status_code == 401
    assert counted == [none, one, two]


@pytest.mark.parametrize(
    ("extra", "trusted"), [({}, 0), ({"DYNO": "web.1"}, 1), ({"TRUSTED_PROXIES": "2"}, 2)]
)
def test_one_proxy_is_trusted_on_heroku_and_none_elsewhere(
    variables: dict[str, str], extra: dict[str, str], trusted: int
) -> None:
    public = {"RDSTATION_REDIRECT_URI": "https://app.example.com/rd/callback"}
    public["RDSTATION_API_URL"] = "https://api.rd.services"
    assert Settings.from_mapping(variables | public | extra).trusted_proxies == trusted


def next_values() -> list[str]:
    """What could lead a browser elsewhere, were it taken for a path of this service."""
    leads = [
        "//",
        "/\\",
        "\\\\",
        "\\/",
        "/\t/",
        "/\n/",
        "/\r/",
        "/ /",
        "\t//",
        " //",
        "///",
        "/\x00/",
        "/\u2028/",
    ]
    schemes = ["https:", "https://", "http:\\\\", "javascript:", "data:text/html,", "HtTpS:/", ""]
    hosts = [
        "evil.example",
        "evil.example\\@localhost:8000",
        "localhost:8000@evil.example",
        "evil。example",
        "[::1]",
    ]
    found = [lead + host for lead, host in itertools.product([*leads, *schemes], hosts)]
    return [*found, "／／evil.example", "/\uff0fevil.example", "/" + "a" * 60_000, ".", "..", "?x", "#x"]


def test_no_login_leads_elsewhere_whatever_next_says(app: Flask, signed_in: Browser) -> None:
    for number, target in enumerate(next_values()):
        already = signed_in.get("/login", query_string={"next": target})
        assert (already.status_code, already.location) == (302, "/"), target
        if number % 16 == 0:
            response = Browser(app).log_in(EMAIL, PASSWORD, next=target)
            assert (response.status_code, response.location) == (303, "/"), target
    page = Browser(app).get("/login", query_string={"next": "//evil.example"}).text
    # The links to the other language lead back to this very address, and this host.
    (back,) = re.findall(r'href="(/language\?language=[^"]+)"', page)
    assert "evil" not in page.replace(back, "")
    switched = Browser(app).get(unescape(back))
    assert switched.location == "/login?next=//evil.example"


@pytest.mark.parametrize(
    "path",
    [
        "/%5cevil.example",
        "/%2f/evil.example",
        "/%09/evil.example",
        "/.//evil.example",
        "/..//evil.example",
        "/@evil.example",
        "/;//evil.example",
        "/?next=//evil.example",
        "/rd/login/../..//evil.example",
    ],
)
def test_a_path_that_only_looks_like_another_host_stays_a_path_of_this_one(
    signed_in: Browser, path: str
) -> None:
    location = signed_in.get("/login", query_string={"next": path}).location
    assert location == path
    # As the URL Standard resolves it, which browsers follow: two slashes inside a path begin no host.
    assert location[0] == "/"
    assert location[1] not in "/\\"


def test_connect_leads_to_rd_login_whatever_the_account_is_called(signed_in: Browser) -> None:
    for name in [*next_values()[:-5], "&moved=1", "a?b#c", '"><script>']:
        page = signed_in.get("/connect", query_string={"account_id": name}).text
        links = [part.split('"')[0] for part in page.split("url=")[1:]]
        assert len(links) == 1
        assert links[0].startswith("/rd/login?account_id=")
        assert not set(links[0].removeprefix("/rd/login?account_id=")) & set("/\\:?#&<> @")
