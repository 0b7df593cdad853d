"""What routes leave in the audit, and the page that shows it."""

import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from flask import Flask

from rdservice.access import audit, keys, operators
from rdservice.services import Services
from rdservice.web import create_app
from rdservice.web.http import guard
from rdservice.web.pages.audit import PAGE
from rdservice.web.text.audit_texts import action_words
from tests.integration.web.conftest import EMAIL, PASSWORD
from tests.support.accounts import BY, connect_account
from tests.support.browser import Browser
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]


DEEDS: dict[str, set[str]] = {
    "POST /rd/tokens": {"tokens_uploaded"},
    "POST /upload": {"tokens_uploaded"},
    "POST /rd/tokens/<account_id>/refresh": {"tokens_refreshed"},
    "DELETE /rd/tokens/<account_id>": {"account_disconnected"},
    "POST /rd/tokens/<account_id>/subscribe": {"events_subscribed"},
    "POST /rd/tokens/<account_id>/unsubscribe": {"events_unsubscribed"},
    "POST /rd/tokens/<account_id>/disconnect": {"account_disconnected"},
    "GET /rd/callback": {"account_connected"},
    "POST /rd/authorizations/<pair_id>": {"account_connected", "account_disconnected"},
    "POST /login": {"logged_in", "login_failed"},
    # It changes nothing, but takes all leads away.
    "GET /rd/leads/export": {"leads_exported"},
    "POST /notifications/test": {"notification_tested"},
    "POST /rd/privacy/erase": {"erasure_begun", "person_erased"},
    "POST /keys": {"key_created"},
    "POST /keys/<key_id>/revoke": {"key_revoked"},
    "POST /password": {"password_changed", "login_failed"},
    # It looks, and changes nothing.
    "POST /diagnosis": set(),
    # Who logs out loses a right and changes nothing.
    "POST /logout": set(),
    # A question whose e-mail address is in the body.
    "POST /rd/leads/lookup": set(),
    # What a program changes at RD Station is between the two.
    **{f"{method} /rd/api/<path:path>": set() for method in ("POST", "PUT", "PATCH", "DELETE")},
    # What RD Station tells is kept for itself, in order.
    "POST /rd/webhooks/<secret>": set(),
}
"""What the routes that change something leave behind."""


@pytest.fixture
def app(connected: Services) -> Flask:
    return create_app(connected)


def last(conn: Conn) -> audit.Entry:
    return audit.newest(conn, limit=1)[0]


def test_every_route_that_may_change_something_says_what_it_leaves_in_the_audit(app: Flask) -> None:
    unsafe = {
        f"{method} {rule.rule}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) & guard.UNSAFE_METHODS
    }
    assert DEEDS.keys() == unsafe | {"GET /rd/callback", "GET /rd/leads/export"}


def test_what_a_program_does_is_known_by_its_key(
    app: Flask, sandbox: SandboxProcess, conn: Conn, make_key: Callable[..., str]
) -> None:
    key = make_key("tokens:write")
    headers = {"Authorization": f"Bearer {key}"}
    program = Browser(app, accept="*/*")

    def does(method: str, path: str, route: str, **more: Any) -> audit.Entry:
        response = program.open(method, path, headers, **more)
        assert response.status_code == 200
        entry = last(conn)
        assert f"{method} {route}" == entry.origin
        assert {entry.action} == DEEDS[entry.origin]
        assert (entry.actor_kind, entry.actor_id, entry.actor_name) == ("key", key[4:12], "a program")
        assert (entry.account_id, entry.request_id) == ("shop", response.headers["X-Request-ID"])
        return entry

    pair = sandbox.pair() | {"account_id": "shop"}
    uploaded = does("POST", "/rd/tokens", "/rd/tokens", json=pair)
    assert uploaded.details.keys() == {"verified", "name"}
    assert program.open("POST", "/rd/tokens", headers, json=pair).status_code == 200
    assert last(conn) == uploaded, "the very same pair changes nothing"
    does("POST", "/rd/tokens/shop/refresh", "/rd/tokens/<account_id>/refresh")
    does("POST", "/rd/tokens/shop/subscribe", "/rd/tokens/<account_id>/subscribe")
    does("POST", "/rd/tokens/shop/unsubscribe", "/rd/tokens/<account_id>/unsubscribe")
    does("DELETE", "/rd/tokens/shop", "/rd/tokens/<account_id>")
    everything = str(conn.execute("SELECT a::text FROM rdservice_audit a").fetchall())
    assert not [
        secret for secret in (pair["access_token"], pair["refresh_token"], key[13:]) if secret in everything
    ]


def test_what_was_refused_leaves_nothing(
    app: Flask, sandbox: SandboxProcess, conn: Conn, make_key: Callable[..., str]
) -> None:
    program, headers = Browser(app, accept="*/*"), {"Authorization": f"Bearer {make_key('tokens:write')}"}
    refused = sandbox.pair() | {"access_token": "not-one-of-theirs"}
    assert program.open("POST", "/rd/tokens", headers, json=refused).status_code == 422
    assert program.open("DELETE", "/rd/tokens/default", headers).status_code == 404
    assert program.open("POST", "/rd/tokens/default/refresh", headers).status_code == 409
    weak = {"Authorization": f"Bearer {make_key('tokens:read')}"}
    assert program.open("POST", "/rd/tokens", weak, json=sandbox.pair()).status_code == 403
    assert audit.newest(conn, limit=10) == []


def test_what_an_operator_does_is_known_by_e_mail_also_when_the_operator_is_gone(
    signed_in: Browser, sandbox: SandboxProcess, conn: Conn, operator: operators.Operator
) -> None:
    dialog = signed_in.get("/rd/login?account_id=shop", {"Host": "localhost:8000"}).headers["Location"]
    state = re.search(r"state=([\w-]+)", dialog)
    assert state is not None
    signed_in.get(f"/rd/callback?state={state[1]}&code={sandbox.code()}")
    connected = last(conn)
    signed_in.submit("/rd/tokens/shop/refresh", "/")
    refreshed = last(conn)
    signed_in.submit("/rd/tokens/shop/disconnect", "/")
    disconnected = last(conn)
    for entry in (connected, refreshed, disconnected):
        assert {entry.action} == DEEDS[entry.origin]
        assert (entry.actor_kind, entry.actor_id, entry.actor_name) == (
            "operator",
            operator.operator_id,
            EMAIL,
        )
        assert entry.account_id == "shop"
    assert operators.remove(conn, EMAIL)
    assert last(conn) == disconnected


def test_log_ins_and_failed_ones_are_told_apart_and_nothing_typed_is_kept(
    app: Flask, operator: operators.Operator, conn: Conn
) -> None:
    browser = Browser(app)
    for _ in range(3):
        assert browser.log_in("ANA@example.com", "guessed wrong").status_code == 401
        assert browser.log_in("somebody@example.com", PASSWORD).status_code == 401
    assert browser.log_in("ANA@example.com", PASSWORD).status_code == 303
    entries = audit.newest(conn, limit=10)
    assert [(entry.action, entry.actor_kind, entry.actor_name, entry.subject) for entry in entries] == [
        ("logged_in", "operator", EMAIL, None),
        ("login_failed", "unknown", None, None),
        ("login_failed", "unknown", None, EMAIL),
    ]
    everything = str(conn.execute("SELECT a::text FROM rdservice_audit a").fetchall())
    assert not [word for word in ("somebody", "guessed", PASSWORD, "192.0.2.1") if word in everything]


def test_the_page_shows_the_newest_first_and_leads_to_older_ones(signed_in: Browser, conn: Conn) -> None:
    numbers = [audit.record(conn, BY, "key_created", subject=f"key{n}") for n in range(PAGE + 5)]

    def shown(path: str) -> tuple[list[int], str | None]:
        page = signed_in.get(path)
        assert page.status_code == 200
        link = re.search(r'rel="next" href="([^"]+)"', page.text)
        return [int(number) for number in re.findall(r'data-entry="(\d+)"', page.text)], link and link[1]

    first, older = shown("/audit")
    assert first == numbers[::-1][:PAGE]
    assert older is not None
    rest, end = shown(older)
    # The log-in comes before all of them.
    assert (rest[:5], len(rest), end) == (numbers[::-1][PAGE:], 6, None)
    assert shown("/audit?before=0") == ([], None)


def test_the_page_has_times_for_machines_and_escapes_names(signed_in: Browser, conn: Conn) -> None:
    audit.record(conn, BY, "key_created", subject="<script>x</script>", scopes=["leads:read", "api:call"])
    page = signed_in.get("/audit").text
    assert "&lt;script&gt;x&lt;/script&gt;" in page
    assert "<script>" not in page
    assert "scopes: leads:read api:call" in page
    audit.record(conn, BY, "tokens_uploaded", account_id="shop", verified=False)
    audit.record(conn, BY, "person_erased", accounts=3, removed=12, left=0)
    page = signed_in.get("/audit").text
    assert "not checked with RD Station" in page
    assert re.search(r"rows deleted: 12\b", page)
    assert re.search(r'<time datetime="[^"]+\+00:00" title="[^"]+">[^<]+</time>', page)
    assert "API key created" in page
    assert "Command line (tester)" in page


@pytest.mark.parametrize("before", ["", "x", "-1", "9" * 19])
def test_a_wrong_page_is_refused(signed_in: Browser, before: str) -> None:
    assert signed_in.get(f"/audit?before={before}").status_code == 422


def test_no_key_may_see_the_audit(app: Flask, make_key: Callable[..., str]) -> None:
    headers = {"Authorization": f"Bearer {make_key(*keys.SCOPES)}"}
    assert Browser(app, accept="*/*").get("/audit", headers).status_code == 403
    assert Browser(app, accept="*/*").get("/audit").status_code == 401


def test_every_action_has_words_in_both_languages(app: Flask) -> None:
    for language in ("en", "pt-BR"):
        with app.test_request_context(headers={"Accept-Language": language}):
            words = [action_words(action) for action in audit.ACTIONS]
        assert not set(words) & set(audit.ACTIONS)
        assert len(set(words)) == len(words)


def test_the_status_page_leads_to_the_audit(signed_in: Browser, connected: Services) -> None:
    connect_account(connected)
    assert 'href="/audit"' in signed_in.get("/").text
    portuguese = Browser(signed_in.client.application, language="pt-BR")
    portuguese.log_in(EMAIL, PASSWORD)
    assert "<h1>Auditoria</h1>" in portuguese.get("/audit").text
