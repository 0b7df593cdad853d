"""Sessions, limits and authorizations across real processes: two gunicorns with two workers each, behind a proxy."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import requests
from cryptography.fernet import Fernet
from flask import Flask
from flask.sessions import SecureCookieSessionInterface

from rdservice.access import keys, operators, passwords, throttle
from tests.conftest import CLIENT_ID, CLIENT_SECRET, Clock
from tests.support.processes import Processes, Web
from tests.support.sandbox_process import SandboxProcess

pytestmark = pytest.mark.slow

Conn = psycopg.Connection[Any]
ORIGIN = "https://app.example.com"
COOKIE = "__Host-rdservice_session"
EMAIL = "ana@example.com"
PASSWORD = "correct horse battery"
SECRET_KEY = "0123456789abcdef0123456789abcdef"
HOUR_S = 3_600


class Site:
    """The service in several processes, and RD Station's imitation."""

    def __init__(self, processes: Processes, webs: list[Web], sandbox: SandboxProcess) -> None:
        self.processes = processes
        self.webs = webs
        self.sandbox = sandbox


@pytest.fixture(scope="module")
def running_site(_migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("access")
    redirect_uri = f"{ORIGIN}/rd/callback"
    with SandboxProcess(
        folder / "state.db", client_id=CLIENT_ID, client_secret=CLIENT_SECRET, redirect_uri=redirect_uri
    ) as sandbox:
        variables = {
            "RDSTATION_CLIENT_ID": CLIENT_ID,
            "RDSTATION_CLIENT_SECRET": CLIENT_SECRET,
            "RDSTATION_REDIRECT_URI": redirect_uri,
            "RDSTATION_API_URL": sandbox.url,
            "DATABASE_URL": _migrated_url,
            "SECRET_KEY": SECRET_KEY,
            "TOKEN_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
            "TRUSTED_PROXIES": "1",
        }
        processes = Processes(variables, folder / "processes")
        try:
            yield Site(processes, [processes.web(), processes.web()], sandbox)
        finally:
            processes.close()


@pytest.fixture(scope="module")
def password_hash() -> str:
    return passwords.hash_password(PASSWORD)


@pytest.fixture
def site(running_site: Site, conn: Conn, password_hash: str) -> Site:
    """The service with an operator."""
    running_site.sandbox.reset()
    assert operators.create(conn, EMAIL, password_hash)
    return running_site


class Visitor:
    """A browser at `forwarded_for`, as the proxy in front of the processes passes on what it sends."""

    def __init__(self, site: Site, forwarded_for: str = "192.0.2.1") -> None:
        self._webs = site.webs
        self.forwarded_for = forwarded_for
        self.cookie: str | None = None
        self.cookies_set: list[str] = []

    def ask(
        self,
        path: str,
        fields: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        *,
        web: int = 0,
    ) -> requests.Response:
        """Get `path`, or post `fields` to it, at one of the processes."""
        response = requests.request(
            "GET" if fields is None else "POST",
            f"{self._webs[web].url}{path}",
            data=fields,
            headers=self.headers(self.cookie) | (headers or {}),
            allow_redirects=False,
            timeout=60,
        )
        if "Set-Cookie" in response.headers:
            self.cookies_set.append(response.headers["Set-Cookie"])
            self.cookie = SimpleCookie(response.headers["Set-Cookie"])[COOKIE].value or None
        return response

    def headers(self, cookie: str | None) -> dict[str, str]:
        sent = {
            "Host": "app.example.com",
            "Accept": "text/html",
            "X-Forwarded-For": self.forwarded_for,
            "X-Forwarded-Proto": "https",
            "Referer": f"{ORIGIN}/login",
        }
        return sent if cookie is None else sent | {"Cookie": f"{COOKIE}={cookie}"}

    def csrf_token(self, page: str = "/login") -> str:
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.ask(page).text)
        assert found is not None
        return found[1]

    def log_in(self, password: str = PASSWORD, *, email: str = EMAIL, web: int = 0) -> requests.Response:
        fields = {"csrf_token": self.csrf_token(), "email": email, "password": password}
        return self.ask("/login", fields, web=web)

    def is_in(self, cookie: str | None, *, web: int = 0) -> bool:
        """Whether the status page opens with `cookie`; otherwise it must lead to the login page."""
        response = requests.get(
            f"{self._webs[web].url}/", headers=self.headers(cookie), allow_redirects=False, timeout=60
        )
        assert (response.status_code, response.headers.get("Location")) in (
            (200, None),
            (302, "/login?next=/"),
        )
        return response.status_code == 200


@pytest.fixture
def ana(site: Site) -> Visitor:
    """An operator's browser, logged in."""
    visitor = Visitor(site)
    assert visitor.log_in().status_code == 303
    return visitor


def opens_nowhere(site: Site, cookie: str) -> bool:
    """Whether no worker of any process lets this cookie in."""
    visitor = Visitor(site)
    statuses = []
    for web in site.webs:
        with web.sessions_of_each_worker() as sessions:
            assert len(sessions) == 2
            for session in sessions:
                headers = visitor.headers(cookie)
                response = session.get(f"{web.url}/", headers=headers, allow_redirects=False, timeout=60)
                statuses.append(response.status_code)
    return statuses == [302] * 4


def stored(conn: Conn, table: str) -> int:
    found = conn.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - names of this file
    assert found is not None
    return int(found[0])


# Sessions


def test_a_cookie_is_for_this_host_s_https_alone_and_new_at_each_login(site: Site, conn: Conn) -> None:
    visitor = Visitor(site)
    visitor.ask("/login")
    planted = visitor.cookie
    assert planted is not None
    assert visitor.log_in().status_code == 303
    first = visitor.cookie
    assert first is not None
    assert first != planted
    # Who planted the cookie, with its CSRF token, has nothing from it.
    assert not visitor.is_in(planted)
    assert visitor.is_in(first, web=1)
    fields = {"csrf_token": visitor.csrf_token("/connect"), "email": EMAIL, "password": PASSWORD}
    assert visitor.ask("/login", fields, web=1).status_code == 303
    assert visitor.cookie != first
    assert visitor.is_in(visitor.cookie)
    assert opens_nowhere(site, first)
    assert stored(conn, "rdservice_sessions") == 1
    for header in visitor.cookies_set:
        name, _, rest = header.partition("=")
        assert name == COOKIE
        assert set(rest.split("; ")[1:]) == {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"}


def test_logging_out_ends_a_copied_cookie_in_every_process(site: Site, ana: Visitor) -> None:
    copied = ana.cookie
    assert copied is not None
    assert ana.is_in(copied, web=1)
    emptied = ana.ask("/logout", {"csrf_token": ana.csrf_token("/connect")})
    assert emptied.status_code == 303
    assert "Max-Age=0" in emptied.headers["Set-Cookie"]
    assert opens_nowhere(site, copied)


def test_a_new_password_ends_all_sessions_in_every_process(site: Site, ana: Visitor) -> None:
    elsewhere = Visitor(site, "198.51.100.9")
    assert elsewhere.log_in(web=1).status_code == 303
    told = site.processes.flask(
        "operators", "reset-password", EMAIL, "--password-stdin", text="another long password\n"
    )
    assert "sessions ended: 2" in told
    for visitor in (ana, elsewhere):
        assert visitor.cookie is not None
        assert opens_nowhere(site, visitor.cookie)
    assert Visitor(site).log_in().status_code == 401
    assert Visitor(site).log_in("another long password").status_code == 303


def test_removing_an_operator_ends_the_sessions_in_every_process(site: Site, ana: Visitor) -> None:
    site.processes.flask("operators", "remove", EMAIL, "--yes")
    assert ana.cookie is not None
    assert opens_nowhere(site, ana.cookie)


def test_sessions_end_by_the_database_s_clock(site: Site, ana: Visitor, clock: Clock) -> None:
    clock.advance(12 * HOUR_S - 60)
    assert ana.is_in(ana.cookie)
    clock.advance(12 * HOUR_S - 60)
    assert ana.is_in(ana.cookie, web=1)
    clock.advance(12 * HOUR_S + 1)
    assert not ana.is_in(ana.cookie)
    assert ana.log_in().status_code == 303
    for _ in range(15):
        clock.advance(11 * HOUR_S)
        assert ana.is_in(ana.cookie)
    clock.advance(3 * HOUR_S - 30)
    assert ana.is_in(ana.cookie)
    # In use until now, and seven days old.
    clock.advance(31)
    assert not ana.is_in(ana.cookie)


def sign(values: dict[str, Any], *, secret_key: str = SECRET_KEY) -> str:
    """Return a cookie as whoever knows `secret_key` can make it."""
    app = Flask("forger")
    app.secret_key = secret_key
    serializer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer is not None
    return str(serializer.dumps(values))


def unsign(cookie: str) -> dict[str, Any]:
    app = Flask("reader")
    app.secret_key = SECRET_KEY
    serializer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer is not None
    values: dict[str, Any] = serializer.loads(cookie)
    return values


def test_a_cookie_that_was_tampered_with_opens_nothing(site: Site, ana: Visitor) -> None:
    good = ana.cookie
    assert good is not None
    visitor = Visitor(site)
    visitor.ask("/login")
    assert visitor.cookie is not None
    payload, stamp, signature = good.split(".")
    other_payload, other_stamp, other_signature = visitor.cookie.split(".")
    values = unsign(good)
    token = values["_user_id"]
    tampered = [
        f"{payload}.{stamp}.{other_signature}",
        f"{payload}.{other_stamp}.{other_signature}",
        f"{other_payload}.{stamp}.{signature}",
        f"{payload}.{stamp}",
        f"{payload}..{signature}",
        f"{payload}.{stamp}.",
        f".{payload}.{stamp}.{signature}",
        good[:-1],
        f"{good}x",
        good.swapcase(),
        payload,
        token,
        "",
        "a" * 4000,
        "." * 4000,
        sign(values, secret_key="another-secret-key-of-32-letters"),
        sign(values, secret_key="0" * 32),
        # With the right key, but no live session: what a leaked SECRET_KEY alone is worth.
        sign({"_user_id": "A" * 43}),
        sign({"_user_id": token[::-1]}),
        sign({"_user_id": [token]}),
        sign({"_user_id": {"a": token}}),
        sign({"_user_id": None}),
        sign({"_user_id": f"{token}\0"}),
        sign({"user_id": token}),
    ]
    for cookie in tampered:
        assert not visitor.is_in(cookie), cookie
    assert visitor.is_in(good)


def test_of_two_cookies_of_the_name_one_counts_and_a_huge_one_is_refused(site: Site, ana: Visitor) -> None:
    good = ana.cookie
    statuses = {}
    for name, header in {
        "good, bad": f"{COOKIE}={good}; {COOKIE}=bad",
        "bad, good": f"{COOKIE}=bad; {COOKIE}={good}",
        "bad, bad": f"{COOKIE}=bad; {COOKIE}=worse",
        "without prefix": f"rdservice_session={good}",
        "another case": f"{COOKIE.upper()}={good}",
        "huge": f"{COOKIE}={'a' * 9000}",
        "many": "; ".join(f"c{number}=x" for number in range(900)),
    }.items():
        response = requests.get(
            f"{site.webs[0].url}/",
            headers=ana.headers(None) | {"Cookie": header},
            allow_redirects=False,
            timeout=60,
        )
        statuses[name] = response.status_code
    assert statuses == {
        "good, bad": 200,
        "bad, good": 302,
        "bad, bad": 302,
        "without prefix": 302,
        "another case": 302,
        "huge": 431,
        "many": 302,
    }


def test_the_session_s_token_stands_in_no_address_page_or_log(site: Site, ana: Visitor, conn: Conn) -> None:
    assert ana.cookie is not None
    token = unsign(ana.cookie)["_user_id"]
    row = conn.execute("SELECT encode(token_hash, 'hex') FROM rdservice_sessions").fetchone()
    assert row is not None
    for path in (
        "/",
        "/connect?account_id=a",
        "/login",
        "/rd/login",
        "/nowhere",
        "/rd/callback",
        "/openapi.json",
    ):
        response = ana.ask(path)
        for secret in (token, row[0], ana.cookie):
            assert secret not in response.text
            assert secret not in response.headers.get("Location", "")
    for web in site.webs:
        for secret in (token, row[0], ana.cookie):
            assert secret not in web.log


# Limits


def seconds_left(conn: Conn) -> int:
    row = conn.execute(
        "SELECT ceil(extract(epoch FROM max(window_ends_at) - rd_now())) FROM rdservice_access_failures"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_guessing_is_stopped_in_every_process_and_locks_nobody_else_out(site: Site, conn: Conn) -> None:
    attacker = Visitor(site, "192.0.2.66")
    for number in range(throttle.LOGINS_PER_ADDRESS_AND_EMAIL):
        # What the client itself wrote into the header stands left of what the proxy added.
        attacker.forwarded_for = f"10.0.0.{number}, 192.0.2.66"
        assert attacker.log_in(f"wrong password {number}", web=number % 2).status_code == 401
    for number, forged in enumerate(["192.0.2.66", "192.0.2.1, 192.0.2.66", "::1,192.0.2.66"]):
        attacker.forwarded_for = forged
        refused = attacker.log_in(web=number % 2)
        assert refused.status_code == 429
        assert 0 <= int(refused.headers["Retry-After"]) - seconds_left(conn) <= 1
    assert Visitor(site, "192.0.2.67").log_in(web=1).status_code == 303
    row = conn.execute("SELECT max(failures) FROM rdservice_access_failures").fetchone()
    assert row == (throttle.LOGINS_PER_ADDRESS_AND_EMAIL,)


def spend_limit(conn: Conn, address: str) -> None:
    """Count as many failures as are allowed, as the processes do it, but without Argon2."""
    for _ in range(throttle.LOGINS_PER_ADDRESS_AND_EMAIL):
        throttle.count_attempt(conn, throttle.login_limits(SECRET_KEY, address, EMAIL))


def test_an_ipv6_network_is_one_client(site: Site, conn: Conn) -> None:
    spend_limit(conn, "2001:db8:1:2::1")
    attacker = Visitor(site, "2001:db8:1:2::2")
    assert attacker.log_in().status_code == 429
    attacker.forwarded_for = "[2001:db8:1:2:ffff::1]:4711"
    assert attacker.log_in().status_code == 429
    attacker.forwarded_for = "2001:db8:1:3::1"
    assert attacker.log_in().status_code == 303


def test_a_window_ends_by_the_database_s_clock(site: Site, conn: Conn, clock: Clock) -> None:
    visitor = Visitor(site)
    spend_limit(conn, "192.0.2.1")
    left_s = int(visitor.log_in().headers["Retry-After"])
    clock.advance(left_s - 30)
    assert visitor.log_in().status_code == 429
    clock.advance(31)
    assert visitor.log_in(web=1).status_code == 303


def test_guessed_keys_are_stopped_in_every_process_and_a_good_key_never_is(site: Site, conn: Conn) -> None:
    key = keys.create(conn, "a program", list(keys.SCOPES), created_by="test")
    program = Visitor(site)
    guess = {"Authorization": "Bearer rdk_aaaaaaaa_" + "A" * 43, "Accept": "application/json"}

    def guess_at(number: int) -> int:
        return program.ask("/rd/tokens", headers=guess, web=number % 2).status_code

    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(guess_at, range(throttle.KEYS_PER_ADDRESS + 20)))
    assert statuses.count(401) == throttle.KEYS_PER_ADDRESS
    assert statuses.count(429) == 20
    for web in (0, 1):
        response = program.ask("/rd/tokens", headers=guess | {"Authorization": f"Bearer {key}"}, web=web)
        assert response.status_code == 200
    # Operators log in from there all the same: it is another counter.
    assert program.log_in().status_code == 303


def test_a_flood_of_log_ins_leaves_the_other_threads_to_everyone_else(site: Site) -> None:
    page = Visitor(site)
    token, cookie = page.csrf_token(), page.cookie

    def try_once(number: int) -> int:
        fields = {"csrf_token": token, "email": f"user{number}@example.com", "password": "wrong password"}
        flooding = Visitor(site, f"203.0.113.{number}")
        flooding.cookie = cookie
        return flooding.ask("/login", fields).status_code

    with ThreadPoolExecutor(40) as threads:
        flood = [threads.submit(try_once, number) for number in range(40)]
        alive = set()
        while not all(one.done() for one in flood):
            alive.add(page.ask("/healthz").status_code)
        statuses = [one.result() for one in flood]
    assert set(statuses) <= {401, 429}
    assert statuses.count(401) >= passwords.PLACES
    assert alive <= {200}
    assert Visitor(site).log_in().status_code == 303


# Authorizations


def consent(site: Site, visitor: Visitor) -> str:
    """Go to the dialog and consent; return path and query of the way back."""
    dialog = urlsplit(visitor.ask("/rd/login").headers["Location"])
    assert f"{dialog.scheme}://{dialog.netloc}" == site.sandbox.url
    (state,) = parse_qs(dialog.query)["state"]
    return f"/rd/callback?code={site.sandbox.code()}&state={state}"


def test_of_two_processes_that_see_the_same_state_at_once_one_exchanges_and_all_show_its_result(
    site: Site, ana: Visitor, conn: Conn
) -> None:
    for _ in range(5):
        back = consent(site, ana)
        with ThreadPoolExecutor(4) as threads:
            responses = [threads.submit(ana.ask, back, web=web) for web in (0, 1, 0, 1)]
        assert [response.result().status_code for response in responses] == [303] * 4
    assert site.sandbox.calls()["token_exchange"] == {"200": 5}
    assert stored(conn, "rdstation_oauth_states") == 0


def test_another_site_s_form_logs_nobody_in(site: Site) -> None:
    attacker, victim = Visitor(site, "192.0.2.66"), Visitor(site)
    # The attacker's own token and cookie are good, but no other site can give a victim's browser the cookie.
    fields = {"csrf_token": attacker.csrf_token(), "email": EMAIL, "password": PASSWORD}
    foreign = {"Origin": "https://evil.example", "Referer": "https://evil.example/"}
    assert victim.ask("/login", fields, foreign).status_code == 403
    victim.cookie = attacker.cookie
    assert victim.ask("/login", fields, foreign).status_code == 403
    assert victim.ask("/login", fields, {"Referer": ""}).status_code == 403
    assert victim.ask("/login", fields, {"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert victim.ask("/login", fields, {"Sec-Fetch-Site": "same-site"}).status_code == 403
    assert victim.ask("/login", fields, {"Sec-Fetch-Site": "same-origin"}).status_code == 303
