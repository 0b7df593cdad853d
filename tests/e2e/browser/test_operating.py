"""An operator's days with the service: what happens is seen on the open page, and every button does what it says."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from rdservice.web.text import languages
from tests.e2e.browser.conftest import Browse
from tests.support.processes import ServiceProcess
from tests.support.site import EMAIL, PASSWORD, Site, authorize, log_in, submit_login

pytestmark = pytest.mark.slow

Conn = psycopg.Connection[Any]
ACCOUNT = "[data-account=default]"
NEW_PASSWORD = "three cows on the roof"


@dataclass(frozen=True, slots=True)
class Wording:
    """What the pages say in a language."""

    locale: str
    nothing_connected: str
    connect: str
    connected: str
    all_is_well: str
    needs_you: str
    connect_again: str
    disconnect: str
    lost: str
    keep: str


WORDINGS = [
    Wording(
        locale="pt-BR",
        nothing_connected="Nenhuma conta do RD Station está conectada ainda.",
        connect="Conectar ao RD Station",
        connected="Conectada",
        all_is_well="Tudo em ordem",
        needs_you="Uma conta precisa de você",
        connect_again="Conectar de novo",
        disconnect="Desconectar",
        lost="Ao desconectar, você perde (sem volta):",
        keep="Manter conectada",
    ),
    Wording(
        locale="en-US",
        nothing_connected="No RD Station account is connected yet.",
        connect="Connect to RD Station",
        connected="Connected",
        all_is_well="All is well",
        needs_you="One account needs you",
        connect_again="Connect again",
        disconnect="Disconnect",
        lost="If you disconnect, you lose (this cannot be undone):",
        keep="Keep it connected",
    ),
]


@pytest.fixture
def worker(site: Site) -> Iterator[ServiceProcess]:
    started = site.processes.worker()
    yield started
    started.kill()


@pytest.mark.parametrize("words", WORDINGS, ids=lambda words: words.locale)
def test_an_account_is_connected_lost_connected_again_and_disconnected_in_the_operators_language(
    site: Site, browse: Browse, worker: ServiceProcess, conn: Conn, words: Wording
) -> None:
    page = browse(locale=words.locale).new_page()
    page.goto(site.url)
    assert urlsplit(page.url).path == "/login"
    submit_login(page)
    expect(page.get_by_text(words.nothing_connected)).to_be_visible()
    page.get_by_role("link", name=words.connect).click()
    authorize(page, site)
    account = page.locator(ACCOUNT)
    expect(account.get_by_text(words.connected, exact=True)).to_be_visible()
    expect(page.get_by_role("heading", name=words.all_is_well)).to_be_visible()

    page.evaluate("window.opened = true")
    site.sandbox.revoke()
    conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now()")
    expect(page.get_by_role("heading", name=words.needs_you)).to_be_visible()
    assert page.evaluate("window.opened") is True
    account.get_by_role("link", name=words.connect_again).click()
    authorize(page, site)
    expect(page.get_by_role("heading", name=words.all_is_well)).to_be_visible()

    account.get_by_role("link", name=words.disconnect).click()
    expect(page.get_by_text(words.lost)).to_be_visible()
    expect(page.get_by_role("link", name=words.keep)).to_be_visible()
    page.get_by_role("button", name=words.disconnect).click()
    expect(page.get_by_text(words.nothing_connected)).to_be_visible()
    assert site.sandbox.calls()["revoke"] == {"200": 1}


def test_a_short_lived_token_is_seen_to_be_renewed_on_the_open_page(
    site: Site, page: Page, worker: ServiceProcess, conn: Conn
) -> None:
    site.sandbox.patch(access_token_lifetime=20)
    page.get_by_role("link", name="Connect to RD Station").click()
    authorize(page, site)
    page.evaluate("window.opened = true")
    valid_until = page.locator(f"{ACCOUNT} dd").nth(1)
    first = valid_until.locator("time").get_attribute("datetime")
    expect(valid_until.locator("time")).not_to_have_attribute("datetime", first or "", timeout=60_000)
    expect(page.locator("#renewals .timeline li.ok").first).to_be_visible()
    expect(page.locator("[data-verdict]")).to_have_attribute("data-verdict", "ok")
    assert page.evaluate("window.opened") is True


def test_a_token_that_nobody_renews_is_seen_to_expire_and_to_come_back_with_the_worker(
    site: Site, page: Page
) -> None:
    site.sandbox.patch(access_token_lifetime=5)
    page.get_by_role("link", name="Connect to RD Station").click()
    authorize(page, site)
    page.evaluate("window.opened = true")
    account = page.locator(ACCOUNT)
    expect(account).to_have_attribute("data-state", "expired", timeout=60_000)
    expect(page.locator("[data-finding=worker_not_running]")).to_be_visible()
    site.sandbox.patch(access_token_lifetime=86_400)
    worker = site.processes.worker()
    try:
        expect(account).to_have_attribute("data-state", "connected", timeout=60_000)
        expect(page.locator("[data-verdict]")).to_have_attribute("data-verdict", "ok")
        assert page.evaluate("window.opened") is True
    finally:
        worker.kill()


def test_an_uploaded_pair_that_rd_station_refuses_is_not_stored_and_nowhere_in_the_page(
    site: Site, page: Page, conn: Conn
) -> None:
    page.goto(f"{site.url}/upload")
    page.get_by_label("Access token", exact=True).fill("a-token-that-was-never-given")
    page.get_by_label("Refresh token").fill("another-token-that-was-never-given")
    page.get_by_role("button", name="Upload").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Nothing was stored.")
    assert "never-given" not in page.content()
    assert conn.execute("SELECT count(*) FROM rdstation_tokens").fetchone() == (0,)


def test_a_key_made_on_the_page_works_with_curl_until_it_is_revoked(
    site: Site, page: Page, stored: tuple[Any, ...]
) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    page.get_by_role("link", name="API keys").click()
    page.get_by_label("Name of the program").fill("website")
    page.locator("[name=scopes][value='leads:read']").check()
    page.get_by_role("button", name="Create the key").click()
    key = page.get_by_label("Key of website").input_value()
    assert call_with_curl(curl, f"{site.url}/rd/leads", key) == 200
    assert call_with_curl(curl, f"{site.url}/rd/tokens", key) == 403

    page.get_by_role("link", name="I have kept the key").click()
    assert key not in page.content()
    expect(page.get_by_text("In use", exact=True)).to_be_visible()
    page.get_by_role("link", name="Revoke the key website").click()
    page.get_by_role("button", name="Revoke the key").click()
    expect(page.get_by_role("heading", name="Revoked keys")).to_be_visible()
    assert call_with_curl(curl, f"{site.url}/rd/leads", key) == 401


def test_the_language_is_switched_on_any_page_and_stays(
    site: Site, page: Page, context: BrowserContext
) -> None:
    page.goto(f"{site.url}/keys")
    page.get_by_role("link", name=languages.NAMES["pt-BR"]).click()
    expect(page.get_by_role("heading", name="Chaves de API")).to_be_visible()
    assert urlsplit(page.url).path == "/keys"
    assert page.locator("html").get_attribute("lang") == "pt-BR"
    other = context.new_page()
    other.goto(site.url)
    expect(other.get_by_role("link", name="Conectar ao RD Station")).to_be_visible()
    page.get_by_role("link", name=languages.NAMES["en"]).click()
    expect(page.get_by_role("heading", name="API keys")).to_be_visible()


def test_a_changed_password_ends_the_other_sessions_and_opens_the_next(
    site: Site, page: Page, browse: Browse
) -> None:
    elsewhere = browse(locale="en-US").new_page()
    elsewhere.goto(site.url)
    log_in(elsewhere)

    page.get_by_role("link", name="Change your password").click()
    page.get_by_label("Current password").fill(PASSWORD)
    page.get_by_label("New password", exact=True).fill(NEW_PASSWORD)
    page.get_by_label("Repeat the new password").fill(NEW_PASSWORD)
    page.get_by_role("button", name="Change the password").click()
    expect(page.get_by_role("status").filter(has_text="password")).to_be_visible()

    elsewhere.goto(site.url)
    assert urlsplit(elsewhere.url).path == "/login"
    elsewhere.get_by_label("E-mail").fill(EMAIL)
    elsewhere.get_by_label("Password").fill(NEW_PASSWORD)
    elsewhere.get_by_role("button", name="Log in").click()
    expect(elsewhere.get_by_text("No RD Station account is connected yet.")).to_be_visible()


def test_a_test_of_the_notifications_is_seen_to_arrive(
    site: Site, page: Page, worker: ServiceProcess
) -> None:
    page.get_by_role("link", name="Notifications").click()
    page.get_by_role("button", name="Send a test").click()
    page.evaluate("window.opened = true")
    expect(page.locator("[data-notification]").get_by_text("Sent", exact=True)).to_be_visible(timeout=40_000)
    assert page.evaluate("window.opened") is True


def test_the_diagnosis_is_downloaded_as_a_file_without_secrets(
    site: Site, page: Page, stored: tuple[Any, ...]
) -> None:
    page.get_by_role("link", name="Diagnosis").click()
    with page.expect_download(timeout=40_000) as download:
        page.get_by_role("button", name="Download the diagnosis").click()
    text = download.value.path().read_text()
    report = json.loads(text)
    assert {"worker_not_running"} <= {finding["code"] for finding in report["verdict"]["findings"]}
    for name in ("SECRET_KEY", "TOKEN_ENCRYPTION_KEYS", "RDSTATION_CLIENT_SECRET"):
        assert site.processes.variables[name] not in text
    assert EMAIL not in text


def test_lead_events_are_subscribed_and_ended_by_buttons(
    site: Site, page: Page, stored: tuple[Any, ...]
) -> None:
    page.reload()
    section = page.locator("[data-subscriptions]")
    expect(section).to_have_attribute("data-subscriptions", "off")
    section.get_by_role("button", name="Subscribe to lead events").click()
    expect(section).to_have_attribute("data-subscriptions", "on")
    section.get_by_role("button", name="End the subscription").click()
    expect(section).to_have_attribute("data-subscriptions", "off")


def call_with_curl(curl: str, url: str, key: str) -> int:
    """Return the status of a GET with the key, by a program as users have it."""
    command = [curl, "--silent", "--noproxy", "*", "--output", "/dev/null", "--write-out", "%{http_code}"]
    command += ["--max-time", "30", "--header", "@-", url]
    done = subprocess.run(
        command, input=f"Authorization: Bearer {key}", capture_output=True, text=True, check=True
    )
    return int(done.stdout)
