"""Operators connect an account at RD Station, and what they read when that fails."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import requests
from playwright.sync_api import BrowserContext, Page, expect

from tests.conftest import CLIENT_ID, CLIENT_SECRET
from tests.support.site import (
    PASSWORD,
    Site,
    authorize,
    begin,
    come_back,
    expect_connected,
    expect_problem,
    log_in,
    read_row,
    restart_sandbox,
)

pytestmark = pytest.mark.slow

CODE_LIFETIME_S = 3_600


def test_an_operator_connects_refreshes_disconnects_and_connects_again(
    site: Site, context: BrowserContext, conn: psycopg.Connection[Any]
) -> None:
    site.processes.flask("operators", "create", "bia@example.com", "--password-stdin", text=f"{PASSWORD}\n")
    worker = site.processes.worker()
    try:
        page = context.new_page()
        page.goto(site.url)
        assert urlsplit(page.url).path == "/login"
        log_in(page, "bia@example.com")

        expect(page.get_by_text("No RD Station account is connected yet.")).to_be_visible()
        page.get_by_role("link", name="Connect to RD Station").click()
        came_back = authorize(page, site)
        expect_connected(page, site)

        before = read_row(conn)
        page.get_by_role("button", name="Refresh now").click()
        expect(page.get_by_text("Renewed: the account has a fresh access token.")).to_be_visible()
        after = read_row(conn)
        assert after != before

        # The code is exchanged once; the way back opened again shows the result again, and does no harm.
        page.goto(came_back)
        expect_connected(page, site)
        assert read_row(conn) == after
        expect(page.locator("[data-account=default]")).to_have_attribute("data-status", "connected")

        page.get_by_role("link", name="Disconnect").click()
        expect(page.get_by_role("heading", name="Disconnect")).to_be_visible()
        expect(page.get_by_text("RD Station is told to accept its tokens no longer")).to_be_visible()
        page.get_by_role("link", name="Keep it connected").click()
        expect(page.locator("[data-account=default]")).to_have_attribute("data-status", "connected")
        page.get_by_role("link", name="Disconnect").click()
        page.get_by_role("button", name="Disconnect").click()
        expect(page.get_by_text("RD Station no longer accepts its tokens")).to_be_visible()
        expect(page.get_by_text("No RD Station account is connected yet.")).to_be_visible()
        assert site.sandbox.calls()["revoke"] == {"200": 1}

        page.get_by_role("link", name="Connect to RD Station").click()
        authorize(page, site)
        expect_connected(page, site)

        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        page.goto(site.url)
        assert urlsplit(page.url).path == "/login"
    finally:
        worker.kill()


def test_a_connection_begun_at_127_0_0_1_ends_at_localhost_where_rd_station_comes_back(
    site: Site, context: BrowserContext
) -> None:
    page = context.new_page()
    page.goto(site.other_url)
    log_in(page)
    expect(page.get_by_text("No RD Station account is connected yet.")).to_be_visible()
    page.get_by_role("link", name="Connect to RD Station").click()

    # The session's cookie belongs to one host name: the other one asks who it is.
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    assert page.url.startswith(site.url)
    log_in(page)
    authorize(page, site)
    expect_connected(page, site)

    page.goto(site.other_url)
    expect(page.locator("[data-account=default]")).to_have_attribute("data-status", "connected")


def test_a_login_on_the_way_to_rd_station_goes_on_to_its_dialog(site: Site, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(f"{site.url}/rd/login?account_id=branch-2")
    log_in(page)
    authorize(page, site)
    expect(page.locator("[data-account=branch-2]")).to_have_attribute("data-status", "connected")


def test_two_tabs_connect_one_after_the_other(
    site: Site, page: Page, context: BrowserContext, conn: psycopg.Connection[Any]
) -> None:
    other = context.new_page()
    for tab in (page, other):
        tab.goto(f"{site.url}/rd/login")
    authorize(page, site)
    expect_connected(page, site)
    first = read_row(conn)
    authorize(other, site)
    expect_connected(other, site)
    assert read_row(conn) != first
    page.reload()
    expect(page.locator("[data-account]")).to_have_count(1)


def test_a_further_account_is_connected_by_its_name(site: Site, page: Page, stored: tuple[Any, ...]) -> None:
    page.reload()
    page.get_by_label("Name of the account in this service").fill("branch-2")
    page.get_by_role("button", name="Connect", exact=True).click()
    authorize(page, site)
    expect(page.locator("[data-account]")).to_have_count(2)
    expect(page.locator("[data-account=branch-2]")).to_have_attribute("data-status", "connected")


def test_refused_consent_says_so_and_changes_nothing(
    site: Site, page: Page, stored: tuple[Any, ...], conn: psycopg.Connection[Any]
) -> None:
    page.goto(f"{site.url}/rd/login")
    page.get_by_role("link", name="Recusar").click()
    expect_problem(page, "Authorization refused", "Connect again if that was a mistake.", "consent_refused")
    assert read_row(conn) == stored


NOT_RECOGNIZED = ("Authorization not recognized", "otherwise connect it again", "invalid_state")
CODE_DEAD = ("Authorization code expired", "Connect the account again.", "code_expired")


def change_state(_: Site, response: dict[str, str]) -> None:
    response["state"] = response["state"][:-1] + ("A" if response["state"][-1] != "A" else "B")


def drop_state(_: Site, response: dict[str, str]) -> None:
    del response["state"]


def drop_code(_: Site, response: dict[str, str]) -> None:
    del response["code"]


def use_code_up(site: Site, response: dict[str, str]) -> None:
    body = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "code": response["code"]}
    assert requests.post(f"{site.sandbox.url}/auth/token", json=body, timeout=10).status_code == 200


def let_code_expire(site: Site, _: dict[str, str]) -> None:
    site.sandbox.patch(clock_offset_s=CODE_LIFETIME_S + 1)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (change_state, NOT_RECOGNIZED),
        (drop_state, NOT_RECOGNIZED),
        (drop_code, NOT_RECOGNIZED),
        (use_code_up, CODE_DEAD),
        (let_code_expire, CODE_DEAD),
    ],
)
def test_a_spoiled_way_back_says_what_to_do_and_changes_nothing(
    site: Site,
    page: Page,
    stored: tuple[Any, ...],
    conn: psycopg.Connection[Any],
    spoil: Callable[[Site, dict[str, str]], None],
    expected: tuple[str, str, str],
) -> None:
    response = begin(page, site)
    spoil(site, response)
    come_back(page, site, response)
    expect_problem(page, *expected)
    assert read_row(conn) == stored


def test_a_way_back_after_more_than_ten_minutes_says_what_to_do_and_changes_nothing(
    site: Site, page: Page, stored: tuple[Any, ...], conn: psycopg.Connection[Any]
) -> None:
    response = begin(page, site)
    conn.execute("UPDATE rdstation_oauth_states SET created_at = created_at - interval '11 min'")
    come_back(page, site, response)
    expect_problem(page, *NOT_RECOGNIZED)
    assert read_row(conn) == stored


def test_a_wrong_client_secret_says_what_to_do_and_changes_nothing(
    site: Site, page: Page, stored: tuple[Any, ...], conn: psycopg.Connection[Any]
) -> None:
    response = begin(page, site)
    restart_sandbox(site, client_secret="another-secret")
    try:
        come_back(page, site, response)
        expect_problem(
            page, "Code or credentials refused", "RDSTATION_CLIENT_SECRET against the app", "code_refused"
        )
        assert read_row(conn) == stored
    finally:
        restart_sandbox(site, client_secret=CLIENT_SECRET)


def test_rd_station_down_says_what_to_do_and_changes_nothing(
    site: Site, page: Page, stored: tuple[Any, ...], conn: psycopg.Connection[Any]
) -> None:
    response = begin(page, site)
    site.sandbox.stop()
    try:
        come_back(page, site, response)
        expect_problem(page, "RD Station unavailable", "Try again in some minutes.", "rdstation_unavailable")
        assert read_row(conn) == stored
    finally:
        site.sandbox.start()


def test_the_page_says_what_to_do_when_rd_station_took_its_consent_back(
    site: Site, page: Page, stored: tuple[Any, ...]
) -> None:
    site.sandbox.revoke()
    page.reload()
    page.get_by_role("button", name="Refresh now").click()
    card = page.locator("[data-account=default]")
    expect(card).to_have_attribute("data-status", "reauthorization_required")
    expect(page.get_by_text("Connect the account again")).to_be_visible()
    card.get_by_role("link", name="Connect again").click()
    authorize(page, site)
    expect_connected(page, site)
