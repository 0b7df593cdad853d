"""No secret reaches a log, an error or an answer that is not meant to carry it, whatever goes wrong.

What is written is looked at without the redaction of `rdservice.logs.formatting`, which is only the second fence.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg import sql
from requests_mock import ANY, Mocker
from werkzeug.test import TestResponse

from rdservice.access import keys, operators, passwords
from rdservice.access.keys import SCOPES
from rdservice.encryption import KeyMissing, KeyRing
from rdservice.errors import RdServiceError
from rdservice.logs.formatting import ReadableFormatter
from rdservice.rdstation import client
from rdservice.rdstation.client import TransportError
from rdservice.services import Services
from rdservice.tokens import adoption, store
from rdservice.web import create_app
from tests.conftest import REDIRECT_URI
from tests.support.accounts import BY, connect_account, lease_due, row, stored_pair
from tests.support.browser import Browser
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
EMAIL, PASSWORD = "planted.person@example.com", "planted password of Ana"
HERE = urlsplit(REDIRECT_URI).netloc
SHORTEST = 8


class Log(logging.Handler):
    """Everything that is logged, at any level, as the service writes it but without redaction."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(ReadableFormatter(lambda text: text))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def log() -> Iterator[Log]:
    handler, root = Log(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


class Secrets:
    """What must not be seen."""

    def __init__(self, services: Services) -> None:
        settings = services.settings
        self.values = {
            PASSWORD,
            EMAIL,
            settings.secret_key,
            settings.database_url,
            *settings.client_secrets,
            *(key.decode() for key in settings.encryption_keys),
        }

    def add(self, *values: str) -> None:
        assert all(len(value) >= SHORTEST for value in values)
        self.values.update(values)

    def found_in(self, text: str) -> list[str]:
        """Return the secrets in `text`, also those of which only a good part stands there."""
        return [value for value in self.values if value in text or (len(value) > 40 and value[-30:] in text)]


def chain(error: BaseException) -> str:
    """Return the messages of an exception and of all that caused it."""
    cause = error.__cause__ or error.__context__
    return f"{error!r} {error} " + (chain(cause) if cause is not None else "")


@pytest.fixture
def secrets(connected: Services) -> Secrets:
    return Secrets(connected)


class Actors:
    """An operator's browser and a program; all that they are answered is kept."""

    def __init__(self, services: Services, conn: Conn, secrets: Secrets) -> None:
        app = create_app(services)
        self._browser = Browser(app)
        self._program = Browser(app, accept="*/*")
        self.responses: list[str] = []
        operators.create(conn, EMAIL, passwords.hash_password(PASSWORD))
        self.key = keys.create(conn, "program", list(SCOPES), created_by="test")
        secrets.add(self.key)

    def log_in(self, password: str) -> int:
        token = self._browser.open("GET", "/login", {"Host": HERE})
        found = token.text.split('name="csrf_token" value="')[1].split('"')[0]
        form = {"csrf_token": found, "email": EMAIL, "password": password}
        return self.browse("POST", "/login", data=form).status_code

    def browse(self, method: str, path: str, **more: Any) -> TestResponse:
        response = self._browser.open(method, path, {"Host": HERE}, **more)
        if path != "/rd/login":
            self.responses.append(response.text)
        return response

    def program(self, method: str, path: str, **more: Any) -> TestResponse:
        response = self._program.open(method, path, {"Authorization": f"Bearer {self.key}"}, **more)
        if not path.endswith("/access-token") or response.status_code != 200:
            self.responses.append(response.text)
        return response

    def state(self) -> str:
        location = self.browse("GET", "/rd/login").location
        return parse_qs(urlsplit(location).query)["state"][0]


@pytest.fixture
def actors(connected: Services, conn: Conn, secrets: Secrets) -> Actors:
    return Actors(connected, conn, secrets)


def test_the_check_itself_finds_what_it_looks_for(log: Log, secrets: Secrets) -> None:
    secrets.add("a-planted-secret")
    logging.getLogger("rdservice.anything").debug("it is %s", "a-planted-secret")
    logging.getLogger("other").error("failed", exc_info=ValueError("a-planted-secret"))
    assert [secrets.found_in(line) for line in log.lines[-2:]] == [["a-planted-secret"], ["a-planted-secret"]]


def test_connecting_and_logging_in_leave_no_trace_of_secrets(
    actors: Actors, connected: Services, sandbox: SandboxProcess, conn: Conn, log: Log, secrets: Secrets
) -> None:
    assert actors.log_in("planted wrong password") in (200, 401)
    secrets.add("planted wrong password")
    assert actors.log_in(PASSWORD) == 303
    for kind, code, state in [
        ("wrong code", "planted-code-0001", None),
        ("wrong state", "planted-code-0002", "planted-state-0002"),
        ("good", sandbox.code(), None),
        ("unknown", "planted-code-0003", None),
        ("cut", sandbox.code(), None),
    ]:
        own = actors.state()
        secrets.add(own, code)
        faults = [{"operation": "token_exchange", "kind": "truncated"}] if kind == "cut" else []
        sandbox.patch(faults=faults)
        response = actors.browse("GET", f"/rd/callback?code={code}&state={state or own}")
        assert (response.status_code == 303) is (kind == "good"), kind
        secrets.add(*([state] if state else []))
    actors.browse("GET", f"/rd/callback?error=access_denied&state={actors.state()}")
    secrets.add(*stored_pair(connected, conn))
    actors.browse("GET", "/")
    check(secrets, log, actors)


def test_uploads_and_reads_leave_no_trace_of_tokens(
    actors: Actors,
    connected: Services,
    sandbox: SandboxProcess,
    conn: Conn,
    log: Log,
    secrets: Secrets,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def upload(pair: dict[str, Any], expected: int) -> None:
        secrets.add(
            *(value for value in (pair["access_token"], pair["refresh_token"]) if isinstance(value, str))
        )
        response = actors.program("POST", "/rd/tokens", json=pair)
        assert response.status_code == expected, response.text

    good = sandbox.pair()
    upload(good, 200)
    upload(good, 200)
    planted = {"access_token": "planted-access-01", "refresh_token": "planted-refresh-01", "expires_in": 60}
    upload(planted, 422)
    upload(planted | {"access_token": "planted with space"}, 422)
    upload(planted | {"expires_in": "planted-expiry"}, 422)
    actors.program(
        "POST", "/rd/tokens", data=b'{"access_token": "planted-access-01"', content_type="application/json"
    )
    sandbox.patch(faults=[{"operation": "account_info", "kind": "html"}])
    upload(planted, 503)
    sandbox.patch(faults=[])
    assert actors.program("GET", "/rd/tokens/default/access-token").status_code == 200
    actors.program("GET", "/rd/tokens")

    def broken(*args: Any, **more: Any) -> Any:
        with psycopg.connect(connected.settings.database_url) as other:
            # PostgreSQL quotes the row that it refuses.
            other.execute(
                "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, expires_at, status)"
                " VALUES ('x', %s, %s, now(), 'none of the states')",
                [good["access_token"], good["refresh_token"]],
            )

    monkeypatch.setattr(store, "authorize", broken)
    upload(sandbox.pair(), 500)
    monkeypatch.undo()
    actors.program("DELETE", "/rd/tokens/default")
    check(secrets, log, actors)
    assert any("SQLSTATE 23514" in line for line in log.lines)


FAULTS: list[dict[str, Any]] = [
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 429, "retry_after": 1},
    {"kind": "status", "status": 401, "error_type": "ACCESS_DENIED"},
    {"kind": "status", "status": 401, "error_type": "UNAUTHORIZED"},
    {"kind": "html"},
    {"kind": "truncated"},
    {"kind": "drop_before"},
    {"kind": "drop_after"},
    {"kind": "slow_drip"},
    {"kind": "timeout"},
]


def test_refreshes_of_every_outcome_leave_no_trace_of_tokens(
    actors: Actors,
    connected: Services,
    sandbox: SandboxProcess,
    conn: Conn,
    log: Log,
    secrets: Secrets,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "EXCHANGE_DEADLINE_S", 0.5)
    sandbox.patch(rotate_refresh_tokens=True)
    raised: list[BaseException] = []
    for fault in FAULTS:
        secrets.add(*(str(v) for k, v in connect_account(connected, sandbox).items() if k != "expires_in"))
        sandbox.patch(faults=[fault | {"operation": "token_refresh"}])
        actors.program("POST", "/rd/tokens/default/refresh")
        conn.execute("DELETE FROM rdstation_client_credentials")
        try:
            connected.rdstation.refresh("planted-refresh-02")
        except TransportError as error:
            raised.append(error)
        sandbox.patch(faults=[])
    secrets.add("planted-refresh-02")
    monkeypatch.undo()
    conn.execute("UPDATE rdstation_tokens SET retry_at = NULL, holder = NULL, leased_until = NULL")
    for account in ("default", "never-given"):
        connect_account(connected, sandbox if account == "default" else None, account)
        actors.program("POST", f"/rd/tokens/{account}/refresh")
        secrets.add(*stored_pair(connected, conn, account))
    assert row(conn)["status"] == "connected"
    assert row(conn, "never-given")["status"] == "reauthorization_required"
    assert len(raised) >= 4
    check(secrets, log, actors, *raised)


def test_unreadable_values_are_named_and_not_shown(
    actors: Actors, connected: Services, conn: Conn, log: Log, secrets: Secrets
) -> None:
    raised: list[BaseException] = []
    other = KeyRing([Fernet.generate_key()])
    for column, stored in [
        ("access_token", "planted-plain-token"),
        ("access_token", other.encrypt("access_token", "default", "planted-plain-token")),
        ("refresh_token", "planted-plain-token"),
        ("refresh_token", other.encrypt("refresh_token", "default", "planted-plain-token")),
    ]:
        secrets.add(*(str(value) for value in connect_account(connected).values()))
        secrets.add(stored)
        conn.execute(sql.SQL("UPDATE rdstation_tokens SET {} = %s").format(sql.Identifier(column)), [stored])
        for method, path in [("GET", "access-token"), ("POST", "refresh")]:
            actors.program(method, f"/rd/tokens/default/{path}")
        connected.memory.forget("default")
        try:
            connected.access_tokens.usable("default", min_ttl_s=1)
            for lease in lease_due(connected):
                connected.refresher.refresh(lease)
        except (RdServiceError, KeyMissing) as error:
            raised.append(error)
    assert raised
    check(secrets, log, actors, *raised)


def test_adoption_says_how_many_and_not_what(
    connected: Services, conn: Conn, log: Log, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets.add("planted-plain-access", "planted-plain-refresh")
    conn.execute(
        "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token)"
        " VALUES ('default', 'planted-plain-access', 'planted-plain-refresh')"
    )
    monkeypatch.setattr(adoption, "WRITE", adoption.WRITE.replace("'connected'", "'none of the states'"))
    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        adoption.encrypt_plain_rows(connected.pool, connected.keys, by=BY)
    # Even PostgreSQL's own message, which quotes the row, has only what is encrypted by now.
    assert "gAAAA" in str(caught.value)
    check(secrets, log, None, caught.value)
    monkeypatch.undo()
    assert adoption.encrypt_plain_rows(connected.pool, connected.keys, by=BY) == 1
    check(secrets, log, None)


def test_a_call_that_ends_by_itself_leaves_no_trace(
    services: Services, requests_mock: Mocker, log: Log
) -> None:
    secrets = Secrets(services)
    secrets.add("planted-access-03", "planted-code-0004")
    raised: list[BaseException] = []
    calls: list[Callable[[], object]] = [
        lambda: services.rdstation.account_info("planted-access-03"),
        lambda: services.rdstation.revoke("planted-access-03"),
        lambda: services.rdstation.exchange_code("planted-code-0004"),
    ]
    requests_mock.get(ANY, exc=OSError("gone"))
    requests_mock.post(ANY, exc=OSError("gone"))
    for call in calls:
        try:
            call()
        except TransportError as error:
            raised.append(error)
    assert len(raised) == len(calls)
    check(secrets, log, None, *raised)


def test_no_secret_stands_in_the_repr_of_the_parts_of_a_process(
    connected: Services, secrets: Secrets
) -> None:
    for part in (connected, connected.settings, connected.refresher, connected.rdstation, connected.keys):
        assert secrets.found_in(repr(part)) == []


def check(secrets: Secrets, log: Log, actors: Actors | None, *raised: BaseException) -> None:
    for line in log.lines:
        assert secrets.found_in(line) == [], line
    for error in raised:
        assert secrets.found_in(chain(error)) == []
    # An operator's own address may stand on the operator's own page.
    for response in actors.responses if actors else []:
        assert set(secrets.found_in(response)) <= {EMAIL}
