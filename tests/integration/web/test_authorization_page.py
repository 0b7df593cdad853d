"""The page that asks what to do with the tokens of another RD Station account."""

import html
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import requests
from flask import Flask
from werkzeug.test import TestResponse

from rdservice.access import operators
from rdservice.access.passwords import hash_password
from rdservice.services import Services
from rdservice.web import create_app
from tests.conftest import REDIRECT_URI
from tests.integration.web.conftest import EMAIL, PASSWORD
from tests.support.accounts import row
from tests.support.browser import Browser
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]


class Operator(Browser):
    """A browser at the address of the redirect URI."""

    def open(
        self, method: str, path: str, headers: dict[str, str] | None = None, **more: Any
    ) -> TestResponse:
        return super().open(method, path, {"Host": urlsplit(REDIRECT_URI).netloc} | (headers or {}), **more)


@pytest.fixture
def app(connected: Services) -> Flask:
    """The application whose RD Station is the sandbox."""
    return create_app(connected)


@pytest.fixture
def ana(app: Flask, conn: Conn) -> Operator:
    return sign_in(app, conn, EMAIL)


def sign_in(app: Flask, conn: Conn, email: str) -> Operator:
    assert operators.create(conn, email, hash_password(PASSWORD)) is not None
    browser = Operator(app)
    assert browser.log_in(email, PASSWORD).status_code == 303
    return browser


def come_back(browser: Browser, rd: str, account_id: str = "recife") -> str:
    """Authorize an RD Station account; return the path of the next page."""
    dialog = browser.get(f"/rd/login?account_id={account_id}").location
    query = {name: values[0] for name, values in parse_qs(urlsplit(dialog).query).items()}
    form = query | {"account": rd}
    consent = requests.post(dialog.partition("?")[0], data=form, allow_redirects=False, timeout=10)
    back = urlsplit(consent.headers["Location"])
    response = browser.get(f"{back.path}?{back.query}")
    assert response.status_code == 303, response.text
    return response.location


@pytest.fixture
def asked(ana: Operator, sandbox: SandboxProcess) -> str:
    """The path of the page after another account was authorized for `recife`."""
    assert come_back(ana, "default") == "/"
    return come_back(ana, "account-2")


def text_of(conn: Conn) -> Any:
    return conn.execute("SELECT t::text FROM rdstation_tokens t ORDER BY account_id").fetchall()


def text(browser: Browser, path: str) -> str:
    return html.unescape(browser.get(path).text)


def connection_id_in(page: str) -> str:
    found = re.search(r'name="connection_id" value="([^"]+)"', page)
    assert found
    return found[1]


def test_the_page_names_both_accounts_and_offers_three_ways(ana: Operator, asked: str, conn: Conn) -> None:
    before = text_of(conn)
    page = text(ana, asked)
    found = re.search(r"You authorized “(.+) \(account-2\)”, but recife was “(.+) \(default\)”\.", page)
    assert found
    assert re.findall(r'name="choice" value="(\w+)"', page) == ["choose", "new", "replace"]
    assert connection_id_in(page) == str(row(conn, "recife")["connection_id"])
    assert "eyJ" not in page
    assert text_of(conn) == before


def test_choosing_the_right_account_leads_to_rd_station_again(ana: Operator, asked: str, conn: Conn) -> None:
    before = text_of(conn)
    response = ana.submit(asked, page=asked, choice="choose")
    assert (response.status_code, response.location) == (303, "/connect?account_id=recife")
    assert text_of(conn) == before
    assert ana.get(asked).status_code == 404


def test_replacing_connects_the_new_account_and_says_so(ana: Operator, asked: str, conn: Conn) -> None:
    shown = connection_id_in(text(ana, asked))
    for _ in range(2):
        response = ana.submit(asked, page="/", choice="replace", connection_id=shown)
        assert (response.status_code, response.location) == (303, "/")
        assert re.search(r"Connected: .+ \(account-2\)", text(ana, "/"))
    assert str(row(conn, "recife")["name"]).endswith("(account-2)")
    assert ana.get(asked).location == "/"


@pytest.mark.parametrize("connection_id", ["", "nonsense", "12345678-1234-4234-8234-123456789abc"])
def test_a_confirmation_of_anything_else_replaces_nothing(
    ana: Operator, asked: str, conn: Conn, connection_id: str
) -> None:
    before = text_of(conn)
    response = ana.submit(asked, page="/", choice="replace", connection_id=connection_id)
    assert (response.status_code, response.location) in [(422, None), (303, asked)]
    assert text_of(conn) == before


def test_a_new_name_connects_both(ana: Operator, asked: str, conn: Conn) -> None:
    response = ana.submit(asked, page=asked, choice="new", account_id=" azevedo ")
    assert (response.status_code, response.location) == (303, "/")
    assert str(row(conn, "azevedo")["name"]).endswith("(account-2)")
    assert str(row(conn, "recife")["name"]).endswith("(default)")


@pytest.mark.parametrize("name", ["", "a" * 201, "\u202eabc"])
def test_a_name_that_cannot_be_is_told_beside_the_field(
    ana: Operator, asked: str, conn: Conn, name: str
) -> None:
    before = text_of(conn)
    response = ana.submit(asked, page=asked, choice="new", account_id=name)
    assert response.status_code == 422
    assert 'aria-invalid="true"' in response.text
    assert text_of(conn) == before


def test_while_rd_station_tells_no_name_the_page_asks_again(
    ana: Operator, sandbox: SandboxProcess, conn: Conn
) -> None:
    come_back(ana, "default")
    before = text_of(conn)
    sandbox.patch(faults=[{"operation": "account_info", "kind": "status", "status": 503}])
    path = come_back(ana, "default")
    assert "RD Station does not say which account this is" in text(ana, path)
    assert ana.submit(path, page=path, choice="again").location == path
    assert text_of(conn) == before
    sandbox.patch(faults=[])
    assert ana.submit(path, page=path, choice="again").location == "/"
    assert text_of(conn) != before


def test_the_question_is_shown_to_nobody_else(app: Flask, asked: str, conn: Conn) -> None:
    stranger = sign_in(app, conn, "bruno@example.com")
    assert stranger.get(asked).status_code == 404
    assert stranger.submit(asked, page="/", choice="choose").status_code == 404
    assert Operator(app).get(asked).location.startswith("/login")


def test_one_rd_station_account_under_two_names_is_said_on_the_pages(
    ana: Operator, sandbox: SandboxProcess
) -> None:
    come_back(ana, "default", "one")
    come_back(ana, "default", "two")
    overview = text(ana, "/")
    assert "also connected here as one. RD Station's limits" in overview
    assert "Also connected here as two" in overview
    assert "Also connected here as one" in text(ana, "/accounts/two")


def test_the_audit_names_both_accounts(ana: Operator, asked: str) -> None:
    ana.submit(asked, page="/", choice="replace", connection_id=connection_id_in(text(ana, asked)))
    page = text(ana, "/audit")
    assert re.search(r"in place of: .+ \(default\)", page)
    assert re.search(r"replaced by: .+ \(account-2\)", page)
