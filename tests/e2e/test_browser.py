"""Operators in a real browser: Debian's Chromium against the real web processes and the sandbox."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import psycopg
import pytest
import requests
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

from rdservice.access import operators, passwords
from rdservice.encryption import KeyRing
from rdservice.tokens import store
from tests.conftest import CLIENT_ID, CLIENT_SECRET
from tests.e2e.processes import Processes, Web, listening_socket
from tests.sandbox_process import SandboxProcess

pytestmark = pytest.mark.slow

EMAIL = "ana@example.com"
PASSWORD = "correct horse battery"
HOSTS = {"localhost", "127.0.0.1"}
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
ROW = "SELECT * FROM rdstation_tokens WHERE account_id = 'default'"
CODE_LIFETIME_S = 3_600
STYLED = "getComputedStyle(document.querySelector('.card')).borderRadius !== '0px'"
EVIL = """<!doctype html><title>Evil</title><iframe></iframe>
<form method="post"><input name="csrf_token"><button>Win a prize</button></form>"""


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


@pytest.fixture(scope="module")
def running_site(_migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    listening = listening_socket()
    redirect_uri = f"http://localhost:{listening.getsockname()[1]}/rd/callback"
    with SandboxProcess(
        folder / "state.db", client_id=CLIENT_ID, client_secret=CLIENT_SECRET, redirect_uri=redirect_uri
    ) as sandbox:
        processes = Processes(
            {
                "RDSTATION_CLIENT_ID": CLIENT_ID,
                "RDSTATION_CLIENT_SECRET": CLIENT_SECRET,
                "RDSTATION_REDIRECT_URI": redirect_uri,
                "RDSTATION_API_URL": sandbox.url,
                "DATABASE_URL": _migrated_url,
                "SECRET_KEY": "0123456789abcdef0123456789abcdef",
                "TOKEN_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
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
    program = shutil.which("chromium", path="/usr/bin")
    if program is None:
        pytest.skip("chromium is not installed")
    expect.set_options(timeout=15_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A browser without cookies. Whatever the test is about, the pages' own rules must not have been violated."""
    with chromium.new_context(locale="en-US") as opened:
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
    pair = site.sandbox.pair()
    with conn.transaction():
        store.authorize(
            conn,
            site.key_ring,
            "default",
            access_token=pair["access_token"],
            refresh_token=pair["refresh_token"],
            expires_in_s=pair["expires_in"],
            verified=True,
            proven=True,
        )
    return read_row(conn)


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

        # The way back works once; opened again it does no harm.
        page.goto(came_back)
        expect(page.get_by_role("heading", name="Authorization not recognized")).to_be_visible()
        page.reload()
        expect(page.get_by_role("heading", name="Authorization not recognized")).to_be_visible()
        assert read_row(conn) == after
        page.get_by_role("link", name="To the status page").click()
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
    expect_problem(page, "Consent refused", "Connect again if that was a mistake.", "consent_refused")
    assert read_row(conn) == stored


NOT_RECOGNIZED = ("Authorization not recognized", "otherwise connect it again", "invalid_state")
CODE_DEAD = ("Authorization code expired", "Connect the account again.", "code_expired")


def change_state(_: Site, answer: dict[str, str]) -> None:
    answer["state"] = answer["state"][:-1] + ("A" if answer["state"][-1] != "A" else "B")


def drop_state(_: Site, answer: dict[str, str]) -> None:
    del answer["state"]


def drop_code(_: Site, answer: dict[str, str]) -> None:
    del answer["code"]


def use_code_up(site: Site, answer: dict[str, str]) -> None:
    body = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "code": answer["code"]}
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
    answer = begin(page, site)
    spoil(site, answer)
    come_back(page, site, answer)
    expect_problem(page, *expected)
    assert read_row(conn) == stored


def test_a_way_back_after_more_than_ten_minutes_says_what_to_do_and_changes_nothing(
    site: Site, page: Page, stored: tuple[Any, ...], conn: psycopg.Connection[Any]
) -> None:
    answer = begin(page, site)
    conn.execute("UPDATE rdstation_oauth_states SET created_at = created_at - interval '11 min'")
    come_back(page, site, answer)
    expect_problem(page, *NOT_RECOGNIZED)
    assert read_row(conn) == stored


def test_a_wrong_client_secret_says_what_to_do_and_changes_nothing(
    site: Site, page: Page, stored: tuple[Any, ...], conn: psycopg.Connection[Any]
) -> None:
    answer = begin(page, site)
    restart_sandbox(site, client_secret="another-secret")
    try:
        come_back(page, site, answer)
        expect_problem(
            page, "Code or credentials refused", "RDSTATION_CLIENT_SECRET against the app", "code_refused"
        )
        assert read_row(conn) == stored
    finally:
        restart_sandbox(site, client_secret=CLIENT_SECRET)


def test_rd_station_down_says_what_to_do_and_changes_nothing(
    site: Site, page: Page, stored: tuple[Any, ...], conn: psycopg.Connection[Any]
) -> None:
    answer = begin(page, site)
    site.sandbox.stop()
    try:
        come_back(page, site, answer)
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


def test_no_page_breaks_its_own_content_security_policy(
    site: Site, page: Page, stored: tuple[Any, ...]
) -> None:
    # The fixture `context` fails on whatever Chromium complains of: a refused style, script, image or form.
    for path, words in {
        "/": "The worker is not running",
        "/accounts/default": "Renewals",
        "/accounts/default/disconnect": "This is lost",
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


def log_in(page: Page, email: str = EMAIL) -> None:
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(lambda url: urlsplit(url).path != "/login")


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


def come_back(page: Page, site: Site, answer: dict[str, str]) -> None:
    page.goto(f"{site.url}/rd/callback?{urlencode(answer)}")


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
