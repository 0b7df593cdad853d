"""Pages speak through the catalogue: in a language of ⟦marked⟧ texts, no sentence is outside of the marks.

Outside stand names, codes, addresses, what is typed as it stands, and dates in the words of Babel.
"""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from flask import Flask
from psycopg.types.json import Jsonb

from rdservice.access import keys
from rdservice.services import Services
from tests.support.accounts import connect_account
from tests.support.browser import Browser
from tests.support.pseudo_language import spoken, unmarked

LETTER = re.compile(r"[^\W\d_]")
UNTOLD = {"script", "style", "time", "code", "pre"}
"""Elements without sentences: programs, times in Babel's words, and what is typed as it stands."""
TOLD_ATTRIBUTES = {"alt", "aria-label", "placeholder", "title"}
NAMES = re.compile(
    r"RD Station|Português|English|ana@example\.com|\b(?:shop|fresh|branch|lost|failing|expired|website)\b"
)
DATES = re.compile(r"\d+ de [a-zç.]+ de \d{4}(?: [\d:]+ BRT)?")
STATES = {
    "shop": ("connected", None, 0, 24),
    "fresh": ("unverified", None, 0, 24),
    "branch": ("reauthorization_required", "revoked", 1, 24),
    "lost": ("reauthorization_required", "answer_lost", 1, 24),
    "failing": ("connected", "server_error", 3, 1),
    "expired": ("connected", "timeout", 9, -1),
}
"""Status, last error, failures and hours of life by account."""
SET_STATE = """
UPDATE rdstation_tokens
SET status = %s, last_error = %s, failures = %s, expires_at = rd_now() + %s * interval '1 hour'
WHERE account_id = %s
"""
PAGES = {
    "status.show": ["/", "/?state=failing", "/?q=nothing", "/?state=unknown", "/?page=9"],
    "status.account": [f"/accounts/{name}" for name in (*STATES, "none")],
    "status.ask_to_disconnect": ["/accounts/shop/disconnect"],
    "status.connect": ["/connect", "/connect?account_id=shop", "/connect?account_id=a%2Fb"],
    "keys.show": ["/keys"],
    "keys.confirm": ["/keys/KEY/revoke", "/keys/aaaaaaaa/revoke"],
    "audit.show": ["/audit", "/audit?before=x"],
    "notifications.show": ["/notifications"],
    "diagnosis.show": ["/diagnosis"],
    "upload.show": ["/upload", "/upload?account_id=shop"],
    "password.show": ["/password"],
    "oauth.show": [f"/rd/authorizations/{name}" for name in ("another", "unknown", "dropped", "none")],
    "oauth.callback": ["/rd/callback", "/rd/callback?state=unknown&code=unknown"],
    "passthrough.call": ["/rd/api/nothing"],
}
"""Addresses of each page, by endpoint."""
NO_PAGES = re.compile(
    r"static|sign_in\.show|language_switch\..*|oauth\.login"
    r"|(?:health|metrics|openapi|tokens|leads|events|export)\..*"
)
"""Endpoints that answer programs or redirect a signed-in operator."""


class Words(HTMLParser):
    """Collects what a page shows or reads out, except for parts that declare themselves English."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._hidden: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in UNTOLD or self._hidden[-1:] == [tag] or (tag == "p" and ("lang", "en") in attrs):
            self._hidden.append(tag)
        self.found += [f"\n{value}\n" for name, value in attrs if name in TOLD_ATTRIBUTES and value]

    def handle_endtag(self, tag: str) -> None:
        if self._hidden[-1:] == [tag]:
            self._hidden.pop()

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.found.append(data)


def unmarked_lines(page: str) -> list[str]:
    """Return the lines of a page on which letters stand outside of the marks."""
    words = Words()
    words.feed(page)
    text = NAMES.sub("", DATES.sub("", unmarked("".join(words.found))))
    return [line.strip() for line in text.splitlines() if LETTER.search(line)]


@pytest.fixture
def key_id(conn: psycopg.Connection[Any], services: Services) -> str:
    """A key's ID, in a service with an account in each state."""
    for account_id, state in STATES.items():
        connect_account(services, account_id=account_id, due=False)
        conn.execute(SET_STATE, [*state, account_id])
    return keys.key_id(keys.create(conn, "website", ["leads:read"], created_by="ana@example.com"))


WAITING = """
INSERT INTO rdstation_waiting_pairs (pair_id, operator_id, session_hash, account_id, outcome, shown)
SELECT %(pair_id)s, operator_id, sha256(encode(token_hash, 'hex')::bytea), 'shop', %(outcome)s, %(shown)s
  FROM rdservice_sessions
"""


@pytest.fixture
def marked(signed_in: Browser, conn: psycopg.Connection[Any]) -> Iterator[Browser]:
    """A signed-in browser for which Portuguese is the pseudo-language, with each kind of question."""
    for kind in ("another", "unknown", "dropped"):
        question = {"pair_id": kind, "account_id": "shop", "kind": kind, "connection_id": str(uuid4())}
        question |= {"name": "Escola", "was": "Padaria"}
        outcome = "dropped" if kind == "dropped" else None
        conn.execute(WAITING, {"pair_id": kind, "outcome": outcome, "shown": Jsonb(question)})
    signed_in.headers["Accept-Language"] = "pt-BR"
    with spoken():
        yield signed_in


def test_what_is_not_marked_is_found() -> None:
    assert unmarked_lines("<p title='⟦Read⟧'>⟦Log in <b>now⟧</b></p>\n<p lang='en'>For programs</p>") == []
    assert unmarked_lines("<p title='Read'>Log in <code>key</code></p>") == ["Read", "Log in"]


def test_every_page(marked: Browser, key_id: str, app: Flask) -> None:
    endpoints = {rule.endpoint for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())}
    assert {one for one in endpoints if not NO_PAGES.fullmatch(one)} == PAGES.keys()
    for path in [path for paths in PAGES.values() for path in paths]:
        page = marked.get(path.replace("KEY", key_id))
        assert page.mimetype == "text/html", path
        assert "⟦" in page.text, path
        assert not unmarked_lines(page.text.replace(key_id, "")), path


def test_pages_for_visitors(app: Flask, services: Services) -> None:
    visitor = Browser(app, language="pt-BR")
    with spoken():
        for page in (
            visitor.get("/login"),
            visitor.submit("/login", email="ana@example.com", password="wrong"),
            visitor.get("/nothing"),
            visitor.open("DELETE", "/login"),
            visitor.open("POST", "/login"),
        ):
            assert "⟦" in page.text, page.request.path
            assert not unmarked_lines(page.text), page.request.path


def test_what_forms_answer(marked: Browser, key_id: str) -> None:
    for path, fields in (
        ("/keys", {"name": "", "scopes": "leads:read"}),
        ("/keys", {"name": "website", "scopes": "leads:read"}),
        (f"/keys/{key_id}/revoke", {}),
        ("/password", {"current_password": "wrong", "new_password": "a", "new_password_again": "b"}),
        ("/password", {"current_password": "wrong", "new_password": "a", "new_password_again": "a"}),
        ("/upload", {"account_id": "a/b", "access_token": "a b", "refresh_token": "", "expires_in": "x"}),
        ("/upload", {"account_id": "", "access_token": "a", "refresh_token": "r", "expires_in": "0"}),
        ("/rd/tokens/shop/refresh", {}),
        ("/rd/tokens/none/refresh", {}),
        ("/rd/tokens/shop/disconnect", {}),
        ("/rd/tokens/none/disconnect", {}),
        ("/notifications/test", {}),
    ):
        page = marked.submit(path, page="/password", **fields)
        if page.status_code == 303:
            page = marked.get(page.headers["Location"])
        assert "⟦" in page.text, path
        text = re.sub(r"rdk_\w+", "", page.text.replace(key_id, ""))
        assert not unmarked_lines(text), (path, page.status_code)
