"""What programs get in each kind of failure is what the table of the documents says."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from werkzeug.test import TestResponse

from dev.monitoring.programs import free_port
from rdservice.access import keys
from rdservice.config.settings import Settings
from rdservice.services import Services
from rdservice.web import create_app
from tests.support.accounts import connect_account
from tests.support.documents import page, prose, table_rows
from tests.support.sandbox_process import SandboxProcess

pytestmark = pytest.mark.slow

OPERATIONS = ("token_refresh", "account_info", "segmentations_list", "contacts_list", "other")
ROUTES = {
    "leads": "/rd/leads?segmentation=1",
    "access token": "/rd/tokens/default/access-token",
    "`/rd/api`": "/rd/api/platform/contacts/fields",
    "export": "/rd/leads/export?segmentation=1",
    "events": "/rd/events",
    "upload": "/rd/tokens",
}


class Stage:
    """An account that is connected, a key that may do everything, and the ways to break them."""

    def __init__(
        self,
        make_services: Callable[[Settings], Services],
        variables: dict[str, str],
        sandbox: SandboxProcess,
        conn: psycopg.Connection[Any],
    ) -> None:
        self._make_services = make_services
        self._variables = variables | {"RDSTATION_API_URL": sandbox.url}
        self.sandbox = sandbox
        self.conn = conn
        self.services = make_services(Settings.from_mapping(self._variables))
        self.pair = connect_account(self.services, sandbox, due=False)
        self.key = keys.create(conn, "a program", list(keys.SCOPES), created_by="test")

    def set(self, **variables: str) -> None:
        self.services = self._make_services(Settings.from_mapping(self._variables | variables))

    def rd_station(self, **fault: object) -> None:
        self.sandbox.patch(faults=[{"operation": operation, **fault} for operation in OPERATIONS])

    def runs_out(self) -> None:
        self.conn.execute(
            "UPDATE rdstation_tokens"
            " SET issued_at = rd_now() - interval '2 days', expires_at = rd_now() - interval '1 minute'"
        )

    def begin(self) -> None:
        """Start a web process that remembers nothing."""
        self._app = create_app(self.services)

    def ask(self, route: str) -> TestResponse:
        client = self._app.test_client()
        headers = {"Authorization": f"Bearer {self.key}", "Accept": "*/*"}
        path = ROUTES[route]
        if route == "upload":
            body = {"access_token": self.pair["access_token"], "refresh_token": "r", "expires_in": 86_400}
            return client.post(path, json=body, headers=headers)
        return client.get(path, headers=headers, environ_overrides={"RAW_URI": path})


def transport_error(stage: Stage) -> None:
    stage.rd_station(kind="drop_before")


def server_error(stage: Stage) -> None:
    stage.rd_station(kind="status", status=500)


def spent(stage: Stage) -> None:
    stage.conn.execute(
        "INSERT INTO rdstation_rate_limits (budget, class, closed_until)"
        " SELECT 'default', class, rd_now() + interval '5 minutes'"
        "   FROM unnest(ARRAY['account', 'segmentations']) class"
    )


def ran_out(stage: Stage) -> None:
    stage.runs_out()
    stage.rd_station(kind="drop_before")


def wrong_secret(stage: Stage) -> None:
    stage.runs_out()
    stage.set(RDSTATION_CLIENT_SECRET="not-the-app-s-secret-0123456789")


def dead_but_alive(stage: Stage) -> None:
    stage.conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required'")


def dead(stage: Stage) -> None:
    dead_but_alive(stage)
    stage.runs_out()


def no_account(stage: Stage) -> None:
    stage.conn.execute("DELETE FROM rdstation_tokens")


def lost_key(stage: Stage) -> None:
    stage.set(TOKEN_ENCRYPTION_KEYS=Fernet.generate_key().decode())


def no_database(stage: Stage) -> None:
    stage.set(DATABASE_URL=f"postgres://user:password@127.0.0.1:{free_port()}/database")


def wrong_key(stage: Stage) -> None:
    stage.key = stage.key[:-4] + ("aaaa" if not stage.key.endswith("aaaa") else "bbbb")


def no_scope(stage: Stage) -> None:
    stage.key = keys.create(stage.conn, "another program", ["privacy:erase"], created_by="test")


FAILURES = (
    transport_error,
    server_error,
    spent,
    ran_out,
    wrong_secret,
    dead_but_alive,
    dead,
    no_account,
    lost_key,
    no_database,
    wrong_key,
    no_scope,
)


def table() -> list[list[str]]:
    rows = table_rows(prose(page("en", "reference/errors")))
    [at] = [number for number, row in enumerate(rows) if row[1:] == list(ROUTES)]
    return rows[at + 1 : at + 1 + len(FAILURES)]


@pytest.fixture
def stage(
    make_services: Callable[[Settings], Services],
    variables: dict[str, str],
    sandbox: SandboxProcess,
    conn: psycopg.Connection[Any],
) -> Stage:
    return Stage(make_services, variables, sandbox, conn)


@pytest.mark.parametrize("number", range(len(FAILURES)), ids=[failure.__name__ for failure in FAILURES])
def test_every_route_answers_as_the_table_says(number: int, stage: Stage) -> None:
    FAILURES[number](stage)
    stage.begin()
    reading = [route for route in ROUTES if route != "upload"]
    with ThreadPoolExecutor(len(reading)) as callers:
        responses = [*callers.map(stage.ask, reading)]
    # Last, since it may mend what the others meet.
    responses.append(stage.ask("upload"))
    for route, response, cell in zip(ROUTES, responses, table()[number][1:], strict=True):
        told = re.fullmatch(r"(\d{3})(?: `(\w+)`|, RD Station's own)?", cell)
        assert told is not None, cell
        code = response.get_json()["code"] if response.content_type == "application/problem+json" else None
        assert (response.status_code, code) == (int(told[1]), told[2]), (route, response.text)
        if "own" in cell:
            assert response.headers["X-Answer-From"] == "rdstation"
        if response.status_code in (429, 503) and code != "token_unreadable":
            assert int(response.headers["Retry-After"]) >= 1, route


def test_the_portuguese_table_says_the_same() -> None:
    english = table()
    portuguese = table_rows(prose(page("pt-BR", "reference/errors")))
    cells = [[re.sub(r",.*", "", cell) for cell in row[1:]] for row in english]
    assert any(
        [[re.sub(r",.*", "", cell) for cell in row[1:]] for row in portuguese[at : at + len(cells)]] == cells
        for at in range(len(portuguese))
    )
