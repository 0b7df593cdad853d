"""The way to RD Station's dialog and back, in an operator's browser."""

import html
import logging
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import requests
from flask import Flask
from werkzeug.test import TestResponse

from rdservice.access import operators, sessions
from rdservice.access.passwords import hash_password
from rdservice.config.settings import Settings
from rdservice.services import Services
from rdservice.web import create_app
from rdservice.web.http import browser_session
from tests.conftest import REDIRECT_URI, Clock
from tests.integration.web.conftest import EMAIL, PASSWORD
from tests.support.accounts import connect_account, row
from tests.support.browser import Browser
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
HERE = urlsplit(REDIRECT_URI).netloc
NEVER = datetime.max.replace(tzinfo=UTC)


@pytest.fixture
def app(connected: Services) -> Flask:
    """The application whose RD Station is the sandbox."""
    return create_app(connected)


class Operator(Browser):
    """A signed-in operator at the address of the redirect URI."""

    def open(
        self, method: str, path: str, headers: dict[str, str] | None = None, **more: Any
    ) -> TestResponse:
        return super().open(method, path, {"Host": HERE} | (headers or {}), **more)

    def sign_in(self, conn: Conn, app: Flask, operator: operators.Operator, password_hash: str) -> None:
        """As the login page does it, without its slow hash."""
        token = sessions.start(conn, operator.operator_id, verified_hash=password_hash)
        assert token is not None
        with app.test_request_context("/", headers={"Host": HERE}):
            browser_session.begin(token)
            from flask import session

            values = dict(session)
        with self.client.session_transaction(base_url=f"http://{HERE}") as cookie:
            cookie.update(values)


@pytest.fixture
def ana(app: Flask, conn: Conn) -> Operator:
    return signed_in(app, conn, EMAIL)


def signed_in(app: Flask, conn: Conn, email: str) -> Operator:
    created = operators.create(conn, email, "no hash: nobody logs in with it")
    assert created is not None
    browser = Operator(app)
    browser.sign_in(conn, app, created, "no hash: nobody logs in with it")
    return browser


def begin(browser: Browser, path: str = "/rd/login") -> str:
    """Go to the dialog; return its URL."""
    response = browser.get(path)
    assert response.status_code == 302, response.text
    return response.location


def consent(dialog_url: str, account: str = "default") -> str:
    """Press the dialog's button; return the path and query of the callback."""
    query = {name: values[0] for name, values in parse_qs(urlsplit(dialog_url).query).items()}
    response = requests.post(
        dialog_url.split("?", maxsplit=1)[0],
        data=query | {"account": account},
        allow_redirects=False,
        timeout=10,
    )
    back = urlsplit(response.headers["Location"])
    assert f"{back.scheme}://{back.netloc}{back.path}" == REDIRECT_URI
    return f"{back.path}?{back.query}"


def text_of(conn: Conn) -> Any:
    return conn.execute("SELECT t::text FROM rdstation_tokens t ORDER BY account_id").fetchall()


def page(browser: Browser) -> str:
    return html.unescape(browser.get("/").text)


# The way there


def test_an_operator_is_sent_to_the_dialog(ana: Operator, sandbox: SandboxProcess) -> None:
    url = urlsplit(begin(ana))
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{sandbox.url}/auth/dialog"
    query = parse_qs(url.query)
    assert query["redirect_uri"] == [REDIRECT_URI]
    assert query["scope"] == ["contacts"]
    assert set(query) == {"client_id", "redirect_uri", "scope", "state"}


def test_nobody_else_is(app: Flask, ana: Operator, conn: Conn) -> None:
    stranger = Operator(app)
    response = stranger.get("/rd/login?account_id=acme")
    assert response.status_code == 302
    assert response.location.startswith("/login?next=/rd/login")
    assert Operator(app, accept="*/*").get("/rd/login").status_code == 401
    assert conn.execute("SELECT count(*) FROM rdstation_oauth_states").fetchone() == (0,)


def test_no_api_key_begins_or_ends_an_authorization(app: Flask, conn: Conn, make_key: Any) -> None:
    from rdservice.access.keys import SCOPES

    headers = {"Authorization": f"Bearer {make_key(*SCOPES)}"}
    program = Operator(app, accept="*/*")
    assert program.get("/rd/login", headers).status_code == 403
    assert program.get("/rd/callback?code=c&state=s", headers).status_code == 403


def test_asked_on_another_host_it_first_goes_to_that_of_the_redirect_uri(ana: Operator, conn: Conn) -> None:
    for host in ("127.0.0.1:8000", "localhost", "evil.example", "localhost:8001"):
        response = ana.get("/rd/login?account_id=a%20b", {"Host": host})
        # The cookie belongs to the other host: whoever has none here is asked to log in here first.
        assert response.status_code == 302
        if not response.location.startswith("/login"):
            assert response.location == f"http://{HERE}/rd/login?account_id=a+b&moved=1"
        assert "evil" not in response.location
    assert conn.execute("SELECT count(*) FROM rdstation_oauth_states").fetchone() == (0,)


def test_a_proxy_that_hides_the_host_is_told_instead_of_redirecting_for_ever(
    make_services: Any, variables: dict[str, str], conn: Conn
) -> None:
    public = {"RDSTATION_REDIRECT_URI": "https://app.example.com/rd/callback"}
    app = create_app(make_services(Settings.from_mapping(variables | public)))
    operator = operators.create(conn, EMAIL, "hash")
    assert operator is not None
    token = sessions.start(conn, operator.operator_id, verified_hash="hash")
    internal = "https://internal:8000"
    client = app.test_client()
    with client.session_transaction(base_url=internal) as cookie:
        cookie["_user_id"] = token
    first = client.get("/rd/login", base_url=internal)
    assert first.location == "https://app.example.com/rd/login?account_id=default&moved=1"
    again = client.get("/rd/login?account_id=default&moved=1", base_url=internal)
    assert again.status_code == 400
    assert "Host header" in again.text


@pytest.mark.parametrize(
    ("redirect_uri", "host"),
    [
        ("https://app.example.com/rd/callback", "app.example.com"),
        ("https://app.example.com:443/rd/callback", "app.example.com"),
        ("https://APP.example.com/rd/callback", "app.example.com"),
        ("https://app.example.com:8443/rd/callback", "app.example.com:8443"),
        ("http://localhost:80/rd/callback", "localhost"),
    ],
)
def test_however_the_redirect_uri_is_written_its_own_host_does_not_redirect_to_itself(
    make_services: Any, variables: dict[str, str], conn: Conn, redirect_uri: str, host: str
) -> None:
    settings = Settings.from_mapping(variables | {"RDSTATION_REDIRECT_URI": redirect_uri})
    app = create_app(make_services(settings))
    operator = operators.create(conn, EMAIL, "hash")
    assert operator is not None
    token = sessions.start(conn, operator.operator_id, verified_hash="hash")
    scheme = urlsplit(redirect_uri).scheme
    client = app.test_client()
    with client.session_transaction(base_url=f"{scheme}://{host}") as cookie:
        cookie["_user_id"] = token
    # Behind a proxy that ends TLS and is not trusted the scheme is http.
    response = client.get("/rd/login", base_url=f"{scheme}://{host}", headers={"Accept": "text/html"})
    assert response.status_code == 302
    assert response.location.startswith("http://127.0.0.1:9/auth/dialog?"), response.location


@pytest.mark.parametrize("account", ["", "a/b", "%20", "a" * 201])
def test_an_account_that_cannot_be_is_refused_before_the_dialog(ana: Operator, account: str) -> None:
    response = ana.get(f"/rd/login?account_id={account}", {"Accept": "application/json"})
    assert response.status_code == 422
    assert response.json is not None
    assert response.json["field"] == "account_id"


# The way back


def test_consent_connects_the_account_and_the_page_says_so(
    ana: Operator, sandbox: SandboxProcess, conn: Conn
) -> None:
    response = ana.get(consent(begin(ana)))
    assert (response.status_code, response.location) == (303, "/")
    assert row(conn)["status"] == "connected"
    shown = page(ana)
    assert f"Connected: {row(conn)['name']}" in shown


def test_the_account_named_at_the_beginning_is_connected(
    ana: Operator, sandbox: SandboxProcess, conn: Conn
) -> None:
    ana.get(consent(begin(ana, "/rd/login?account_id=acme")))
    assert row(conn, "acme")["status"] == "connected"


def test_warnings_stand_on_the_page(ana: Operator, sandbox: SandboxProcess) -> None:
    sandbox.patch(scope="events", aud="other")
    ana.get(consent(begin(ana)))
    shown = page(ana)
    assert "lacks the scope contacts" in shown
    assert "not made for the current RD Station Marketing API" in shown


def test_a_refused_consent_is_a_page_that_says_what_happened(
    ana: Operator, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    before = text_of(conn)
    state = parse_qs(urlsplit(begin(ana)).query)["state"][0]
    response = ana.get(f"/rd/callback?error=access_denied&error_description=planted&state={state}")
    assert response.status_code == 403
    assert response.mimetype == "text/html"
    assert "planted" not in response.text
    assert text_of(conn) == before


BAD_CALLBACKS = [
    ("", 400, "invalid_state"),
    ("code=planted-code", 400, "invalid_state"),
    ("code=planted-code&state=", 400, "invalid_state"),
    ("code=planted-code&state=planted-state", 400, "invalid_state"),
    ("state=planted-state", 400, "invalid_state"),
    ("error=access_denied&state=planted-state", 400, "invalid_state"),
    ("error=access_denied", 400, "invalid_state"),
    ("code=planted-code&state=%00%ff", 400, "invalid_state"),
    ("code=planted-code&state={state}&state=planted-state", 502, "code_refused"),
    ("state={state}", 400, "invalid_state"),
    ("code=&state={state}", 400, "invalid_state"),
    ("error=access_denied&state={state}", 403, "consent_refused"),
    ("code=planted-code&error=access_denied&state={state}", 403, "consent_refused"),
    ("code=planted-code&state={state}", 502, "code_refused"),
]


def test_a_callback_that_is_not_right_touches_nothing(
    ana: Operator, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    before = text_of(conn)
    for query, status, code in BAD_CALLBACKS:
        state = parse_qs(urlsplit(begin(ana)).query)["state"][0]
        response = ana.get(f"/rd/callback?{query.format(state=state)}", {"Accept": "application/json"})
        assert (response.status_code, response.json and response.json["code"]) == (status, code), query
        for secret in ("planted", state, "client-secret-of-the-tests"):
            assert secret not in response.text
    assert text_of(conn) == before


def test_the_callback_of_another_operator_is_refused(
    app: Flask, ana: Operator, sandbox: SandboxProcess, conn: Conn
) -> None:
    bruno = signed_in(app, conn, "bruno@example.com")
    response = bruno.get(consent(begin(ana)))
    assert response.status_code == 400
    assert text_of(conn) == []


def test_a_callback_without_session_goes_to_the_login_page_without_its_secrets_and_keeps_the_state(
    app: Flask, ana: Operator, sandbox: SandboxProcess, conn: Conn
) -> None:
    back = consent(begin(ana))
    response = Operator(app).get(back)
    assert response.status_code == 302
    assert response.location == "/login"
    assert ana.get(back).status_code == 303
    assert row(conn)["status"] == "connected"


def test_the_callback_twice_shows_the_same_result_and_exchanges_the_code_once(
    ana: Operator, sandbox: SandboxProcess, conn: Conn
) -> None:
    back = consent(begin(ana))
    ana.get(back)
    before = text_of(conn)
    page(ana)
    response = ana.get(back)
    assert (response.status_code, response.location) == (303, "/")
    assert f"Connected: {row(conn)['name']}" in page(ana)
    assert text_of(conn) == before
    assert sandbox.calls()["token_exchange"] == {"200": 1}


PREFETCHES = [
    {"Sec-Purpose": "prefetch"},
    {"Sec-Purpose": "prefetch;prerender"},
    {"Purpose": "prefetch"},
    {"X-Purpose": "preview"},
    {"X-Moz": "prefetch"},
]


@pytest.mark.parametrize("headers", PREFETCHES, ids=str)
def test_a_callback_that_nobody_opens_yet_has_no_effect(
    ana: Operator, sandbox: SandboxProcess, conn: Conn, headers: dict[str, str]
) -> None:
    back = consent(begin(ana))
    for method, more in (("GET", headers), ("HEAD", {})):
        response = ana.open(method, back, more)
        assert (response.status_code, response.headers["Cache-Control"]) == (503, "no-store")
    assert text_of(conn) == []
    assert ana.get(back).status_code == 303
    assert row(conn)["status"] == "connected"


def test_rd_station_down_is_a_page_with_what_to_do(
    ana: Operator, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    before = text_of(conn)
    back = consent(begin(ana))
    sandbox.patch(faults=[{"operation": "token_exchange", "kind": "drop_before"}])
    response = ana.get(back)
    assert response.status_code == 503
    assert response.mimetype == "text/html"
    assert text_of(conn) == before


def test_the_whole_way_works_after_a_real_login(app: Flask, sandbox: SandboxProcess, conn: Conn) -> None:
    assert operators.create(conn, EMAIL, hash_password(PASSWORD)) is not None
    browser = Operator(app)
    assert browser.log_in(EMAIL, PASSWORD).status_code == 303
    assert browser.get(consent(begin(browser))).status_code == 303
    assert row(conn)["status"] == "connected"


def sign_in_again(app: Flask, conn: Conn, email: str = EMAIL) -> Operator:
    """Return another browser in which the same operator has logged in."""
    found = operators.find_credentials(conn, email)
    assert found is not None
    browser = Operator(app)
    person = operators.Operator(
        operator_id=found.operator_id, email=email, created_at=NEVER, password_changed_at=NEVER
    )
    browser.sign_in(conn, app, person, found.password_hash)
    return browser


def refused(response: TestResponse) -> bool:
    return response.status_code == 400 and "invalid_state" in response.text


def test_the_callback_of_another_browser_is_refused_although_the_operator_is_the_same(
    app: Flask, ana: Operator, sandbox: SandboxProcess, conn: Conn
) -> None:
    back = consent(begin(ana))
    assert refused(sign_in_again(app, conn).get(back))
    assert text_of(conn) == []
    assert sandbox.calls()["token_exchange"] == {}
    # Nobody else's try has spent it.
    assert ana.get(back).status_code == 303


def test_a_callback_after_a_log_out_and_a_new_log_in_is_refused(
    app: Flask, ana: Operator, sandbox: SandboxProcess, conn: Conn
) -> None:
    back = consent(begin(ana))
    assert ana.submit("/logout", page="/").status_code == 303
    assert ana.get(back).location == "/login"
    assert refused(sign_in_again(app, conn).get(back))
    assert text_of(conn) == []


def test_a_callback_after_ten_minutes_by_the_database_s_clock_is_refused(
    ana: Operator, sandbox: SandboxProcess, conn: Conn, clock: Clock
) -> None:
    early, late = consent(begin(ana)), consent(begin(ana))
    clock.advance(9 * 60 + 50)
    assert ana.get(early).status_code == 303
    before = text_of(conn)
    clock.advance(11)
    assert refused(ana.get(late))
    assert text_of(conn) == before


def test_a_code_and_state_of_someone_who_logs_in_as_themselves_connect_nothing_in_a_victim_s_browser(
    app: Flask, ana: Operator, sandbox: SandboxProcess, conn: Conn
) -> None:
    attacker = signed_in(app, conn, "mallory@example.com")
    theirs = consent(begin(attacker), "account-2")
    assert refused(ana.get(theirs, {"Sec-Fetch-Site": "cross-site"}))
    stranger = Operator(app)
    assert stranger.get(theirs).location == "/login"
    assert text_of(conn) == []


def test_each_state_connects_the_account_that_it_was_made_for(
    ana: Operator, sandbox: SandboxProcess, conn: Conn
) -> None:
    first, second = (
        consent(begin(ana, "/rd/login?account_id=a")),
        consent(begin(ana, "/rd/login?account_id=b")),
    )
    assert ana.get(f"{second}&account_id=a").status_code == 303
    assert [found["account_id"] for found in (row(conn, "b"),)] == ["b"]
    assert conn.execute("SELECT count(*) FROM rdstation_tokens").fetchone() == (1,)
    assert ana.get(first).status_code == 303
    assert row(conn, "a")["status"] == "connected"


ODD_PARAMETERS = [
    "code=c&code=d&state={state}&state={state}",
    "code[]=c&state[]={state}",
    "code[0]=c&state={state}",
    "code=c&state={state}x",
    "code=c&state={state}%00",
    "code=c&state=%20{state}",
    "code=c&STATE={state}",
    "code=c;state={state}",
    "code={long}&state={state}",
    "code=c&state={long}",
    "code=%ff%fe&state={state}",
    "code=%F0%9F%98%80%0d%0aX:%20y&state={state}",
    "error={long}&state={state}",
    "error[]=access_denied&state={state}",
]


@pytest.mark.parametrize("query", ODD_PARAMETERS)
def test_odd_parameters_of_the_callback_are_refused_and_touch_nothing(
    ana: Operator, connected: Services, sandbox: SandboxProcess, conn: Conn, query: str
) -> None:
    connect_account(connected, sandbox, due=False)
    before = text_of(conn)
    state = parse_qs(urlsplit(begin(ana)).query)["state"][0]
    # As long as gunicorn's limit on the request line lets through.
    response = ana.get(f"/rd/callback?{query.format(state=state, long='l' * 3900)}")
    assert response.status_code in (400, 502)
    assert text_of(conn) == before
    assert state not in response.text


def test_code_and_state_stand_in_no_log_and_no_referer(
    ana: Operator, sandbox: SandboxProcess, conn: Conn, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        back = consent(begin(ana))
        secrets = [value for values in parse_qs(urlsplit(back).query).values() for value in values]
        responses = [ana.get(back), ana.get(back), Operator(ana.client.application).get(back)]
    assert [response.status_code for response in responses] == [303, 303, 302]
    for response in responses:
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert not any(secret in f"{response.headers}{response.text}" for secret in secrets)
    assert "GET /rd/callback 303" in caplog.text
    ours = [record for record in caplog.records if not record.name.startswith("urllib3")]
    assert not any(secret in record.getMessage() for record in ours for secret in secrets)
