"""Logging in and out."""

import contextlib
import logging
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from argon2 import PasswordHasher
from flask import Flask

from rdservice.access import operators, passwords, sessions, throttle
from rdservice.config.settings import Settings
from rdservice.services import Services
from rdservice.web import create_app
from rdservice.web.http.paths import local_path
from tests.integration.web.conftest import EMAIL, PASSWORD
from tests.support.browser import Browser

Conn = psycopg.Connection[Any]


def count_sessions(conn: Conn) -> int:
    row = conn.execute("SELECT count(*) FROM rdservice_sessions").fetchone()
    assert row is not None
    return int(row[0])


def test_an_operator_logs_in_and_sees_the_status_page(browser: Browser, operator: operators.Operator) -> None:
    response = browser.log_in("  ANA@Example.com ", PASSWORD)
    assert (response.status_code, response.location) == (303, "/")
    page = browser.get("/")
    assert page.status_code == 200
    assert operator.email in page.text


@pytest.mark.parametrize(
    ("email", "password"),
    [(EMAIL, "wrong password"), ("nobody@example.com", PASSWORD), ("\0", "\0"), ("", "")],
)
@pytest.mark.usefixtures("operator")
def test_a_wrong_pair_is_refused_in_the_same_words(browser: Browser, email: str, password: str) -> None:
    response = browser.log_in(email, password)
    assert response.status_code == 401
    assert "E-mail or password is wrong." in response.text
    assert browser.get("/").status_code == 302


@pytest.mark.usefixtures("operator")
def test_a_program_gets_a_refused_login_as_a_problem(app: Flask) -> None:
    response = Browser(app, accept="*/*").log_in(EMAIL, "wrong password")
    assert (response.status_code, response.mimetype) == (401, "application/problem+json")


@pytest.mark.usefixtures("operator")
def test_an_unknown_e_mail_costs_a_hash_too(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[bytes] = []

    class Counting(PasswordHasher):
        def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
            hashed.append(bytes(password) if isinstance(password, bytes) else password.encode())
            return super().hash(password, salt=salt)

    monkeypatch.setattr(passwords, "_hasher", Counting())
    browser.log_in("nobody@example.com", PASSWORD)
    assert hashed == [PASSWORD.encode()]


@pytest.mark.usefixtures("operator")
def test_a_login_replaces_the_cookie_and_its_csrf_token(browser: Browser) -> None:
    before = browser.csrf_token()
    cookie_before = browser.client.get_cookie("rdservice_session_8000")
    browser.log_in(EMAIL, PASSWORD)
    cookie_after = browser.client.get_cookie("rdservice_session_8000")
    assert cookie_before is not None
    assert cookie_after is not None
    assert cookie_before.value != cookie_after.value
    # The token from before the login belongs to nobody's session now.
    assert browser.open("POST", "/logout", data={"csrf_token": before}).status_code == 403


@pytest.mark.usefixtures("operator")
def test_a_second_login_in_the_same_browser_ends_the_first_session(browser: Browser, conn: Conn) -> None:
    browser.log_in(EMAIL, PASSWORD)
    token = browser.csrf_token("/")
    again = browser.open("POST", "/login", data={"csrf_token": token, "email": EMAIL, "password": PASSWORD})
    assert again.status_code == 303
    assert count_sessions(conn) == 1
    assert browser.get("/").status_code == 200


@pytest.mark.usefixtures("operator")
def test_a_cookie_from_before_the_login_opens_nothing_afterwards(app: Flask) -> None:
    victim, attacker = Browser(app), Browser(app)
    victim.get("/login")
    planted = victim.client.get_cookie("rdservice_session_8000")
    assert planted is not None
    victim.log_in(EMAIL, PASSWORD)
    attacker.client.set_cookie("rdservice_session_8000", planted.value)
    assert attacker.get("/").status_code == 302


@pytest.mark.usefixtures("operator")
def test_the_cookie_is_closed_to_scripts_and_other_sites(browser: Browser) -> None:
    header = browser.log_in(EMAIL, PASSWORD).headers["Set-Cookie"]
    assert header.startswith("rdservice_session_8000=")
    assert "HttpOnly" in header
    assert "SameSite=Lax" in header
    assert "Path=/" in header
    assert "Secure" not in header


@pytest.fixture
def https_services(variables: dict[str, str], make_services: Callable[[Settings], Services]) -> Services:
    values = variables | {
        "RDSTATION_REDIRECT_URI": "https://app.example.com/rd/callback",
        "TRUSTED_PROXIES": "1",
    }
    return make_services(Settings.from_mapping(values))


@pytest.mark.usefixtures("operator")
def test_behind_a_proxy_with_tls_the_cookie_is_secure_and_the_login_works(https_services: Services) -> None:
    app = create_app(https_services)
    client = app.test_client()
    proxied = {
        "Host": "app.example.com",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "192.0.2.7",
        "Accept": "text/html",
    }
    # The proxy speaks plain http with the application, and Werkzeug's client must return a Secure cookie.
    base = {"base_url": "https://app.example.com", "environ_overrides": {"wsgi.url_scheme": "http"}}
    page = client.get("/login", headers=proxied, **base)
    cookie = page.headers["Set-Cookie"]
    assert cookie.startswith("__Host-rdservice_session=")
    # What the prefix asks for: browsers refuse the cookie otherwise (RFC 6265bis, 4.1.3.2).
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} == set(cookie.split("; ")[1:])
    assert page.headers["Strict-Transport-Security"].startswith("max-age=")
    found = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
    assert found is not None
    fields = {"csrf_token": found[1], "email": EMAIL, "password": PASSWORD}
    without = client.post("/login", data=fields, headers=proxied, **base)
    assert without.status_code == 403
    foreign = proxied | {"Referer": "https://evil.example/login"}
    assert client.post("/login", data=fields, headers=foreign, **base).status_code == 403
    own = proxied | {"Referer": "https://app.example.com/login"}
    assert client.post("/login", data=fields, headers=own, **base).status_code == 303


@pytest.mark.usefixtures("operator")
def test_a_login_without_csrf_token_is_refused(browser: Browser) -> None:
    response = browser.open("POST", "/login", data={"email": EMAIL, "password": PASSWORD})
    assert response.status_code == 403
    assert "out of date" in response.text


def test_logging_out_ends_the_row(signed_in: Browser, conn: Conn) -> None:
    stolen = signed_in.client.get_cookie("rdservice_session_8000")
    assert stolen is not None
    assert signed_in.submit("/logout", page="/").location == "/login"
    assert count_sessions(conn) == 0
    assert signed_in.get("/").status_code == 302
    signed_in.client.set_cookie("rdservice_session_8000", stolen.value)
    assert signed_in.get("/").status_code == 302


def test_logging_out_needs_the_csrf_token(signed_in: Browser, conn: Conn) -> None:
    assert signed_in.open("POST", "/logout").status_code == 403
    assert count_sessions(conn) == 1


def test_logging_out_works_after_the_session_has_ended(signed_in: Browser, conn: Conn) -> None:
    token = signed_in.csrf_token("/")
    conn.execute("DELETE FROM rdservice_sessions")
    response = signed_in.open("POST", "/logout", data={"csrf_token": token})
    assert (response.status_code, response.location) == (303, "/login")


def test_a_password_reset_ends_the_sessions(signed_in: Browser, conn: Conn) -> None:
    operator_id = operators.reset_password(conn, EMAIL, passwords.hash_password("another password"))
    assert operator_id is not None
    assert sessions.end_all(conn, operator_id) == 1
    assert signed_in.get("/").status_code == 302
    assert signed_in.log_in(EMAIL, PASSWORD).status_code == 401
    assert signed_in.log_in(EMAIL, "another password").status_code == 303


def test_removing_an_operator_ends_the_sessions(signed_in: Browser, conn: Conn) -> None:
    assert operators.remove(conn, EMAIL)
    assert signed_in.get("/").status_code == 302


@pytest.mark.parametrize(
    ("column", "age", "status"),
    [
        ("last_seen_at", timedelta(hours=11, minutes=59), 200),
        ("last_seen_at", timedelta(hours=12, minutes=1), 302),
        ("created_at", timedelta(days=7, minutes=1), 302),
    ],
)
def test_a_session_ends_when_idle_or_old(
    signed_in: Browser, conn: Conn, column: str, age: timedelta, status: int
) -> None:
    conn.execute(f"UPDATE rdservice_sessions SET {column} = rd_now() - %s", [age])  # noqa: S608
    assert signed_in.get("/").status_code == status


@pytest.mark.usefixtures("operator")
def test_a_login_hashes_the_password_anew_when_the_parameters_changed(browser: Browser, conn: Conn) -> None:
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    conn.execute("UPDATE rdservice_operators SET password_hash = %s", [cheap])
    assert browser.log_in(EMAIL, PASSWORD).status_code == 303
    row = conn.execute("SELECT password_hash FROM rdservice_operators").fetchone()
    assert row is not None
    assert row[0] != cheap
    assert not passwords.needs_rehash(row[0])
    assert passwords.verify(row[0], PASSWORD)


@pytest.mark.parametrize("target", ["/", "/connect?account_id=a%20b", "/rd/tokens?x=1&y=/z", "/a//b"])
def test_a_path_of_this_service_is_a_local_path(target: str) -> None:
    assert local_path(target) == target


@pytest.mark.parametrize(
    "target",
    [
        None,
        "",
        "https://evil.example/",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "\t//evil.example",
        " //evil.example",
        "/a\\b",
        "/a\r\nSet-Cookie: x=y",
        "/á",
        "/\x00",
        "javascript:alert(1)",
        "login",
        "/" + "a" * 3000,
    ],
)
@pytest.mark.usefixtures("operator")
def test_what_leads_elsewhere_is_no_local_path_and_no_destination(
    browser: Browser, target: str | None
) -> None:
    assert local_path(target) is None
    fields = {} if target is None else {"next": target}
    assert browser.log_in(EMAIL, PASSWORD, **fields).location == "/"


@pytest.mark.usefixtures("operator")
def test_a_browser_returns_after_the_login_to_what_it_asked_for(browser: Browser) -> None:
    redirect = browser.get("/connect?account_id=caf%C3%A9%20%26%20co")
    assert redirect.status_code == 302
    page = browser.get(redirect.location)
    hidden = re.search(r'name="next" value="([^"]+)"', page.text)
    assert hidden is not None
    response = browser.log_in(EMAIL, PASSWORD, next=hidden[1].replace("&amp;", "&"))
    assert "café &amp; co" in browser.get(response.location).text


@pytest.mark.usefixtures("operator")
def test_a_login_on_the_way_to_rd_station_goes_on_without_a_redirect_from_the_form(browser: Browser) -> None:
    response = browser.log_in(EMAIL, PASSWORD, next="/rd/login?account_id=branch-2")
    assert response.location == "/connect?account_id=branch-2"
    page = browser.get(response.location)
    assert page.status_code == 200
    assert 'content="0; url=/rd/login?account_id=branch-2"' in page.text


def test_an_operator_who_is_logged_in_is_sent_on_from_the_login_page(signed_in: Browser) -> None:
    assert signed_in.get("/login").location == "/"
    assert signed_in.get("/login?next=/connect").location == "/connect"
    assert signed_in.get("/login?next=//evil.example").location == "/"


@pytest.mark.usefixtures("operator")
def test_too_many_wrong_passwords_are_refused_by_every_process(
    settings: Settings, make_services: Callable[[Settings], Services]
) -> None:
    browsers = [Browser(create_app(make_services(settings))) for _ in range(2)]
    for attempt in range(throttle.LOGINS_PER_ADDRESS_AND_EMAIL):
        assert browsers[attempt % 2].log_in(EMAIL, f"wrong password {attempt}").status_code == 401
    for browser in browsers:
        response = browser.log_in(EMAIL, PASSWORD)
        assert response.status_code == 429
        assert 0 < int(response.headers["Retry-After"]) <= throttle.WINDOW_S
        assert "Too many attempts" in response.text
    elsewhere = Browser(create_app(make_services(settings)), address="198.51.100.9")
    assert elsewhere.log_in(EMAIL, PASSWORD).status_code == 303


@pytest.mark.usefixtures("operator")
def test_a_log_in_shows_neither_password_nor_e_mail_in_logs(
    browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        browser.log_in(EMAIL, "a wrong password")
        browser.log_in(EMAIL, PASSWORD, next="/connect?account_id=someone")
    assert "POST /login 303" in caplog.text
    for private in (EMAIL, PASSWORD, "a wrong password", "someone", "192.0.2.1"):
        assert private not in caplog.text


@pytest.mark.usefixtures("operator")
def test_a_flood_of_log_ins_is_told_to_come_again_and_counts_as_no_failure(
    app: Flask, browser: Browser, conn: Conn
) -> None:
    program = Browser(app, accept="*/*")
    page = browser.csrf_token()
    with contextlib.ExitStack() as taken:
        for _ in range(passwords.PLACES):
            taken.enter_context(passwords.place_in_line())
        refused = browser.open(
            "POST", "/login", data={"csrf_token": page, "email": EMAIL, "password": PASSWORD}
        )
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert program.get("/healthz").status_code == 200
        assert program.get("/rd/tokens").status_code == 401
    assert conn.execute("SELECT count(*) FROM rdservice_access_failures").fetchone() == (0,)
    assert browser.log_in(EMAIL, PASSWORD).status_code == 303
