"""The part of a page that its script asks for again: what it is, and what asking costs."""

from typing import Any

import psycopg
import pytest
from flask import Flask

from rdservice.services import Services
from rdservice.tokens import workers
from tests.conftest import Clock
from tests.support.accounts import connect_account
from tests.support.browser import Browser

Conn = psycopg.Connection[Any]
SCRIPT = {"Accept": "*/*"}
HOUR_S = 3_600


@pytest.fixture(autouse=True)
def _an_account(services: Services, conn: Conn) -> None:
    connect_account(services, due=False)
    workers.beat(conn, "worker-1")


@pytest.mark.parametrize("path", ["/", "/accounts/default"])
def test_the_part_is_what_the_page_includes(signed_in: Browser, path: str) -> None:
    page = signed_in.get(path).text
    part = signed_in.get(f"{path}?fragment=1", SCRIPT)
    assert (part.status_code, part.mimetype) == (200, "text/html")
    assert "<html" not in part.text
    assert part.text.strip().split("csrf_token")[0] in page
    assert page.count("data-live=") == 1
    assert '<script src="/static/live.js" defer></script>' in page


@pytest.mark.parametrize("path", ["/?fragment=1", "/accounts/default?fragment=1"])
def test_nothing_is_sent_while_nothing_has_changed(signed_in: Browser, conn: Conn, path: str) -> None:
    first = signed_in.get(path, SCRIPT)
    again = signed_in.get(path, SCRIPT | {"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["Cache-Control"] == "no-store"
    conn.execute("UPDATE rdstation_tokens SET last_error = 'timeout'")
    changed = signed_in.get(path, SCRIPT | {"If-None-Match": first.headers["ETag"]})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != first.headers["ETag"]


def test_the_forms_in_a_part_work(signed_in: Browser) -> None:
    assert signed_in.submit("/rd/tokens/default/disconnect", page="/?fragment=1").status_code == 303


def test_who_is_not_logged_in_is_told_so_and_not_sent_to_a_page(app: Flask) -> None:
    response = Browser(app).get("/?fragment=1", SCRIPT)
    assert (response.status_code, response.get_json()["code"]) == (401, "unauthorized")


def test_a_page_that_is_left_open_does_not_keep_its_session_alive(signed_in: Browser, clock: Clock) -> None:
    for _ in range(11):
        clock.advance(HOUR_S)
        assert signed_in.get("/?fragment=1", SCRIPT).status_code == 200
    clock.advance(HOUR_S + 60)
    assert signed_in.get("/?fragment=1", SCRIPT).status_code == 401


def test_somebody_who_uses_the_page_keeps_the_session_alive(signed_in: Browser, clock: Clock) -> None:
    for _ in range(3):
        clock.advance(11 * HOUR_S)
        assert signed_in.get("/", SCRIPT).status_code == 200
