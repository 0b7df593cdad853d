"""Debian's Chromium against the real web processes and the sandbox."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from cryptography.fernet import Fernet
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    WebError,
    expect,
    sync_playwright,
)

from dev.screenshots.chromium import PROGRAM, launch
from rdservice.access import operators, passwords
from rdservice.tokens import workers
from tests.conftest import CLIENT_ID, CLIENT_SECRET
from tests.support.odd_server import odd_server, respond_with
from tests.support.processes import Processes, listening_socket
from tests.support.sandbox_process import SandboxProcess
from tests.support.site import EMAIL, PASSWORD, Site, connect_account, log_in, read_row

HOSTS = {"localhost", "127.0.0.1"}
RECEIVED = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

Browse = Callable[..., BrowserContext]
"""Opens a browser without cookies; takes the options of Playwright's `new_context`."""


@pytest.fixture(scope="module")
def running_site(_migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    listening = listening_socket()
    redirect_uri = f"http://localhost:{listening.getsockname()[1]}/rd/callback"
    with (
        odd_server(respond_with(RECEIVED)) as receiver,
        SandboxProcess(
            folder / "state.db", client_id=CLIENT_ID, client_secret=CLIENT_SECRET, redirect_uri=redirect_uri
        ) as sandbox,
    ):
        processes = Processes(
            {
                "RDSTATION_CLIENT_ID": CLIENT_ID,
                "RDSTATION_CLIENT_SECRET": CLIENT_SECRET,
                "RDSTATION_REDIRECT_URI": redirect_uri,
                "RDSTATION_API_URL": sandbox.url,
                "DATABASE_URL": _migrated_url,
                "SECRET_KEY": "0123456789abcdef0123456789abcdef",
                "TOKEN_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
                "NOTIFY_URLS": f"json://127.0.0.1:{receiver.port}",
            },
            folder / "processes",
        )
        try:
            yield Site(processes, processes.web(listening), sandbox)
        finally:
            processes.close()


@pytest.fixture
def site(running_site: Site, conn: psycopg.Connection[Any]) -> Site:
    """The service with an operator, and with no account."""
    running_site.sandbox.reset()
    assert operators.create(conn, EMAIL, passwords.hash_password(PASSWORD))
    return running_site


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not Path(PROGRAM).exists():
        pytest.skip("chromium is not installed")
    expect.set_options(timeout=15_000)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium: Browser) -> Iterator[Browse]:
    """Whatever a test is about, the pages' own rules must not have been violated in any of its browsers."""
    with ExitStack() as opened:
        yield lambda **options: opened.enter_context(_checked(chromium, options))


@pytest.fixture
def context(browse: Browse) -> BrowserContext:
    """A browser without cookies, whose operator reads English."""
    return browse(locale="en-US")


@contextmanager
def _checked(chromium: Browser, options: dict[str, Any]) -> Iterator[BrowserContext]:
    """A browser of which, at its end, Chromium must not have complained, and which asked nobody but the service."""
    with chromium.new_context(**options) as opened:
        opened.set_default_timeout(15_000)
        requested: list[Request] = []
        complaints: list[ConsoleMessage] = []
        failures: list[str] = []

        def note_request(request: Request) -> None:
            requested.append(request)

        def note_complaint(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                complaints.append(message)

        def note_failure(error: WebError) -> None:
            failures.append(str(error.error))

        opened.on("request", note_request)
        opened.on("console", note_complaint)
        opened.on("weberror", note_failure)
        yield opened
        assert {urlsplit(request.url).hostname for request in requested} <= HOSTS
        # Chromium writes there too that a page came with an error's status, which tests of errors ask for.
        pages = {request.url for request in requested if request.is_navigation_request()}
        unexpected = [
            message.text
            for message in complaints
            if not (message.text.startswith("Failed to load resource") and _expected(message, pages))
        ]
        assert unexpected == []
        assert failures == []


def _expected(message: ConsoleMessage, pages: set[str]) -> bool:
    """Whether it is about a page that came with an error's status, or about one that asked in vain for news."""
    url = message.location["url"]
    return url in pages or "fragment=1" in url


@pytest.fixture
def page(context: BrowserContext, site: Site) -> Page:
    """A tab of an operator who has logged in."""
    opened = context.new_page()
    opened.goto(site.url)
    log_in(opened)
    return opened


@pytest.fixture
def stored(site: Site, conn: psycopg.Connection[Any]) -> tuple[Any, ...]:
    """The row of an account that is connected, byte for byte."""
    connect_account(site, conn)
    return read_row(conn)


@pytest.fixture
def watched(page: Page, stored: tuple[Any, ...], conn: psycopg.Connection[Any]) -> Page:
    """The overview of a service with an account that is well; `window.opened` is gone after a reload."""
    workers.beat(conn, "worker-1")
    page.reload()
    page.evaluate("window.opened = true")
    expect(page.locator("[data-verdict]")).to_have_attribute("data-verdict", "ok")
    return page
