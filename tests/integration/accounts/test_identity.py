"""What belongs to a connection stays with it while RD Station cannot tell whose tokens arrived."""

from typing import Any

import psycopg
import pytest

from rdservice.access import operators
from rdservice.accounts import connect as authorization
from rdservice.accounts import upload as uploads
from rdservice.accounts.waiting_pairs import Owner
from rdservice.database.pool import transaction
from rdservice.events import reading
from rdservice.events import store as events
from rdservice.services import Services
from tests.conftest import Clock
from tests.support.accounts import BY, row
from tests.support.deliveries import add, event, open_address
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
SESSION = "5e" * 32


@pytest.fixture
def operator_id(conn: Conn) -> str:
    created = operators.create(conn, "ana@example.com", "no hash: nobody logs in here")
    assert created is not None
    return created.operator_id


def connect(services: Services, sandbox: SandboxProcess, operator_id: str) -> None:
    owner = Owner(operator_id=operator_id, session_id=SESSION)
    url = authorization.begin(services, owner, account_id="default")
    callback = {"state": url.rpartition("state=")[2], "code": sandbox.code()}
    authorization.complete(services, owner, callback=callback, by=BY)


def upload(services: Services, sandbox: SandboxProcess, **more: Any) -> None:
    uploads.upload(services, uploads.parse_upload(sandbox.pair() | more), by=BY)


UNREADABLE: dict[str, dict[str, Any]] = {
    "a 503": {"kind": "status", "status": 503},
    "a 429": {"kind": "status", "status": 429},
    "a lost connection": {"kind": "drop_before"},
    "a page of HTML": {"kind": "html"},
}


@pytest.mark.parametrize("fault", UNREADABLE.values(), ids=UNREADABLE)
def test_a_name_that_cannot_be_read_changes_neither_connection_nor_events_nor_address(
    connected: Services,
    sandbox: SandboxProcess,
    operator_id: str,
    conn: Conn,
    clock: Clock,
    fault: dict[str, Any],
) -> None:
    connect(connected, sandbox, operator_id)
    secret = open_address(connected)
    add(connected, secret, event())
    before = row(conn)
    sandbox.patch(faults=[{"operation": "account_info", "count": 1, **fault}])
    connect(connected, sandbox, operator_id)
    assert_all_is_kept(connected, conn, clock, before, secret)


def test_an_upload_that_nobody_checks_changes_neither_connection_nor_events_nor_address(
    connected: Services, sandbox: SandboxProcess, operator_id: str, conn: Conn, clock: Clock
) -> None:
    connect(connected, sandbox, operator_id)
    secret = open_address(connected)
    add(connected, secret, event())
    before = row(conn)
    upload(connected, sandbox, verify=False)
    assert_all_is_kept(connected, conn, clock, before, secret)


def test_an_upload_over_refused_tokens_changes_neither_connection_nor_events_nor_address(
    connected: Services, sandbox: SandboxProcess, operator_id: str, conn: Conn, clock: Clock
) -> None:
    connect(connected, sandbox, operator_id)
    secret = open_address(connected)
    add(connected, secret, event())
    before = row(conn)
    conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required'")
    sandbox.patch(faults=[{"operation": "account_info", "kind": "drop_before"}])
    upload(connected, sandbox)
    assert_all_is_kept(connected, conn, clock, before, secret)


def assert_all_is_kept(
    services: Services, conn: Conn, clock: Clock, before: dict[str, Any], secret: str
) -> None:
    after = row(conn)
    assert (after["connection_id"], after["name"]) == (before["connection_id"], before["name"])
    clock.advance(25 * 3600)
    with transaction(services.pool) as inside:
        assert events.prune(inside) == 0
    clock.reset()
    add(services, secret, event(uuid="b" * 8 + "-0000-4000-8000-000000000000"))
    assert len(reading.read(services, "default", after=0, limit=10, event_type=None).events) == 2


def test_each_authorization_makes_cached_leads_of_before_unreadable(
    connected: Services, sandbox: SandboxProcess, operator_id: str, conn: Conn
) -> None:
    connect(connected, sandbox, operator_id)
    epochs = [row(conn)["cache_epoch"]]
    connect(connected, sandbox, operator_id)
    epochs.append(row(conn)["cache_epoch"])
    upload(connected, sandbox)
    epochs.append(row(conn)["cache_epoch"])
    assert epochs == sorted(set(epochs))


def test_a_dead_account_without_a_name_is_connected_again_with_the_name_that_is_told(
    connected: Services, sandbox: SandboxProcess, operator_id: str, conn: Conn
) -> None:
    connect(connected, sandbox, operator_id)
    before = row(conn)
    conn.execute("UPDATE rdstation_tokens SET name = NULL, status = 'reauthorization_required'")
    connect(connected, sandbox, operator_id)
    after = row(conn)
    assert (after["status"], after["name"], after["name_due"]) == ("connected", before["name"], False)
    assert after["connection_id"] == before["connection_id"]
