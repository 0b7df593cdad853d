"""Pages under the hands of those who use the keyboard alone, or a browser without JavaScript."""

from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from playwright.sync_api import Locator, Page, expect

from rdservice.tokens import workers
from tests.e2e.browser.conftest import Browse
from tests.support.site import EMAIL, PASSWORD, Site, submit_login

pytestmark = pytest.mark.slow

Conn = psycopg.Connection[Any]
MOST_STOPS = 60
OUTLINED = "place => getComputedStyle(place).outlineStyle !== 'none' && getComputedStyle(place).outlineWidth !== '0px'"


def test_the_keyboard_alone_leads_from_the_login_to_a_connected_account_and_out_again(
    site: Site, browse: Browse, conn: Conn
) -> None:
    page = browse(locale="en-US", reduced_motion="reduce").new_page()
    page.goto(site.url)
    expect(page.get_by_label("E-mail")).to_be_focused()
    page.keyboard.type(EMAIL)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Connect to RD Station")).to_be_visible()

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_role("link", name="Connect to RD Station"))
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site.sandbox.url}/auth/dialog**")
    tab_to(page, page.get_by_role("button", name="Autorizar"), ours=False)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site.url}/")
    expect(page.locator("[data-account=default]")).to_have_attribute("data-status", "connected")

    tab_to(page, page.get_by_role("link", name="Disconnect"))
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_role("button", name="Disconnect"))
    page.keyboard.press("Enter")
    expect(page.get_by_text("No RD Station account is connected yet.")).to_be_visible()
    tab_to(page, page.get_by_role("button", name="Log out"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()


def test_without_javascript_pages_never_reload_by_themselves_and_forms_work(
    site: Site, browse: Browse, stored: tuple[Any, ...], conn: Conn
) -> None:
    workers.beat(conn, "worker-1")
    page = browse(locale="en-US", java_script_enabled=False).new_page()
    page.goto(site.url)
    submit_login(page)
    page.get_by_role("link", name="API keys").click()
    page.get_by_label("Name of the program").fill("website")
    page.locator("[name=scopes]").first.check()
    page.get_by_role("button", name="Create the key").click()
    expect(page.get_by_label("Key of website")).to_be_visible()
    expect(page.get_by_role("button", name="Copy")).to_be_hidden()
    page.get_by_role("link", name="I have kept the key").click()
    page.get_by_role("link", name="Overview").click()
    page.get_by_role("button", name="Refresh now").click()
    expect(page.get_by_text("Renewed: the account has a fresh access token.")).to_be_visible()
    page.get_by_role("link", name="Português").click()
    expect(page.get_by_role("link", name="Visão geral", exact=True)).to_be_visible()
    page.get_by_role("button", name="Sair").click()
    assert urlsplit(page.url).path == "/login"


def tab_to(page: Page, target: Locator, *, ours: bool = True) -> None:
    """Press Tab until `target` has the focus; on `ours`, each stop on the way must be seen to have it."""
    for _ in range(MOST_STOPS):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        if focused.count() == 0:
            continue
        if ours:
            assert focused.evaluate(OUTLINED), focused.evaluate("place => place.outerHTML")
        if target.evaluate("place => place === document.activeElement"):
            return
    pytest.fail(f"the keyboard does not lead to {target}")
