"""The section about lead events on the account's page, its buttons, and the same for programs."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from flask import Flask

from rdservice.services import Services
from rdservice.web import create_app
from tests.support.accounts import connect_account
from tests.support.browser import Browser
from tests.support.deliveries import add, event, open_address
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
PAGE = "/accounts/shop"


@pytest.fixture
def app(connected: Services, sandbox: SandboxProcess) -> Flask:
    connect_account(connected, sandbox, "shop", due=False)
    return create_app(connected)


def state(browser: Browser, page: str = PAGE) -> str:
    text = browser.get(page).text
    return text.partition('data-subscriptions="')[2].partition('"')[0]


def test_the_buttons_subscribe_and_end_it_and_lead_back_to_the_page(signed_in: Browser) -> None:
    assert (state(signed_in), state(signed_in, "/")) == ("off", "off")
    response = signed_in.submit("/rd/tokens/shop/subscribe", PAGE, next=PAGE)
    assert (response.status_code, response.headers["Location"]) == (303, PAGE)
    assert "RD Station delivers the lead events of shop from now on." in signed_in.get(PAGE).text
    assert state(signed_in) == "on"
    response = signed_in.submit("/rd/tokens/shop/unsubscribe", PAGE, next="https://elsewhere.example/")
    assert response.headers["Location"] == PAGE
    assert state(signed_in) == "off"


def test_the_page_tells_when_the_latest_event_came(signed_in: Browser, connected: Services) -> None:
    secret = open_address(connected, "shop")
    assert "none yet" in signed_in.get(PAGE).text
    add(connected, secret, event())
    assert "none yet" not in signed_in.get(PAGE).text


def test_the_page_says_when_another_rd_station_account_made_it_void(
    signed_in: Browser, connected: Services, conn: Conn
) -> None:
    open_address(connected, "shop")
    conn.execute("UPDATE rdstation_tokens SET connection_id = gen_random_uuid()")
    assert state(signed_in) == "void"


def test_programs_are_answered_in_json(app: Flask, make_key: Callable[..., str]) -> None:
    program, headers = Browser(app, accept="*/*"), {"Authorization": f"Bearer {make_key('tokens:write')}"}
    responses = [
        program.open("POST", f"/rd/tokens/shop/{name}", headers).json
        for name in ("subscribe", "subscribe", "unsubscribe")
    ]
    assert responses == [
        {"account_id": "shop", "subscribed": subscribed, "changed": changed, "warnings": []}
        for subscribed, changed in ((True, True), (True, False), (False, True))
    ]
