"""The page about notifications, and its button."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from flask import Flask

from rdservice.access import audit, operators
from rdservice.config.settings import Settings
from rdservice.notifications import deliveries
from rdservice.notifications.notifier import Notifier
from rdservice.services import Services
from rdservice.web import create_app
from tests.conftest import Clock
from tests.integration.web.conftest import EMAIL, PASSWORD
from tests.support.accounts import connect_account
from tests.support.browser import Browser
from tests.support.odd_server import OddServer, odd_server, respond_with

Conn = psycopg.Connection[Any]
PLANTED = "planted-password-of-a-receiver"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
REFUSED = b"HTTP/1.1 500 Odd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.fixture
def good() -> Iterator[OddServer]:
    with odd_server(respond_with(OK)) as server:
        yield server


@pytest.fixture
def bad() -> Iterator[OddServer]:
    with odd_server(respond_with(REFUSED)) as server:
        yield server


@pytest.fixture
def services(
    make_services: Callable[[Settings], Services], variables: dict[str, str], good: OddServer, bad: OddServer
) -> Services:
    urls = [
        f"json://user:{PLANTED}@{server.url.removeprefix('http://')}/{name}?%2BX-Key={PLANTED}"
        for server, name in ((good, "good"), (bad, "bad"))
    ]
    return make_services(Settings.from_mapping(variables | {"NOTIFY_URLS": " ".join(urls)}))


@pytest.fixture
def app(services: Services) -> Flask:
    return create_app(services)


def work(services: Services) -> None:
    """Do what the worker's thread does."""
    notifier = Notifier(services.pool, services.settings, services.metrics)
    notifier.compare()
    while notifier.send_next():
        pass


def test_the_button_sends_a_test_and_the_page_shows_what_became_of_it_at_each_receiver(
    services: Services, signed_in: Browser, good: OddServer, bad: OddServer, conn: Conn
) -> None:
    assert signed_in.submit("/notifications/test", page="/notifications").status_code == 303
    page = signed_in.get("/notifications").text
    assert page.count("Waiting for the worker") == 2
    work(services)
    page = signed_in.get("/notifications?fragment=1").text
    assert "Sent</span>" in page
    assert "HTTP status 500" in page
    assert PLANTED not in page
    assert (len(good.received), len(bad.received)) == (1, 1)
    assert b"mensagem de teste" in good.received[0]
    [entry] = [entry for entry in audit.newest(conn, limit=5) if entry.action == "notification_tested"]
    assert entry.actor_name == EMAIL


def test_a_second_test_has_to_wait_half_a_minute(signed_in: Browser, conn: Conn, clock: Clock) -> None:
    assert signed_in.submit("/notifications/test", page="/notifications").status_code == 303
    refused = signed_in.submit("/notifications/test", page="/notifications")
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 30
    assert len(deliveries.newest(conn, limit=10)) == 2
    clock.advance(31)
    assert signed_in.submit("/notifications/test", page="/notifications").status_code == 303


def test_a_test_that_no_worker_takes_is_told_so(
    services: Services, signed_in: Browser, clock: Clock, conn: Conn
) -> None:
    signed_in.submit("/notifications/test", page="/notifications")
    clock.advance(601)
    Notifier(services.pool, services.settings, services.metrics).compare()
    page = signed_in.get("/notifications").text
    assert "no worker tried it" in page


def test_open_incidents_are_on_the_page_with_their_accounts(
    services: Services, signed_in: Browser, conn: Conn
) -> None:
    assert "No open incidents" in signed_in.get("/notifications").text
    connect_account(services, account_id="shop", due=False)
    conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required', name = 'Padaria <Um>'")
    work(services)
    page = signed_in.get("/notifications").text
    assert "Padaria &lt;Um&gt;" in page
    assert "Must be authorized again" in page
    assert "not yet" in page


def test_without_receivers_the_page_says_that_nobody_is_told_and_offers_no_test(
    make_services: Callable[[Settings], Services], settings: Settings, operator: operators.Operator
) -> None:
    browser = Browser(create_app(make_services(settings)))
    browser.log_in(EMAIL, PASSWORD)
    page = browser.get("/notifications").text
    assert "NOTIFY_URLS is not set" in page
    assert "/notifications/test" not in page


def test_the_page_is_in_portuguese_for_everybody_else(app: Flask, operator: operators.Operator) -> None:
    browser = Browser(app, language="pt-BR")
    browser.log_in(EMAIL, PASSWORD)
    page = browser.get("/notifications").text
    assert "Incidentes abertos" in page
    assert "Enviar um teste" in page
