"""`rename` moves everything of an account in one transaction, or nothing."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg import sql

from rdservice import errors
from rdservice.access import audit, operators
from rdservice.accounts import connect, rename, upload, waiting_pairs
from rdservice.accounts.waiting_pairs import Owner
from rdservice.config.settings import Settings
from rdservice.data_protection import key_inventory
from rdservice.events import reading
from rdservice.leads import queries
from rdservice.leads.parameters import parse_listing
from rdservice.services import Services
from tests.support.accounts import BY, attempts_of, connect_account, lease_one, row, stored_pair
from tests.support.deliveries import BIA, add, event, old_lead, open_address
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

Conn = psycopg.Connection[Any]

OLD, NEW = "loja/centro", "loja-centro"

MOVED = {
    "rdstation_tokens": "account_id",
    "rdstation_replaced_tokens": "account_id",
    "rdstation_refresh_attempts": "account_id",
    "rdstation_oauth_states": "account_id",
    "rdstation_waiting_pairs": "account_id",
    "rdstation_rate_limits": "budget",
    "rdservice_events": "account_id",
    "rdservice_subscriptions": "account_id",
    "rdservice_incidents": "account_id",
}
KEPT_UNDER_THE_OLD_ID = {
    "rdservice_audit": "account_id",  # tells what happened, under the names of then
    "rdservice_event_streams": "account_id",  # numbers of events never go back
}
DROPPED = {"rdstation_cache": "account_id", "rdstation_rate_budgets": "account_id"}


def rows(conn: Conn, tables: dict[str, str], account_id: str) -> dict[str, int]:
    found = {}
    for table, column in tables.items():
        query = sql.SQL("SELECT count(*) FROM {} WHERE {} = %s").format(
            sql.Identifier(table), sql.Identifier(column)
        )
        counted = conn.execute(query, [account_id]).fetchone()
        found[table] = counted[0] if counted else 0
    return found


@pytest.fixture
def secret(connected: Services, sandbox: SandboxProcess, conn: Conn) -> str:
    """An account with rows in every table; returns the secret of its address for deliveries."""
    connect_account(connected, sandbox, OLD, due=True)
    assert connected.refresher.refresh(lease_one(connected)) == "stored"
    secret = open_address(connected, OLD)
    add(connected, secret, event(), event(uuid=BIA, email="bia@example.com"), event(identifier=None))
    queries.list_leads(connected, OLD, None, parse_listing(None, None, None))
    given = upload.parse_upload(sandbox.pair() | {"account_id": OLD, "verify": False}, connected.pool)
    upload.upload(connected, given, by=BY)
    conn.execute("UPDATE rdservice_events SET connection_id = (SELECT connection_id FROM rdstation_tokens)")
    conn.execute(
        "UPDATE rdservice_subscriptions SET connection_id = (SELECT connection_id FROM rdstation_tokens)"
    )
    conn.execute("INSERT INTO rdservice_incidents (kind, account_id) VALUES ('expiring', %s)", [OLD])
    operator = operators.create(conn, "ana@example.com", "no hash")
    assert operator is not None
    owner = Owner(operator_id=operator.operator_id, session_id="s")
    connect.begin(connected, owner, account_id=OLD)
    for pair_id in ("parked", "being exchanged"):
        waiting_pairs.begin(conn, owner, pair_id, OLD)
    pair = sandbox.pair()
    tokens = {name: pair[name] for name in ("access_token", "refresh_token")}
    waiting_pairs.park(conn, connected.keys, "parked", OLD, expires_in_s=600, age_s=0, **tokens)
    assert all(rows(conn, MOVED, OLD).values())
    return secret


def test_every_table_that_names_accounts_is_known_here(conn: Conn) -> None:
    found = conn.execute(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND column_name IN ('account_id', 'budget')"
    ).fetchall()
    assert dict(found) == MOVED | KEPT_UNDER_THE_OLD_ID | DROPPED


def test_all_rows_move_and_every_value_can_be_decrypted(connected: Services, conn: Conn, secret: str) -> None:
    before, pair = rows(conn, MOVED, OLD), stored_pair(connected, conn, OLD)
    rename.rename(connected, OLD, NEW, by=BY)
    assert rows(conn, MOVED, NEW) == before
    assert set(rows(conn, MOVED | DROPPED, OLD).values()) == {0}
    assert stored_pair(connected, conn, NEW) == pair
    found = key_inventory.look_through(connected.pool, connected.keys)
    assert found.first_key_is_enough
    assert (found.damaged.total, found.missing) == (0, {})
    entry = audit.newest(conn, limit=1)[0]
    assert (entry.action, entry.account_id, entry.details) == ("account_renamed", NEW, {"previous": OLD})


def test_the_account_goes_on_under_its_new_id_alone(
    connected: Services, sandbox: SandboxProcess, conn: Conn, secret: str
) -> None:
    rename.rename(connected, OLD, NEW, by=BY)
    assert queries.list_leads(connected, NEW, None, parse_listing(None, None, None)).state == "miss"
    assert connected.refresher.refresh(lease_one(connected)) == "stored"
    assert attempts_of(conn, NEW)[-1] == ("stored", None)
    assert row(conn, NEW)["status"] == "connected"
    with pytest.raises(errors.NotConnected):
        connected.access_tokens.stored(OLD)


def test_events_keep_their_numbers_and_are_recognized_when_delivered_again(
    connected: Services, conn: Conn, secret: str
) -> None:
    def read(account_id: str) -> list[Any]:
        page = reading.read(connected, account_id, after=0, limit=10, event_type=None)
        return [(found.row.number, found.row.event_type, found.told) for found in page.events]

    before = read(OLD)
    assert len(before) == 3
    rename.rename(connected, OLD, NEW, by=BY)
    assert read(NEW) == before
    again = add(connected, secret, event(), event(uuid=BIA, email="bia@example.com"), event(identifier=None))
    assert (again.stored, again.duplicates) == (0, 3)
    # Older than what is known of the same lead.
    late = add(connected, secret, event(identifier="earlier", at="2026-03-01T10:00:00Z"))
    assert (late.stored, late.late) == (0, 1)
    assert [number for number, *_ in read(NEW)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "body", [old_lead(), event(at="2026-03-13T14:07:04+14:00", tags=["ação", 1.5, None])]
)
def test_an_event_of_any_form_is_recognized_after_it(
    connected: Services, sandbox: SandboxProcess, body: dict[str, Any]
) -> None:
    connect_account(connected, sandbox, OLD, due=False)
    secret = open_address(connected, OLD)
    add(connected, secret, body)
    rename.rename(connected, OLD, NEW, by=BY)
    assert add(connected, secret, body).duplicates == 1


def test_numbers_never_go_back_for_readers_of_either_id(
    connected: Services, sandbox: SandboxProcess, conn: Conn, secret: str
) -> None:
    conn.execute("INSERT INTO rdservice_event_streams (account_id, last_number) VALUES (%s, 70)", [NEW])
    rename.rename(connected, OLD, NEW, by=BY)
    add(connected, secret, event(identifier="new"))
    connect_account(connected, sandbox, OLD, due=False)
    add(connected, open_address(connected, OLD), event(identifier="new"))
    last = "SELECT account_id, max(number) FROM rdservice_events GROUP BY 1 ORDER BY 1"
    assert conn.execute(last).fetchall() == [(NEW, 71), (OLD, 4)]


@pytest.mark.parametrize("new", ["a/b", "..", " a", "", "x" * 201, OLD])
def test_the_new_id_must_be_one_for_new_accounts(
    connected: Services, conn: Conn, secret: str, new: str
) -> None:
    before = everything(conn)
    with pytest.raises(errors.InvalidField):
        rename.rename(connected, OLD, new, by=BY)
    assert everything(conn) == before


def test_an_id_that_another_account_has_is_refused(connected: Services, conn: Conn, secret: str) -> None:
    connect_account(connected, account_id=NEW)
    before = everything(conn)
    with pytest.raises(errors.InvalidField) as raised:
        rename.rename(connected, OLD, NEW, by=BY)
    assert "exists already" in raised.value.told("en")
    assert everything(conn) == before


def test_an_account_that_is_not_there_is_told(connected: Services) -> None:
    with pytest.raises(errors.NotFound):
        rename.rename(connected, OLD, NEW, by=BY)


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE rdstation_tokens SET refresh_token = 'plain'",
        "UPDATE rdstation_replaced_tokens SET access_token = 'plain'",
    ],
)
def test_a_value_that_cannot_be_decrypted_stops_it(
    connected: Services, conn: Conn, secret: str, spoil: str
) -> None:
    conn.execute(spoil.encode())
    before = everything(conn)
    with pytest.raises(errors.TokenUnreadable):
        rename.rename(connected, OLD, NEW, by=BY)
    assert everything(conn) == before


def test_a_missing_key_stops_it(
    make_services: Callable[[Settings], Services], variables: dict[str, str], conn: Conn, secret: str
) -> None:
    other = make_services(
        Settings.from_mapping(variables | {"TOKEN_ENCRYPTION_KEYS": Fernet.generate_key().decode()})
    )
    before = everything(conn)
    with pytest.raises(errors.TokenUnreadable):
        rename.rename(other, OLD, NEW, by=BY)
    assert everything(conn) == before


def test_a_refresh_under_way_stores_its_response_before(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    before = connect_account(connected, sandbox, OLD)
    lease = lease_one(connected)
    with ThreadPoolExecutor(1) as other:
        renaming = other.submit(rename.rename, connected, OLD, NEW, by=BY)
        wait_until(lambda: not renaming.done(), "it waits")
        assert connected.refresher.refresh(lease) == "stored"
        renaming.result(20)
    assert stored_pair(connected, conn, NEW)[0] != before["access_token"]
    assert attempts_of(conn, NEW) == [("stored", None)]


def test_a_refresh_whose_outcome_is_unknown_stops_it(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, OLD)
    lease_one(connected)
    # Its lease has ended, but the process may still have the response.
    conn.execute("UPDATE rdstation_tokens SET leased_until = now() - interval '1 second'")
    before = everything(conn)
    with pytest.raises(errors.TooManyRequests):
        rename.rename(connected, OLD, NEW, by=BY, wait_s=0)
    assert everything(conn) == before


def everything(conn: Conn) -> dict[str, Any]:
    found = {}
    for table in MOVED | KEPT_UNDER_THE_OLD_ID | DROPPED:
        query = sql.SQL("SELECT t::text FROM {} t ORDER BY 1").format(sql.Identifier(table))
        found[table] = conn.execute(query).fetchall()
    return found
