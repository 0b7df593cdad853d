"""A stolen dump of the database is useless: no secret and nobody's data is in it, in whatever form."""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from rdservice.access.keys import SCOPES
from rdservice.config.settings import Settings
from rdservice.errors import NotFound
from rdservice.leads.queries import lead_by_email
from rdservice.notifications.notifier import Notifier
from rdservice.services import Services
from rdservice.worker.auto_refresh import auto_refresh_tokens
from rdservice.worker.bell import Bell
from tests.conftest import REDIRECT_URI
from tests.support.accounts import connect_account, lease_due, stored_pair
from tests.support.browser import Browser
from tests.support.command_line import app_with_commands
from tests.support.deliveries import event, open_address
from tests.support.dumps import copies_of, dumps_of, found_in, hashes, hidings
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

Conn = psycopg.Connection[Any]
OPERATOR, PASSWORD = "olga.operator@example.com", "planted password of Olga"
HERE = urlsplit(REDIRECT_URI).netloc
RECEIVER_PASSWORD, RECEIVER_PATH = "planted-password-of-a-receiver", "planted-path-of-a-receiver"
NOTIFY_URL = f"json://notifier:{RECEIVER_PASSWORD}@127.0.0.1:9/{RECEIVER_PATH}"


def test_a_value_is_found_in_whatever_form_it_is_hidden(
    empty_database_url: str, postgres_programs: Path | None
) -> None:
    secrets = {
        form: f"Planted-Secret-{number:02}-of-the-Self-Test" for number, form in enumerate(hidings(""))
    }
    people = {form: f"person-{number}@example.com" for number, form in enumerate(hashes(""))}
    stored = [hidings(secret)[form] for form, secret in secrets.items()]
    stored += [hashes(person)[form] for form, person in people.items()]
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        conn.execute("CREATE TABLE leaks (number integer, bytes bytea, text text, json jsonb)")
        for number, value in enumerate(stored):
            conn.execute("INSERT INTO leaks (number, bytes) VALUES (%s, %s)", [number, value])
            if value.isascii():
                text = value.decode()
                conn.execute(
                    "INSERT INTO leaks (number, text, json) VALUES (%s, %s, %s)",
                    [number, f"before {text}", json.dumps({"a": text})],
                )
    plain, copies, _ = dumps_of(empty_database_url, postgres_programs)
    expected = set(secrets) | set(people)
    for dump in (plain, copies):
        assert found_in(dump, secrets, guessable=people) == expected
        others = {"never stored": "Planted-Secret-99-of-the-Self-Test"}
        assert found_in(dump, others, guessable={"nobody": "nobody@example.com"}) == set()


class Installation:
    """The service with everything in its tables that it ever writes; keeps what must not be found there."""

    def __init__(self, services: Services, sandbox: SandboxProcess, conn: Conn) -> None:
        self.app: Flask = app_with_commands(services)
        self.secrets: dict[str, str] = {}
        self.people: dict[str, str] = {}
        self._services, self._sandbox, self._conn = services, sandbox, conn
        self._browser = Browser(self.app)
        self._key = ""
        settings = services.settings
        self.secrets |= {
            "the client secret": settings.client_secrets[0],
            "the encryption key": settings.encryption_keys[0].decode(),
            "SECRET_KEY": settings.secret_key,
        }

    def fill(self) -> None:
        self._make_operator_and_key()
        self._connect_in_browser()
        self._upload_twice()
        self._read_leads()
        self._deliver_event()
        self._fail_at_the_door()
        assert self._services.metrics_flusher.snapshot(10) is not None
        self._run_worker()
        self._tell()
        self._leave_pending()

    def upload_same_pair(self, *accounts: str) -> None:
        """Store one pair and the same leads for several accounts."""
        self._make_operator_and_key()
        pair = self._sandbox.pair()
        for account in accounts:
            response = self._program("POST", "/rd/tokens", json=pair | {"account_id": account})
            assert response.status_code == 200, response.text
            assert self._program("GET", f"/rd/leads?account_id={account}").status_code == 200

    def _make_operator_and_key(self) -> None:
        run = self.app.test_cli_runner().invoke
        created = run(args=["operators", "create", OPERATOR, "--password-stdin"], input=PASSWORD + "\n")
        assert created.exit_code == 0, created.output
        scopes = [part for scope in SCOPES for part in ("--scope", scope)]
        self._key = run(args=["keys", "create", "a program", *scopes]).stdout.strip()
        self.secrets |= {"the operator's password": PASSWORD, "the API key": self._key.split("_", 2)[2]}

    def _connect_in_browser(self) -> None:
        form = {"csrf_token": self._csrf("/login"), "email": OPERATOR, "password": PASSWORD}
        assert self._browse("POST", "/login", data=form).status_code == 303
        cookie = self._browser.client.get_cookie("rdservice_session_8000", domain="localhost")
        assert cookie is not None
        serializer = self.app.session_interface.get_signing_serializer(self.app)  # type: ignore[attr-defined]
        self.secrets |= {
            "the session cookie": cookie.value,
            "the session's token": serializer.loads(cookie.value)["_user_id"],
        }
        code, state = self._sandbox.code(), self._state()
        assert self._browse("GET", f"/rd/callback?code={code}&state={state}").status_code == 303
        self.secrets |= {"the code": code, "a state": state, "a state under way": self._state()}
        self._keep_pair("connected", *stored_pair(self._services, self._conn))

    def _upload_twice(self) -> None:
        """So that the first pair is kept: the second one cannot be proven."""
        self._sandbox.patch(faults=[{"operation": "token_refresh", "kind": "status", "status": 500}])
        for number in (1, 2):
            pair = self._sandbox.pair("account-2")
            response = self._program("POST", "/rd/tokens", json=pair | {"account_id": "uploaded"})
            assert response.status_code == 200, response.text
            self._keep_pair(f"upload {number}", pair["access_token"], pair["refresh_token"])
        planted = {"access_token": "planted-access-token", "refresh_token": "planted-refresh-token"}
        response = self._program(
            "POST", "/rd/tokens", json={**planted, "expires_in": 9, "account_id": "refused", "verify": False}
        )
        assert response.status_code == 200, response.text
        self._keep_pair("a refused pair", *planted.values())

    def _read_leads(self) -> None:
        responses = [self._program("GET", "/rd/leads?page_size=5"), self._program("GET", "/rd/segmentations")]
        listed = json.loads(responses[0].text)["contacts"]
        responses += [self._program("GET", f"/rd/leads/{lead['uuid']}") for lead in listed]
        responses += [self._program("GET", f"/rd/leads/email/{listed[0]['email']}")]
        responses += [self._program("POST", "/rd/leads/lookup", json={"email": listed[1]["email"]})]
        assert {response.status_code for response in responses} == {200}
        asked_in_vain = "unknown.lead@example.com"
        assert self._program("GET", f"/rd/leads/email/{asked_in_vain}").status_code == 404
        self.people["an unknown lead's e-mail"] = asked_in_vain
        for response in responses[2:]:
            self._keep_person(json.loads(response.text))
        assert any("phone" in name for name in self.people)

    def _deliver_event(self) -> None:
        secret = open_address(self._services)
        uuid, email = "d2f3d2b3-7250-4d27-97f4-eef38be32f7f", "delivered.lead@example.com"
        told = event(uuid=uuid, email=email, name="Delivered Lead Planted", mobile_phone="48 91234-5678")
        response = Browser(self.app).open("POST", f"/rd/webhooks/{secret}", {}, json=told)
        assert response.json == {"stored": 1, "late": 0, "duplicates": 0, "refused": 0}
        self.secrets["the secret in an address"] = secret
        contact = told["contact"]
        self.people |= {
            f"{name} of an event": contact[name] for name in ("uuid", "email", "name", "mobile_phone")
        }

    def _fail_at_the_door(self) -> None:
        stranger, wrong = "stranger@example.com", "planted wrong password"
        Browser(self.app, address="203.0.113.9").log_in(stranger, wrong)
        Browser(self.app).open(
            "GET", "/rd/tokens", {"Authorization": "Bearer rdk_aaaaaaaa_planted-wrong-key"}
        )
        self.people |= {"a stranger's e-mail": stranger, "a stranger's address": "203.0.113.9"}
        self.secrets |= {"a wrong password": wrong, "a wrong key": "planted-wrong-key"}

    def _run_worker(self) -> None:
        bell = Bell()
        faults = [{"operation": "token_refresh", "kind": "status", "status": 500, "count": 1}]
        self._sandbox.patch(faults=faults)
        count = "SELECT count(DISTINCT outcome) FROM rdstation_refresh_attempts"

        def both_outcomes() -> bool:
            if self._conn.execute(count).fetchone() == (2,):
                bell.stop()
            else:
                self._conn.execute("UPDATE rdstation_tokens SET retry_at = NULL WHERE account_id = 'refused'")
            return bell.stopped

        self._conn.execute(
            "UPDATE rdstation_tokens SET retry_at = rd_now() + '1 hour' WHERE account_id = 'uploaded'"
        )
        worker = threading.Thread(target=auto_refresh_tokens, args=(self._services.refresher, bell))
        worker.start()
        try:
            wait_until(both_outcomes, "a failed and a refused attempt")
        finally:
            bell.stop()
            worker.join(30)

    def _tell(self) -> None:
        """One message to a receiver that does not answer, and one that nobody has sent yet."""
        notifier = Notifier(self._services.pool, self._services.settings, self._services.metrics)
        notifier.compare()
        self._conn.execute("UPDATE rdservice_incidents SET opened_at = opened_at - interval '1 minute'")
        notifier.compare()
        assert notifier.send_next()
        assert self._conn.execute("SELECT error FROM rdservice_deliveries").fetchone() == ("connection",)
        assert (
            self._browse("POST", "/notifications/test", data={"csrf_token": self._csrf()}).status_code == 303
        )
        self.secrets |= {"a receiver's URL": NOTIFY_URL, "a receiver's password": RECEIVER_PASSWORD}
        self.secrets["a receiver's path"] = RECEIVER_PATH

    def _leave_pending(self) -> None:
        """A claim of a process that died."""
        self._conn.execute(
            "UPDATE rdstation_tokens SET refresh_after = rd_now() WHERE account_id = 'default'"
        )
        assert lease_due(self._services)

    def _keep_pair(self, name: str, access_token: str, refresh_token: str) -> None:
        self.secrets |= {f"{name}: access token": access_token, f"{name}: refresh token": refresh_token}
        if access_token.count(".") == 2:
            self.secrets[f"{name}: signature"] = access_token.split(".")[2]

    def _keep_person(self, lead: dict[str, Any]) -> None:
        telling = {"uuid", "email", "name", "personal_phone", "mobile_phone", "bio", "website"}
        self.people |= {
            f"{name} of {lead['uuid']}": value for name, value in lead.items() if name in telling and value
        }

    def _csrf(self, path: str = "/") -> str:
        found = re.search(r'name="csrf_token" value="([^"]+)"', self._browse("GET", path).text)
        assert found is not None
        return found[1]

    def _state(self) -> str:
        return parse_qs(urlsplit(self._browse("GET", "/rd/login").location).query)["state"][0]

    def _browse(self, method: str, path: str, **more: Any) -> TestResponse:
        return self._browser.open(method, path, {"Host": HERE}, **more)

    def _program(self, method: str, path: str, **more: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self._key}", "Accept": "application/json"}
        return Browser(self.app).open(method, path, headers, **more)


@pytest.fixture
def installation(
    make_services: Callable[[Settings], Services],
    sandbox_settings: Settings,
    sandbox: SandboxProcess,
    conn: Conn,
) -> Installation:
    settings = replace(sandbox_settings, notify_urls=(NOTIFY_URL,))
    filled = Installation(make_services(settings), sandbox, conn)
    filled.fill()
    return filled


def test_a_dump_of_every_table_holds_no_secret_and_nobodys_data(
    installation: Installation, conn: Conn, database_url: str, postgres_programs: Path | None
) -> None:
    conn.execute("ANALYZE")
    # Only earlier versions write to that one.
    assert [name for name, content in copies_of(conn) if not content] == ["rdstation_rate_budgets"]
    for dump in dumps_of(database_url, postgres_programs):
        assert found_in(dump, installation.secrets, guessable=installation.people) == set()


def test_what_a_dump_does_tell(
    installation: Installation, database_url: str, postgres_programs: Path | None
) -> None:
    # SECURITY.md says so: who may log in, which accounts there are, and which programs have keys.
    plain, *_ = dumps_of(database_url, postgres_programs)
    names = {"operator": OPERATOR, "account": "uploaded", "key": "a program"}
    assert found_in(plain, names) == set(names)


def test_the_same_values_stored_twice_do_not_look_the_same(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    installation = Installation(connected, sandbox, conn)
    installation.upload_same_pair("one", "two")
    rows = conn.execute("SELECT access_token, refresh_token FROM rdstation_tokens").fetchall()
    columns = "SELECT value FROM rdstation_cache WHERE value IS NOT NULL"
    values = [value for row in rows + conn.execute(columns).fetchall() for value in row]
    assert len(values) == 8
    # The key's id, the version and the first bytes of the time are the same in all.
    pieces = [value[start : start + 12] for value in values for start in range(20, len(value) - 12)]
    assert len(set(pieces)) == len(pieces)


def test_hashes_of_what_can_be_guessed_need_the_secret_key(
    make_services: Callable[[Settings], Services],
    sandbox_settings: Settings,
    sandbox: SandboxProcess,
    conn: Conn,
) -> None:
    query = "SELECT subject FROM rdservice_access_failures UNION ALL SELECT key FROM rdstation_cache"
    derived: list[set[bytes]] = []
    connect_account(make_services(sandbox_settings), sandbox, due=False)
    for secret_key in ("one" * 20, "two" * 20):
        services = make_services(replace(sandbox_settings, secret_key=secret_key))
        Browser(app_with_commands(services)).log_in("stranger@example.com", "a wrong password")
        with pytest.raises(NotFound):
            lead_by_email(services, "default", "unknown.lead@example.com")
        derived.append({bytes(value) for (value,) in conn.execute(query).fetchall()})
        conn.execute("DELETE FROM rdservice_access_failures")
        conn.execute("DELETE FROM rdstation_cache")
    assert len(derived[0]) == len(derived[1]) == 3
    assert derived[0].isdisjoint(derived[1])


def test_a_dump_of_an_adopted_table_holds_no_token_when_its_other_columns_were_emptied_as_advised(
    variables: dict[str, str],
    make_services: Callable[[Settings], Services],
    empty_database_url: str,
    postgres_programs: Path | None,
) -> None:
    plain = {
        f"{kind} token {number}": f"plain-{kind}-token-{number:04}-of-the-older-backend"
        for kind in ("access", "refresh")
        for number in range(60)
    }
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        conn.execute(
            "CREATE TABLE rdstation_tokens (account_id text, access_token text, refresh_token text,"
            " expires_at timestamp, raw_response json, copied_token text)"
        )
        for number in range(60):
            access, refresh = (plain[f"{kind} token {number}"] for kind in ("access", "refresh"))
            conn.execute(
                "INSERT INTO rdstation_tokens VALUES (%s, %s, %s, now(), %s, %s)",
                [f"account-{number}", access, refresh, json.dumps({"access_token": access}), refresh],
            )
        conn.execute("ANALYZE")
        everything_before = b"".join(dumps_of(empty_database_url, postgres_programs))
        assert found_in(everything_before, plain) == set(plain)

        services = make_services(Settings.from_mapping(variables | {"DATABASE_URL": empty_database_url}))
        ended = app_with_commands(services).test_cli_runner().invoke(args=["release"])
        assert ended.exit_code == 0, ended.output
        assert "Encrypted the plain tokens of 60 accounts." in ended.output
        warning, *advised = ended.stderr.splitlines()
        assert "raw_response, copied_token" in warning
        for statement in advised:
            conn.execute(statement.encode())
    for dump in dumps_of(empty_database_url, postgres_programs):
        assert found_in(dump, plain) == set()
