"""Pages that follow by themselves what happens, and that work without JavaScript as well."""

from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Response, expect

from rdservice.tokens import workers
from tests.support.site import Site, authorize, log_in

pytestmark = pytest.mark.slow

Conn = psycopg.Connection[Any]
REFUSE = "UPDATE rdstation_tokens SET status = 'reauthorization_required', last_error = 'revoked'"
ASK_NOW = "document.dispatchEvent(new Event('visibilitychange'))"
"""What the page does when somebody comes back to its tab."""


def is_news(response: Response) -> bool:
    return "fragment=1" in response.url


def test_a_change_is_seen_and_announced_without_a_reload(watched: Page, conn: Conn) -> None:
    conn.execute(REFUSE)
    account = watched.locator("[data-account=default]")
    expect(account).to_have_attribute("data-status", "reauthorization_required")
    expect(watched.locator("[data-verdict]")).to_have_attribute("data-verdict", "bad")
    expect(watched.locator("[data-live-announce]")).to_have_text("One account needs you")
    assert watched.evaluate("window.opened") is True
    conn.execute("UPDATE rdstation_tokens SET status = 'connected', last_error = NULL")
    expect(watched.locator("[data-verdict]")).to_have_attribute("data-verdict", "ok")
    expect(watched.locator("[data-finding]")).to_have_count(0)


def test_news_leave_focus_and_typed_text_where_they_are(watched: Page, conn: Conn) -> None:
    field = watched.get_by_label("Name of the account in this service")
    field.fill("branch")
    refresh = watched.get_by_role("link", name="Connect again")
    refresh.focus()
    conn.execute(REFUSE)
    watched.evaluate(ASK_NOW)
    expect(watched.locator("[data-account=default]")).to_have_attribute(
        "data-status", "reauthorization_required"
    )
    expect(field).to_have_value("branch")
    assert watched.evaluate("document.activeElement.textContent") == "Connect again"


def test_a_search_that_is_being_typed_outlives_news(watched: Page, conn: Conn) -> None:
    conn.execute(
        "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, expires_at)"
        " SELECT 'branch-2', access_token, refresh_token, expires_at FROM rdstation_tokens"
    )
    watched.evaluate(ASK_NOW)
    field = watched.get_by_label("Search by name or id")
    field.fill("bra")
    conn.execute(REFUSE)
    watched.evaluate(ASK_NOW)
    expect(watched.locator("[data-account=branch-2]")).to_have_attribute(
        "data-state", "reauthorization_required"
    )
    expect(field).to_have_value("bra")
    expect(field).to_be_focused()


def test_details_that_were_opened_stay_open(watched: Page, conn: Conn) -> None:
    conn.execute(
        "INSERT INTO rdstation_refresh_attempts (claim_no, account_id, authorization_id, reason, claimed_by, outcome)"
        " SELECT n, 'default', gen_random_uuid(), 'due', 'w', 'stored' FROM generate_series(1, 6) n"
    )
    watched.evaluate(ASK_NOW)
    watched.get_by_text("Earlier renewals").click()
    conn.execute(REFUSE)
    watched.evaluate(ASK_NOW)
    expect(watched.locator("[data-account=default]")).to_have_attribute(
        "data-status", "reauthorization_required"
    )
    expect(watched.locator("details[open] .timeline li")).to_have_count(2)


def test_nothing_is_sent_while_nothing_has_changed(watched: Page) -> None:
    with watched.expect_response(is_news) as first:
        watched.evaluate(ASK_NOW)
    assert first.value.status == 200
    with watched.expect_response(is_news) as second:
        watched.evaluate(ASK_NOW)
    assert (second.value.status, second.value.headers["etag"]) == (304, first.value.headers["etag"])


def test_buttons_of_a_page_that_was_renewed_work(watched: Page, conn: Conn) -> None:
    conn.execute("UPDATE rdstation_tokens SET last_error = 'timeout', failures = 1")
    watched.evaluate(ASK_NOW)
    expect(watched.locator("[data-account=default]")).to_have_attribute("data-state", "failing")
    watched.get_by_role("button", name="Refresh now").click()
    expect(watched.get_by_text("Renewed: the account has a fresh access token.")).to_be_visible()
    assert urlsplit(watched.url).path == "/accounts/default"


def test_a_page_says_that_it_lost_the_service_and_finds_it_again(watched: Page, conn: Conn) -> None:
    lost = watched.locator("[data-live-lost]")
    watched.route("**/*fragment=1*", lambda route: route.abort())
    watched.evaluate(ASK_NOW)
    expect(lost).to_be_visible()
    watched.unroute("**/*fragment=1*")
    watched.evaluate(ASK_NOW)
    expect(lost).to_be_hidden()


def test_a_page_says_that_its_session_has_ended(watched: Page, conn: Conn) -> None:
    conn.execute("DELETE FROM rdservice_sessions")
    watched.evaluate(ASK_NOW)
    ended = watched.locator("[data-live-ended]")
    expect(ended).to_be_visible()
    ended.get_by_role("link", name="Log in again").click()
    log_in(watched)
    expect(watched.locator("[data-account=default]")).to_be_visible()


def test_the_page_of_an_account_that_was_disconnected_elsewhere_says_so(watched: Page, conn: Conn) -> None:
    watched.goto(f"{watched.url}accounts/default")
    conn.execute("DELETE FROM rdstation_tokens")
    with watched.expect_navigation():
        watched.evaluate(ASK_NOW)
    expect(watched.get_by_role("heading", name="Not found")).to_be_visible()


def test_tokens_are_uploaded_by_form_and_never_written_into_the_page(
    site: Site, page: Page, conn: Conn
) -> None:
    pair = site.sandbox.pair()
    page.get_by_role("link", name="Upload them").click()
    page.get_by_label("Access token", exact=True).fill(pair["access_token"])
    page.get_by_label("Refresh token").fill(pair["refresh_token"])
    seconds = page.get_by_label("Seconds until")
    seconds.fill("soon")
    page.get_by_role("button", name="Upload").click()
    expect(seconds).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text("Enter a whole number of seconds")).to_be_visible()
    assert pair["access_token"] not in page.content()
    assert pair["refresh_token"] not in page.content()

    page.get_by_label("Access token", exact=True).fill(pair["access_token"])
    page.get_by_label("Refresh token").fill(pair["refresh_token"])
    seconds.fill("86400")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_text("The tokens of default are stored.")).to_be_visible()
    expect(page.locator("[data-account=default]")).to_have_attribute("data-status", "connected")
    assert pair["access_token"] not in page.content()


def test_without_javascript_all_of_it_works(
    site: Site, chromium: Browser, stored: tuple[Any, ...], conn: Conn
) -> None:
    workers.beat(conn, "worker-1")
    with chromium.new_context(locale="en-US", java_script_enabled=False) as plain:
        page = plain.new_page()
        page.goto(site.url)
        log_in(page)
        expect(page.locator("[data-verdict]")).to_have_attribute("data-verdict", "ok")
        page.get_by_role("button", name="Refresh now").click()
        expect(page.get_by_text("Renewed: the account has a fresh access token.")).to_be_visible()
        page.get_by_role("link", name="Disconnect").click()
        page.get_by_role("button", name="Disconnect").click()
        expect(page.get_by_text("No RD Station account is connected yet.")).to_be_visible()
        page.get_by_role("link", name="Connect to RD Station").click()
        authorize(page, site)
        expect(page.locator("[data-account=default]")).to_have_attribute("data-status", "connected")


@pytest.mark.parametrize("width", [320, 1280])
def test_no_page_scrolls_sideways(watched: Page, context: BrowserContext, width: int) -> None:
    watched.set_viewport_size({"width": width, "height": 800})
    for path in ("/", "/accounts/default", "/accounts/default/disconnect", "/upload", "/audit", "/nowhere"):
        watched.goto(urlsplit(watched.url)._replace(path=path).geturl())
        wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not watched.evaluate(wide), path
