"""The rules that pages give to browsers: they hold, and the pages themselves keep them."""

from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.site import Site, log_in, read_row

pytestmark = pytest.mark.slow

STYLED = "getComputedStyle(document.querySelector('.card')).borderRadius !== '0px'"
EVIL = """<!doctype html><title>Evil</title><iframe></iframe>
<form method="post"><input name="csrf_token"><button>Win a prize</button></form>"""


def test_no_page_breaks_its_own_content_security_policy(
    site: Site, page: Page, stored: tuple[Any, ...]
) -> None:
    # The fixture `context` fails on whatever Chromium complains of: a refused style, script, image or form.
    for path, words in {
        "/": "The worker is not running",
        "/accounts/default": "Renewals",
        "/accounts/default/disconnect": "If you disconnect, you lose",
        "/upload": "Refresh token",
        "/nowhere": "Error 404",
        "/rd/callback": "Error 400",
        "/rd/tokens/absent/access-token": "Error 409",
    }.items():
        page.goto(f"{site.url}{path}")
        expect(page.locator("main")).to_contain_text(words)
        assert page.evaluate(STYLED), f"the style sheet was not applied to {path}"
    with page.expect_request(lambda request: urlsplit(request.url).path == "/rd/login"):
        page.goto(f"{site.url}/connect?account_id=branch-2")
    page.wait_for_url(f"{site.sandbox.url}/auth/dialog**")
    page.goto(site.url)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    assert page.evaluate(STYLED)


def test_another_site_can_neither_frame_a_page_nor_send_a_form_as_the_operator(
    site: Site, chromium: Browser, stored: tuple[Any, ...], conn: psycopg.Connection[Any]
) -> None:
    with chromium.new_context(locale="en-US") as opened:
        opened.set_default_timeout(15_000)
        page = opened.new_page()
        page.goto(site.url)
        log_in(page)
        token = page.locator("[name=csrf_token]").first.get_attribute("value")
        # Browsers take localhost and 127.0.0.1 for two sites.
        attacker = opened.new_page()
        attacker.route(
            f"{site.other_url}/evil", lambda route: route.fulfill(body=EVIL, content_type="text/html")
        )
        attacker.goto(f"{site.other_url}/evil")
        refused_frame = attacker.expect_event(
            "framenavigated", lambda frame: frame.url.startswith("chrome-error://")
        )
        with refused_frame:
            attacker.evaluate(
                "([url, token]) => { document.querySelector('iframe').src = url;"
                " const form = document.querySelector('form');"
                " form.action = url + '/rd/tokens/default/disconnect'; form.csrf_token.value = token; }",
                [site.url, token],
            )
        refused: list[str] = []
        for target, credentials in (("/rd/tokens", "include"), ("/", "include"), ("/metrics", "omit")):
            read = "url => fetch(url[0], {credentials: url[1]}).then(a => a.text()).catch(e => e.name)"
            refused.append(attacker.evaluate(read, [f"{site.url}{target}", credentials]))
        assert refused == ["TypeError"] * 3
        with attacker.expect_navigation() as navigation:
            attacker.get_by_role("button", name="Win a prize").click()
        # SameSite=Lax keeps the cookie away from another site's POST.
        assert navigation.value is not None
        assert navigation.value.status == 401
        page.reload()
        expect(page.locator("[data-account=default]")).to_have_attribute("data-status", "connected")
    assert read_row(conn) == stored
