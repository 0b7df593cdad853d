"""The service and its sandbox as operators meet them in a browser, and what the walks through them have in common."""

from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import psycopg
import requests
from playwright.sync_api import Page, expect

from rdservice.encryption import KeyRing
from rdservice.tokens import store
from tests.support.processes import Processes, Web
from tests.support.sandbox_process import SandboxProcess

EMAIL = "ana@example.com"
PASSWORD = "correct horse battery"
ROW = "SELECT * FROM rdstation_tokens WHERE account_id = 'default'"


class Site:
    """The service as operators see it, and the sandbox that it is registered with."""

    def __init__(self, processes: Processes, web: Web, sandbox: SandboxProcess) -> None:
        self.processes = processes
        self.sandbox = sandbox
        self.url = f"http://localhost:{web.port}"
        self.other_url = f"http://127.0.0.1:{web.port}"

    @property
    def key_ring(self) -> KeyRing:
        return KeyRing([self.processes.variables["TOKEN_ENCRYPTION_KEYS"].encode()])


def log_in(page: Page, email: str = EMAIL) -> None:
    """Log in on the login page in English, by the words of its labels."""
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(lambda url: urlsplit(url).path != "/login")


def submit_login(page: Page, *, password: str = PASSWORD) -> None:
    """Send the login form in whatever language it is."""
    page.locator("#email").fill(EMAIL)
    page.locator("#password").fill(password)
    with page.expect_navigation():
        page.locator("main form button").click()


def authorize(page: Page, site: Site) -> str:
    """Press *Autorizar* at the sandbox; return the URL of the callback that it led to."""
    page.wait_for_url(f"{site.sandbox.url}/auth/dialog**")
    with page.expect_request(lambda request: urlsplit(request.url).path == "/rd/callback") as callback:
        page.get_by_role("button", name="Autorizar").click()
    page.wait_for_url(f"{site.url}/")
    return callback.value.url


def expect_connected(page: Page, site: Site) -> None:
    """The status page shows the account by the name that RD Station gives it."""
    pair = site.sandbox.pair()
    headers = {"Authorization": f"Bearer {pair['access_token']}"}
    name = requests.get(f"{site.sandbox.url}/marketing/account_info", headers=headers, timeout=10).json()[
        "name"
    ]
    expect(page.get_by_text(f"Connected: {name}.")).to_be_visible()
    card = page.locator("[data-account=default]")
    expect(card).to_have_attribute("data-status", "connected")
    expect(card.get_by_role("heading", name=name)).to_be_visible()


def begin(page: Page, site: Site) -> dict[str, str]:
    """Go to RD Station's dialog; return what it would bring back after consent."""
    page.goto(f"{site.url}/rd/login")
    (state,) = parse_qs(urlsplit(page.url).query)["state"]
    return {"code": site.sandbox.code(), "state": state}


def come_back(page: Page, site: Site, response: dict[str, str]) -> None:
    page.goto(f"{site.url}/rd/callback?{urlencode(response)}")


def expect_problem(page: Page, title: str, advice: str, code: str) -> None:
    """The page says what happened and what to do, and leads on."""
    expect(page.get_by_role("heading", name=title)).to_be_visible()
    expect(page.get_by_text(advice)).to_be_visible()
    expect(page.get_by_text(code)).to_be_visible()
    expect(page.get_by_role("link", name="To the status page")).to_be_visible()


def restart_sandbox(site: Site, *, client_secret: str) -> None:
    site.sandbox.stop()
    site.sandbox.client_secret = client_secret
    site.sandbox.start()


def read_row(conn: psycopg.Connection[Any]) -> tuple[Any, ...]:
    found = conn.execute(ROW).fetchone()
    assert found is not None
    return tuple(found)


def connect_account(
    site: Site,
    conn: psycopg.Connection[Any],
    account_id: str = "default",
    *,
    name: str | None = None,
    lifetime_s: int | None = None,
) -> None:
    """Connect an account with a pair of the sandbox, past the pages. `name`: of the account at RD Station."""
    pair = site.sandbox.pair()
    with conn.transaction():
        store.authorize(
            conn,
            site.key_ring,
            account_id,
            access_token=pair["access_token"],
            refresh_token=pair["refresh_token"],
            expires_in_s=lifetime_s or pair["expires_in"],
            name=name,
            verified=True,
            proven=True,
        )
