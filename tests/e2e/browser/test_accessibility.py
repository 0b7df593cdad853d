"""Pages in each state: axe finds nothing, in both languages, light and dark, and phones show and reach all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
import pytest
from playwright.sync_api import Page, expect

from dev.screenshots import story
from rdservice.access import keys
from rdservice.tokens import workers
from tests.e2e.browser.conftest import Browse
from tests.support.axe import COLOUR_RULES, expect_accessible
from tests.support.site import Site, begin, come_back, connect_account, submit_login

pytestmark = pytest.mark.slow

Conn = psycopg.Connection[Any]

LANGUAGES = ["pt-BR", "en-US"]
DESK, PHONE = 1280, 375
SMALLEST_TARGET = 24
"""CSS pixels: WCAG 2.2, success criterion 2.5.8."""
TOO_WIDE = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
# A link within a sentence is as high as its line: the criterion leaves those out.
POOR_TARGETS = """least => [...document.querySelectorAll('a, button, input:not([type=hidden]), summary')]
  .filter(target => target.checkVisibility() && !target.matches('p a, .skip'))
  .map(target => [target.outerHTML.slice(0, 120), (target.closest('.check') ?? target).getBoundingClientRect()])
  .filter(([, box]) => box.height < least || box.width < least || box.left < 0 || box.right > innerWidth)
  .map(([html, box]) => `${Math.round(box.width)}x${Math.round(box.height)} ${html}`)"""

STATES: dict[str, LiteralString] = {
    "connected": "UPDATE rdstation_tokens SET status = 'connected'",
    "failing": "UPDATE rdstation_tokens SET last_error = 'timeout', failures = 2",
    "unverified": "UPDATE rdstation_tokens SET status = 'unverified'",
    "expired": "UPDATE rdstation_tokens SET expires_at = rd_now() - interval '1 hour', last_error = 'connection'",
    "credentials_refused": "UPDATE rdstation_tokens SET status = 'credentials_refused', last_error = 'credentials'",
    "reauthorization_required": "UPDATE rdstation_tokens"
    " SET status = 'reauthorization_required', last_error = 'revoked'",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """What a page is arranged with."""

    site: Site
    conn: Conn
    page: Page

    def go(self, path: str) -> None:
        self.page.goto(self.site.url + path)


def nothing_connected(scene: Scene) -> None:
    scene.go("/")


def connected_with_a_month_of_history(scene: Scene) -> None:
    connect_account(scene.site, scene.conn, name="Padaria Moreira")
    workers.beat(scene.conn, "worker-1")
    story.renewals_of_a_month(scene.conn, "default", last_age_s=3_600)
    story.traffic_of_a_day(scene.conn)
    scene.go("/")
    for summary in scene.page.locator("summary").all():
        summary.click()


def only_another_account(scene: Scene) -> None:
    connect_account(scene.site, scene.conn, "demo", name="Padaria Moreira")
    scene.go("/")


def many_accounts(scene: Scene) -> None:
    connect_account(scene.site, scene.conn, name="Padaria Moreira")
    scene.conn.execute(
        "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, expires_at, status, last_error)"
        " SELECT 'branch-' || n, access_token, refresh_token, expires_at,"
        "        CASE n % 4 WHEN 0 THEN 'reauthorization_required' WHEN 1 THEN 'unverified' ELSE 'connected' END,"
        "        CASE n % 4 WHEN 0 THEN 'revoked' WHEN 2 THEN 'timeout' END"
        "   FROM rdstation_tokens, generate_series(1, 60) n"
    )


def a_page_of_many_accounts(scene: Scene) -> None:
    many_accounts(scene)
    scene.go("/?q=branch&page=2")
    expect(scene.page.locator(".pagination a")).to_have_count(2)


def a_search_that_finds_nothing(scene: Scene) -> None:
    many_accounts(scene)
    scene.go("/?q=nobody")


def account_in(state: str) -> Callable[[Scene], None]:
    def arrange(scene: Scene) -> None:
        connect_account(scene.site, scene.conn, name="Padaria Moreira")
        workers.beat(scene.conn, "worker-1")
        scene.conn.execute(STATES[state])
        scene.go("/accounts/default")
        expect(scene.page.locator(f"[data-state={state}]")).to_be_visible()

    return arrange


def no_worker(scene: Scene) -> None:
    connect_account(scene.site, scene.conn)
    scene.go("/")
    expect(scene.page.locator("[data-finding=worker_not_running]")).to_be_visible()


def disconnect_confirmation(scene: Scene) -> None:
    connect_account(scene.site, scene.conn)
    scene.go("/accounts/default/disconnect")


def authorization_of_another_account(scene: Scene) -> None:
    connect_account(scene.site, scene.conn, name="Padaria Moreira")
    response = begin(scene.page, scene.site) | {"code": scene.site.sandbox.code("account-2")}
    come_back(scene.page, scene.site, response)
    expect(scene.page.locator("[data-question=another]")).to_be_visible()


def authorization_of_an_unknown_account(scene: Scene) -> None:
    connect_account(scene.site, scene.conn, name="Padaria Moreira")
    scene.site.sandbox.patch(faults=[{"operation": "account_info", "kind": "html"}])
    come_back(scene.page, scene.site, begin(scene.page, scene.site))
    expect(scene.page.locator("[data-question=unknown]")).to_be_visible()


def upload_form(scene: Scene) -> None:
    scene.go("/upload")


def upload_form_with_an_error(scene: Scene) -> None:
    scene.go("/upload")
    scene.page.locator("#access_token").fill("a")
    scene.page.locator("#refresh_token").fill("r")
    scene.page.locator("#expires_in").fill("soon")
    scene.page.locator("main form button").click()
    expect(scene.page.locator("#expires_in-error")).to_be_visible()


def no_keys(scene: Scene) -> None:
    scene.go("/keys")


def several_keys(scene: Scene) -> None:
    scope = [next(iter(keys.SCOPES))]
    keys.create(scene.conn, "website", scope, created_by="ana@example.com")
    revoked = keys.create(scene.conn, "old website", scope, created_by="ana@example.com")
    keys.revoke(scene.conn, keys.key_id(revoked))
    scene.go("/keys")
    expect(scene.page.locator("[data-key]")).to_have_count(2)


def key_form_with_errors(scene: Scene) -> None:
    scene.go("/keys")
    scene.page.locator("#name").fill(" ")
    scene.page.locator("#new form button").click()
    expect(scene.page.locator(".field-error")).not_to_have_count(0)


def key_that_was_made(scene: Scene) -> None:
    scene.go("/keys")
    scene.page.locator("#name").fill("website")
    scene.page.locator("[name=scopes]").first.check()
    scene.page.locator("#new form button").click()
    expect(scene.page.locator("#key")).to_be_visible()


def key_revocation(scene: Scene) -> None:
    several_keys(scene)
    scene.page.locator("[data-key] a.danger").click()


def audit(scene: Scene) -> None:
    key_that_was_made(scene)
    scene.go("/audit")
    expect(scene.page.locator("[data-entry]").first).to_be_visible()


def notifications(scene: Scene) -> None:
    connect_account(scene.site, scene.conn, name="Padaria Moreira")
    scene.conn.execute(
        "INSERT INTO rdservice_incidents (kind, account_id) VALUES ('reauthorization_required', 'default')"
    )
    scene.go("/notifications")
    scene.page.locator("main form button").click()
    expect(scene.page.locator("[data-notification]")).to_be_visible()


def password(scene: Scene) -> None:
    scene.go("/password")


def password_with_an_error(scene: Scene) -> None:
    scene.go("/password")
    scene.page.locator("#current_password").fill("not the password")
    scene.page.locator("#new_password").fill("three cows on the roof")
    scene.page.locator("#new_password_again").fill("three cows on the roof")
    scene.page.locator("main form button").click()
    expect(scene.page.locator(".field-error")).to_be_visible()


def diagnosis(scene: Scene) -> None:
    scene.go("/diagnosis")


def problem_not_found(scene: Scene) -> None:
    scene.go("/nowhere")


def problem_not_recognized(scene: Scene) -> None:
    scene.go("/rd/callback")


def problem_not_connected(scene: Scene) -> None:
    scene.go("/rd/tokens/absent/access-token")


SCENES: list[Callable[[Scene], None]] = [
    nothing_connected,
    connected_with_a_month_of_history,
    only_another_account,
    a_page_of_many_accounts,
    a_search_that_finds_nothing,
    no_worker,
    disconnect_confirmation,
    authorization_of_another_account,
    authorization_of_an_unknown_account,
    upload_form,
    upload_form_with_an_error,
    no_keys,
    several_keys,
    key_form_with_errors,
    key_that_was_made,
    key_revocation,
    audit,
    notifications,
    password,
    password_with_an_error,
    diagnosis,
    problem_not_found,
    problem_not_recognized,
    problem_not_connected,
]


@pytest.mark.parametrize("arrange", SCENES, ids=lambda arrange: arrange.__name__)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_is_accessible(
    site: Site, browse: Browse, conn: Conn, language: str, arrange: Callable[[Scene], None]
) -> None:
    page = open_page(site, browse, language)
    submit_login(page)
    arrange(Scene(site, conn, page))
    expect_accessible_in_all_looks(page)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_of_an_account_is_accessible_in_each_of_its_states(
    site: Site, browse: Browse, conn: Conn, language: str, state: str
) -> None:
    page = open_page(site, browse, language)
    submit_login(page)
    account_in(state)(Scene(site, conn, page))
    expect_accessible_in_all_looks(page)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_login_is_accessible_also_when_it_was_refused(site: Site, browse: Browse, language: str) -> None:
    page = open_page(site, browse, language)
    expect_accessible_in_all_looks(page)
    submit_login(page, password="not the password")
    expect(page.get_by_role("alert")).to_be_visible()
    expect_accessible_in_all_looks(page)


def open_page(site: Site, browse: Browse, language: str) -> Page:
    # Colours that are on their way to others would be judged as they are at that moment.
    page = browse(locale=language, reduced_motion="reduce").new_page()
    page.goto(site.url)
    assert page.locator("html").get_attribute("lang") == language.removesuffix("-US")
    return page


def expect_accessible_in_all_looks(page: Page) -> None:
    for width in (DESK, PHONE):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme="light")
        expect_accessible(page, f"{page.url}, {width} pixels wide, light")
        # tests/unit/web/test_style_sheet.py shows that the dark changes colours and nothing else.
        page.emulate_media(color_scheme="dark")
        expect_accessible(page, f"{page.url}, {width} pixels wide, dark", rules=COLOUR_RULES)
    assert not page.evaluate(TOO_WIDE), "the page scrolls sideways on a phone"
    poor = page.evaluate(POOR_TARGETS, SMALLEST_TARGET)
    assert not poor, f"too small to touch, or out of reach: {poor}"
