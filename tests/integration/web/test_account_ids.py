"""Every id that an account of an older table may have works on every route and page, and leads to no other account."""

import html
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import psycopg
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from rdservice.access.keys import SCOPES
from rdservice.services import Services
from rdservice.web import create_app
from tests.support.accounts import connect_account, stored_pair
from tests.support.browser import Browser
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]

IN_A_PATH = ["loja%2Fcentro", ".loja.", "a?b#c", "a&account_id=default", "são joão", "-", "access-token", "%"]
ODD = [
    "loja/centro",
    "/",
    "//a//",
    ".",
    "..",
    "a/../default",
    "default/access-token",
    "-/disconnect",
    " default ",
    "\tdefault",
    "a\nb",
    "a\u202eb",
    "a\ufffdb",
    "são/joão",
    "x" * 300,
]


@pytest.fixture
def app(connected: Services) -> Flask:
    return create_app(connected)


class Program:
    """A program with all scopes that works with one account."""

    def __init__(self, app: Flask, key: str, account_id: str) -> None:
        self._browser = Browser(app, accept="*/*")
        self._headers = {"Authorization": f"Bearer {key}"}
        self._query = "account_id=" + quote(account_id, safe="")

    def ask(self, method: str, path: str, status: int = 200, **more: Any) -> TestResponse:
        """Send a request with the account in its query."""
        joined = path + ("&" if "?" in path else "?") + self._query
        response = self._browser.open(method, joined, self._headers, **more)
        assert response.status_code == status, (method, joined, response.text)
        return response


@pytest.fixture
def default(connected: Services, sandbox: SandboxProcess, conn: Conn) -> Callable[[], object]:
    """Connect an account `default` beside; return what tells whether it is as it was."""
    connect_account(connected, sandbox, "default", rd_account="account-2", due=False)
    text = "SELECT t::text FROM rdstation_tokens t WHERE account_id = 'default'"
    return lambda: conn.execute(text).fetchall()


@pytest.mark.parametrize("account_id", IN_A_PATH + ODD)
def test_a_program_reaches_an_account_by_any_id_on_every_route(
    app: Flask,
    connected: Services,
    sandbox: SandboxProcess,
    conn: Conn,
    default: Callable[[], object],
    make_key: Callable[..., str],
    account_id: str,
) -> None:
    before = default()
    pair = connect_account(connected, sandbox, account_id, due=False)
    program = Program(app, make_key(*SCOPES), account_id)
    token = (program.ask("GET", "/rd/tokens/-/access-token?min_ttl=60").json or {})["access_token"]
    assert token == pair["access_token"]
    leads = program.ask("GET", "/rd/leads?page_size=1").json or {}
    program.ask("GET", f"/rd/leads/{leads['contacts'][0]['uuid']}")
    program.ask("POST", "/rd/leads/lookup", json={"email": leads["contacts"][0]["email"]})
    program.ask("GET", f"/rd/leads/email/{leads['contacts'][0]['email']}")
    for path in ("/rd/segmentations", "/rd/events", "/rd/leads/export?segmentation=10"):
        program.ask("GET", path)
    for action in ("refresh", "subscribe", "unsubscribe"):
        told = program.ask("POST", f"/rd/tokens/-/{action}").json or {}
        assert told["account_id"] == account_id
    renewed = sandbox.pair() | {"account_id": account_id}
    told = program.ask("POST", "/rd/tokens", json=renewed).json or {}
    assert told["account_id"] == account_id
    assert stored_pair(connected, conn, account_id)[1] == renewed["refresh_token"]
    program.ask("DELETE", "/rd/tokens/-")
    assert conn.execute("SELECT account_id FROM rdstation_tokens").fetchall() == [("default",)]
    assert default() == before


@pytest.mark.parametrize(
    "account_id", [one for one in IN_A_PATH + ODD if one == one.strip() and "\n" not in one]
)
def test_a_header_names_the_account_of_a_passed_through_request(
    app: Flask,
    connected: Services,
    sandbox: SandboxProcess,
    default: Callable[[], object],
    make_key: Callable[..., str],
    account_id: str,
) -> None:
    connect_account(connected, sandbox, account_id, due=False)
    browser, key = Browser(app, accept="*/*"), make_key("api:call")

    def name(account: str) -> Any:
        headers = {"Authorization": f"Bearer {key}", "RD-Account": account.encode().decode("latin-1")}
        response = browser.get("/rd/api/marketing/account_info", headers)
        assert response.status_code == 200, response.text
        return response.json

    assert name(account_id) != name("default")


@pytest.mark.parametrize("account_id", IN_A_PATH + ODD)
def test_an_operator_reaches_every_page_and_action_of_an_account_with_any_id(
    signed_in: Browser,
    connected: Services,
    sandbox: SandboxProcess,
    conn: Conn,
    default: Callable[[], object],
    account_id: str,
) -> None:
    before = default()
    connect_account(connected, sandbox, account_id, due=False)
    overview = html.unescape(signed_in.get("/").text)
    [path] = [
        found for found in re.findall(r'row-name" href="([^"]+)"', overview) if found != "/accounts/default"
    ]
    page = html.unescape(signed_in.get(path).text)
    assert f"<code>{account_id}</code>" in page
    assert signed_in.get(path + ("&" if "?" in path else "?") + "fragment=1").status_code == 200

    [upload] = re.findall(r'href="(/upload[^"]*)"', page)
    [disconnect] = re.findall(r'href="(/accounts/[^"]*/disconnect[^"]*)"', page)
    [login] = re.findall(r'href="(/rd/login[^"]+)"', page)
    assert f'action="{path.replace("/accounts", "/rd/tokens", 1).split("?")[0]}/refresh' in page

    for action in re.findall(r'action="(/rd/tokens/[^"]+)"', page):
        assert signed_in.submit(action, page=path, next=path).location == path
    pair = sandbox.pair()
    form = html.unescape(signed_in.get(upload).text)
    [action] = re.findall(r'<form method="post" action="(/upload[^"]*)"', form)
    shown = dict(re.findall(r'name="(account_id)"[^>]* value="([^"]*)"', form))
    response = signed_in.submit(
        action,
        page=upload,
        **{name: value.replace("\n", "") for name, value in shown.items()},
        access_token=pair["access_token"],
        refresh_token=pair["refresh_token"],
        expires_in="86400",
    )
    assert (response.status_code, response.location) == (303, path)
    assert stored_pair(connected, conn, account_id)[0] == pair["access_token"]

    response = signed_in.get(login, {"Host": "localhost:8000"})
    assert response.status_code == 302
    states = conn.execute("SELECT account_id FROM rdstation_oauth_states").fetchall()
    assert states == [(account_id,)]

    asked = html.unescape(signed_in.get(disconnect).text)
    [confirmed] = re.findall(r'action="(/rd/tokens/[^"]+)"', asked)
    assert signed_in.submit(confirmed, page=disconnect).status_code == 303
    assert conn.execute("SELECT account_id FROM rdstation_tokens").fetchall() == [("default",)]
    assert default() == before


@pytest.mark.parametrize("account_id", [" default", "loja/centro", ".."])
def test_a_log_in_on_the_way_to_the_dialog_keeps_the_account(
    browser: Browser, connected: Services, sandbox: SandboxProcess, operator: Any, account_id: str
) -> None:
    connect_account(connected, sandbox, account_id, due=False)
    begin = "/rd/login?account_id=" + quote(account_id, safe="")
    response = browser.submit("/login", email=operator.email, password="correct horse battery", next=begin)
    page = html.unescape(browser.get(response.location).text)
    [target] = re.findall(r'class="button" href="([^"]+)"', page)
    assert parse_qs(urlsplit(target).query)["account_id"] == [account_id]


def test_a_path_and_a_query_that_name_two_accounts_are_refused(
    app: Flask, connected: Services, sandbox: SandboxProcess, make_key: Callable[..., str]
) -> None:
    connect_account(connected, sandbox, "one", due=False)
    connect_account(connected, sandbox, "two", due=False)
    key = make_key(*SCOPES)
    two = Program(app, key, "two")
    for method, path in (("GET", "one/access-token"), ("POST", "one/refresh"), ("DELETE", "one")):
        told = two.ask(method, f"/rd/tokens/{path}", 422).json or {}
        assert told["field"] == "account_id"
    two.ask("GET", "/rd/tokens/two/access-token")
    two.ask("DELETE", "/rd/tokens/two")


@pytest.mark.parametrize("account_id", ["loja/centro", "..", " a ", "x" * 201, "", "a\0b"])
def test_an_id_that_no_account_has_is_refused_where_a_new_account_may_not_have_it(
    app: Flask, make_key: Callable[..., str], account_id: str
) -> None:
    program = Program(app, make_key(*SCOPES), account_id)
    paths = [("GET", "/rd/tokens/-/access-token"), ("GET", "/rd/leads"), ("DELETE", "/rd/tokens/-")]
    for method, path in paths:
        assert (program.ask(method, path, 422).json or {})["field"] == "account_id"
    body = {"access_token": "a", "refresh_token": "b", "expires_in": 1, "account_id": account_id}
    assert (program.ask("POST", "/rd/tokens", 422, json=body).json or {})["field"] == "account_id"
