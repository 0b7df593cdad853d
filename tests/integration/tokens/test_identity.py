"""Names that are asked for later, and tokens that nobody checked before they were stored."""

from typing import Any

import psycopg
import pytest
from requests_mock import Mocker

from rdservice.accounts import upload as uploads
from rdservice.database.pool import transaction
from rdservice.services import Services
from rdservice.tokens import identity, leases
from rdservice.tokens.refresh import Result
from rdservice.worker.names import NameReader
from tests.conftest import Clock
from tests.support.accounts import BY, attempts_of, connect_account, lease_due, lease_one, row, stored_pair
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
FAULT = {"operation": "account_info", "kind": "status", "status": 503}


def upload(services: Services, pair: dict[str, Any], **more: Any) -> None:
    uploads.upload(services, uploads.parse_upload(pair | more), by=BY)


def accepts(services: Services, pair: dict[str, Any]) -> bool:
    """Return whether RD Station still takes the refresh token, which this may use up."""
    return services.rdstation.refresh(pair["refresh_token"]).status == 200


@pytest.fixture
def rotating(sandbox: SandboxProcess) -> SandboxProcess:
    """RD Station gives a new refresh token each time, and the old one ends."""
    sandbox.patch(rotate_refresh_tokens=True)
    return sandbox


def test_tokens_of_another_account_are_not_used_up_and_the_ones_before_come_back(
    connected: Services, rotating: SandboxProcess, conn: Conn
) -> None:
    upload(connected, rotating.pair())
    connected.refresher.refresh(lease_one(connected))
    before, pair = row(conn), stored_pair(connected, conn)
    foreign = rotating.pair("account-2")
    upload(connected, foreign, verify=False)
    assert row(conn)["name_due"]
    assert connected.refresher.refresh(lease_one(connected)) is Result.REFUSED
    after = row(conn)
    assert stored_pair(connected, conn) == pair
    for column in ("connection_id", "name", "name_due"):
        assert after[column] == before[column]
    assert (after["status"], after["last_error"]) == ("connected", "another_account")
    assert after["cache_epoch"] > before["cache_epoch"]
    assert attempts_of(conn)[-1] == ("refused", "another_account")
    assert accepts(connected, foreign)
    assert connected.refresher.refresh(lease_one(connected)) is Result.STORED
    assert (row(conn)["last_error"], row(conn)["name_due"]) == (None, False)


def test_tokens_that_come_back_during_their_own_exchange_wait_for_its_response(
    connected: Services, rotating: SandboxProcess, conn: Conn
) -> None:
    upload(connected, rotating.pair())
    connected.refresher.refresh(lease_one(connected))
    conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now()")
    under_way = lease_one(connected)
    upload(connected, rotating.pair("account-2"), verify=False)
    assert connected.refresher.refresh(lease_one(connected)) is Result.REFUSED
    assert lease_due(connected) == []
    lease_s = (row(conn)["leased_until"] - under_way.claimed_at).total_seconds()
    assert 59 < lease_s <= 60
    with transaction(connected.pool) as inside:
        assert leases.store(
            inside,
            under_way,
            connected.keys,
            access_token="newer-access",
            refresh_token="newer-refresh",
            expires_at=row(conn)["expires_at"],
        )
    assert stored_pair(connected, conn) == ("newer-access", "newer-refresh")


def test_without_tokens_before_those_of_another_account_are_forgotten(
    connected: Services, rotating: SandboxProcess, conn: Conn
) -> None:
    upload(connected, rotating.pair())
    before = row(conn)
    conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required'")
    foreign = rotating.pair("account-2")
    rotating.patch(faults=[FAULT])
    upload(connected, foreign)
    conn.execute("DELETE FROM rdstation_replaced_tokens")
    rotating.patch(faults=[])
    assert connected.refresher.refresh(lease_one(connected)) is Result.REFUSED
    after = row(conn)
    assert (after["status"], after["last_error"]) == ("reauthorization_required", "another_account")
    assert (after["connection_id"], after["name"]) == (before["connection_id"], before["name"])
    assert after["expires_at"] <= after["now"]
    assert stored_pair(connected, conn) == ("", "")
    assert accepts(connected, foreign)


def test_tokens_of_the_same_account_are_confirmed_and_used(
    connected: Services, rotating: SandboxProcess, conn: Conn
) -> None:
    upload(connected, rotating.pair())
    before = row(conn)
    upload(connected, rotating.pair(), verify=False)
    assert connected.refresher.refresh(lease_one(connected)) is Result.STORED
    after = row(conn)
    assert (after["status"], after["name_due"], after["name"]) == ("connected", False, before["name"])
    assert after["connection_id"] == before["connection_id"]
    assert conn.execute("SELECT count(*) FROM rdstation_replaced_tokens").fetchone() == (0,)


def test_a_connection_without_a_name_is_known_by_its_own_tokens(
    connected: Services, rotating: SandboxProcess, conn: Conn
) -> None:
    own = connect_account(connected, rotating, due=False)
    assert row(conn)["name"] is None
    upload(connected, rotating.pair("account-2"), verify=False)
    assert connected.refresher.refresh(lease_one(connected)) is Result.REFUSED
    assert stored_pair(connected, conn) == (own["access_token"], own["refresh_token"])


@pytest.mark.parametrize("status", [503, 429, 500])
def test_while_nobody_tells_whose_they_are_tokens_are_not_used_up(
    connected: Services, rotating: SandboxProcess, conn: Conn, status: int
) -> None:
    upload(connected, rotating.pair())
    upload(connected, rotating.pair(), verify=False)
    rotating.patch(faults=[FAULT | {"status": status}])
    assert connected.refresher.refresh(lease_one(connected)) is Result.TRANSIENT
    assert row(conn)["retry_at"] > row(conn)["now"]
    assert rotating.calls().get("token_refresh", {}) == {}
    assert conn.execute("SELECT count(*) FROM rdstation_replaced_tokens").fetchone() == (1,)


def test_tokens_that_end_soon_are_renewed_even_if_nobody_tells_whose_they_are(
    connected: Services, rotating: SandboxProcess, conn: Conn, clock: Clock
) -> None:
    upload(connected, rotating.pair())
    upload(connected, rotating.pair(), verify=False)
    rotating.patch(faults=[FAULT])
    clock.advance(16 * 3600)
    assert connected.refresher.refresh(lease_one(connected)) is Result.STORED
    assert row(conn)["name_due"]
    # The tokens before stay until it is known.
    assert conn.execute("SELECT count(*) FROM rdstation_replaced_tokens").fetchone() == (1,)
    rotating.patch(faults=[])
    while NameReader(connected.refresher).read_next():
        pass
    assert not row(conn)["name_due"]
    assert conn.execute("SELECT count(*) FROM rdstation_replaced_tokens").fetchone() == (0,)


def test_a_missing_name_is_asked_for_until_it_is_known(
    connected: Services, sandbox: SandboxProcess, conn: Conn, clock: Clock
) -> None:
    connect_account(connected, sandbox, due=False)
    before = row(conn)
    reader = NameReader(connected.refresher)
    sandbox.patch(faults=[FAULT])
    assert [reader.read_next(), reader.read_next()] == [True, False]
    sandbox.patch(faults=[])
    clock.advance(identity.ASK_AGAIN_S + 1)
    assert [reader.read_next(), reader.read_next()] == [True, False]
    after = row(conn)
    assert after["name"]
    assert (after["connection_id"], after["authorization_id"]) == (
        before["connection_id"],
        before["authorization_id"],
    )
    clock.advance(40_000)
    assert not reader.read_next()


def test_where_rd_station_names_no_account_it_is_asked_once_a_day(
    connected: Services, sandbox: SandboxProcess, conn: Conn, clock: Clock
) -> None:
    connect_account(connected, sandbox, due=False, lifetime_s=10 * 86_400)
    reader = NameReader(connected.refresher)
    sandbox.patch(faults=[FAULT | {"status": 404}])
    assert reader.read_next()
    clock.advance(86_000)
    assert not reader.read_next()
    clock.advance(401)
    assert reader.read_next()


def test_a_name_that_arrives_after_a_newer_authorization_is_not_stored(
    connected: Services, sandbox: SandboxProcess, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_account(connected, sandbox, due=False)
    ask = identity.ask

    def slow(*args: Any) -> Any:
        told = ask(*args)
        connect_account(connected, sandbox, due=False)
        return told

    monkeypatch.setattr(identity, "ask", slow)
    assert NameReader(connected.refresher).read_next()
    assert row(conn)["name"] is None


def test_an_account_without_a_valid_access_token_is_not_asked_about(
    connected: Services, sandbox: SandboxProcess, clock: Clock
) -> None:
    connect_account(connected, sandbox, due=False)
    clock.advance(86_401)
    assert not NameReader(connected.refresher).read_next()
    assert lease_due(connected)


def test_a_name_that_repeats_the_token_is_no_name(services: Services, requests_mock: Mocker) -> None:
    requests_mock.get(
        "http://127.0.0.1:9/marketing/account_info", json={"name": "Authorization: Bearer planted-token"}
    )
    told = identity.ask(services.rdstation, "planted-token")
    assert (told.kind, told.name, told.error) == ("unknown", None, "bad_payload")
