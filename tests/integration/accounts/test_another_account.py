"""Tokens of another RD Station account are never stored unasked."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from requests_mock import Mocker

from rdservice import errors
from rdservice.access import audit, operators
from rdservice.accounts import connect as authorization
from rdservice.accounts import decide, identity
from rdservice.accounts import upload as uploads
from rdservice.accounts.decide import Connected, Question
from rdservice.accounts.waiting_pairs import Owner
from rdservice.database.pool import transaction
from rdservice.events.subscriptions import manage
from rdservice.services import Services
from tests.conftest import Clock
from tests.support.accounts import BY, row, stored_pair
from tests.support.deliveries import add, event, open_address
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
API = "http://127.0.0.1:9"
FAULT = {"operation": "account_info", "kind": "status", "status": 503}


@pytest.fixture
def owner(conn: Conn) -> Owner:
    created = operators.create(conn, "ana@example.com", "no hash: nobody logs in here")
    assert created is not None
    return Owner(operator_id=created.operator_id, session_id="5e" * 32)


def callback_of(services: Services, owner: Owner, code: str, account_id: str = "default") -> dict[str, str]:
    url = authorization.begin(services, owner, account_id=account_id)
    return {"state": url.rpartition("state=")[2], "code": code}


def come_back(
    services: Services,
    owner: Owner,
    sandbox: SandboxProcess,
    rd: str = "default",
    account_id: str = "default",
) -> Connected | Question:
    callback = callback_of(services, owner, sandbox.code(rd), account_id)
    return authorization.complete(services, owner, callback=callback, by=BY)


def asked(decided: Connected | Question) -> Question:
    assert isinstance(decided, Question)
    return decided


def connected_as(decided: Connected | Question) -> Connected:
    assert isinstance(decided, Connected)
    return decided


def text_of(conn: Conn) -> Any:
    return conn.execute("SELECT t::text FROM rdstation_tokens t ORDER BY account_id").fetchall()


def entries(conn: Conn) -> list[tuple[str, str | None, dict[str, Any]]]:
    found = audit.newest(conn, limit=10)
    return [(entry.action, entry.account_id, entry.details) for entry in reversed(found)]


def test_a_callback_of_another_account_changes_nothing_and_names_both(
    connected: Services, sandbox: SandboxProcess, owner: Owner, conn: Conn
) -> None:
    first = connected_as(come_back(connected, owner, sandbox))
    before = text_of(conn)
    question = asked(come_back(connected, owner, sandbox, "account-2"))
    assert (question.kind, question.was) == ("another", first.name)
    assert question.name
    assert question.name != first.name
    assert question.connection_id == str(row(conn)["connection_id"])
    assert text_of(conn) == before
    waiting = conn.execute("SELECT w::text FROM rdstation_waiting_pairs w").fetchall()
    assert "eyJ" not in str(waiting)
    assert decide.shown(connected, owner, question.pair_id) == question


def test_replacing_disconnects_the_old_account_and_connects_the_new_one(
    connected: Services, sandbox: SandboxProcess, owner: Owner, conn: Conn
) -> None:
    old_name = connected_as(come_back(connected, owner, sandbox)).name
    old, old_pair = row(conn), stored_pair(connected, conn)
    secret = open_address(connected)
    add(connected, secret, event())
    question = asked(come_back(connected, owner, sandbox, "account-2"))
    for _ in range(2):  # A double click has one effect.
        result = decide.decide(
            connected, owner, question.pair_id, by=BY, confirmed=row(conn)["connection_id"]
        )
        assert connected_as(result).name == question.name
    new = row(conn)
    assert (new["name"], new["status"]) == (question.name, "connected")
    assert new["connection_id"] != old["connection_id"]
    assert conn.execute("SELECT count(*) FROM rdservice_events").fetchone() == (0,)
    assert connected.rdstation.account_info(old_pair[0]).status == 401
    assert connected.rdstation.account_info(stored_pair(connected, conn)[0]).status == 200
    assert entries(conn)[-2:] == [
        ("account_disconnected", "default", {"name": old_name, "replaced_by": question.name}),
        ("account_connected", "default", {"name": question.name, "replaced": old_name}),
    ]


def test_a_confirmation_counts_for_the_connection_that_was_shown_alone(
    connected: Services, sandbox: SandboxProcess, owner: Owner, conn: Conn
) -> None:
    come_back(connected, owner, sandbox)
    question = asked(come_back(connected, owner, sandbox, "account-2"))
    conn.execute("DELETE FROM rdstation_tokens")
    come_back(connected, owner, sandbox, "account-3")
    before = text_of(conn)
    shown = [uuid4(), UUID(question.connection_id)]
    for confirmed in shown:
        again = asked(decide.decide(connected, owner, question.pair_id, by=BY, confirmed=confirmed))
        assert again.was == row(conn)["name"]
        assert again.connection_id == str(row(conn)["connection_id"])
    assert text_of(conn) == before


def test_another_account_is_connected_under_a_new_name(
    connected: Services, sandbox: SandboxProcess, owner: Owner, conn: Conn
) -> None:
    come_back(connected, owner, sandbox)
    before = text_of(conn)
    question = asked(come_back(connected, owner, sandbox, "account-2"))
    result = connected_as(decide.decide(connected, owner, question.pair_id, by=BY, account_id="azevedo"))
    assert (result.account_id, result.name) == ("azevedo", question.name)
    assert stored_pair(connected, conn, "azevedo")[0].startswith("eyJ")
    assert set(before) < set(text_of(conn))


def test_a_new_name_that_is_taken_is_asked_about_in_the_same_way(
    connected: Services, sandbox: SandboxProcess, owner: Owner, conn: Conn
) -> None:
    come_back(connected, owner, sandbox)
    come_back(connected, owner, sandbox, "account-3", "taken")
    before = text_of(conn)
    question = asked(come_back(connected, owner, sandbox, "account-2"))
    again = asked(decide.decide(connected, owner, question.pair_id, by=BY, account_id="taken"))
    assert (again.account_id, again.was) == ("taken", row(conn, "taken")["name"])
    assert text_of(conn) == before
    result = decide.decide(connected, owner, question.pair_id, by=BY, confirmed=UUID(again.connection_id))
    assert connected_as(result).account_id == "taken"


def test_a_pair_that_is_dropped_is_forgotten_and_not_revoked(
    connected: Services, sandbox: SandboxProcess, owner: Owner, conn: Conn
) -> None:
    come_back(connected, owner, sandbox)
    question = asked(come_back(connected, owner, sandbox, "account-2"))
    token = decide.waiting(connected, owner, question.pair_id).access_token
    assert decide.drop(connected, owner, question.pair_id) == "default"
    assert conn.execute(
        "SELECT access_token, refresh_token FROM rdstation_waiting_pairs WHERE outcome = 'dropped'"
    ).fetchall() == [(None, None)]
    assert connected.rdstation.account_info(str(token)).status == 200
    with pytest.raises(errors.NotFound):
        decide.decide(connected, owner, question.pair_id, by=BY)


def test_a_question_is_another_session_s_business_and_ends_after_an_hour(
    connected: Services, sandbox: SandboxProcess, owner: Owner, conn: Conn, clock: Clock
) -> None:
    come_back(connected, owner, sandbox)
    question = asked(come_back(connected, owner, sandbox, "account-2"))
    stranger = operators.create(conn, "bruno@example.com", "no hash")
    assert stranger is not None
    for other in (
        Owner(operator_id=owner.operator_id, session_id="other"),
        Owner(operator_id=stranger.operator_id, session_id=owner.session_id),
    ):
        with pytest.raises(errors.NotFound):
            decide.decide(connected, other, question.pair_id, by=BY)
    clock.advance(3601)
    with pytest.raises(errors.NotFound):
        decide.shown(connected, owner, question.pair_id)


def test_the_same_callback_again_asks_the_same_question(
    connected: Services, sandbox: SandboxProcess, owner: Owner
) -> None:
    come_back(connected, owner, sandbox)
    callback = callback_of(connected, owner, sandbox.code("account-2"))
    first = authorization.complete(connected, owner, callback=callback, by=BY)
    assert asked(authorization.complete(connected, owner, callback=callback, by=BY)) == first
    assert sandbox.calls()["token_exchange"] == {"200": 2}


def test_a_second_fetch_during_the_first_waits_for_its_result(
    connected: Services, sandbox: SandboxProcess, owner: Owner
) -> None:
    sandbox.patch(latency_ms=300)
    callback = callback_of(connected, owner, sandbox.code())
    with ThreadPoolExecutor(3) as browsers:
        fetches = [
            browsers.submit(authorization.complete, connected, owner, callback=callback, by=BY)
            for _ in range(3)
        ]
        results = [connected_as(fetch.result(30)) for fetch in fetches]
    assert results[0] == results[1] == results[2]
    assert sandbox.calls()["token_exchange"] == {"200": 1}


def test_a_crash_after_the_exchange_loses_nothing(
    connected: Services, sandbox: SandboxProcess, owner: Owner, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = callback_of(connected, owner, sandbox.code())
    with monkeypatch.context() as broken:
        broken.setattr(identity, "ask", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            authorization.complete(connected, owner, callback=callback, by=BY)
    connected_as(authorization.complete(connected, owner, callback=callback, by=BY))
    assert row(conn)["status"] == "connected"
    assert sandbox.calls()["token_exchange"] == {"200": 1}


def test_while_rd_station_tells_no_name_the_pair_waits_and_is_asked_about_again(
    connected: Services, sandbox: SandboxProcess, owner: Owner, conn: Conn
) -> None:
    come_back(connected, owner, sandbox)
    before = text_of(conn)
    sandbox.patch(faults=[FAULT])
    question = asked(come_back(connected, owner, sandbox, "account-2"))
    assert (question.kind, question.name) == ("unknown", None)
    assert asked(decide.decide(connected, owner, question.pair_id, by=BY)).kind == "unknown"
    sandbox.patch(faults=[])
    assert asked(decide.decide(connected, owner, question.pair_id, by=BY)).kind == "another"
    assert text_of(conn) == before


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE rdstation_tokens SET status = 'reauthorization_required'",
        "UPDATE rdstation_tokens SET expires_at = rd_now(), issued_at = rd_now() - interval '1 day'",
    ],
)
def test_tokens_that_do_not_work_any_more_give_way_to_a_pair_without_a_name(
    connected: Services, sandbox: SandboxProcess, owner: Owner, conn: Conn, change: str
) -> None:
    come_back(connected, owner, sandbox)
    before = row(conn)
    conn.execute(change)
    sandbox.patch(faults=[FAULT])
    connected_as(come_back(connected, owner, sandbox))
    after = row(conn)
    assert (after["status"], after["name"], after["name_due"]) == ("unverified", before["name"], True)
    assert after["connection_id"] == before["connection_id"]


def test_rd_station_may_name_no_account_at_all(
    connected: Services, sandbox: SandboxProcess, owner: Owner, conn: Conn
) -> None:
    sandbox.patch(faults=[FAULT | {"status": 404}])
    connected_as(come_back(connected, owner, sandbox))
    before = row(conn)
    connected_as(come_back(connected, owner, sandbox))
    after = row(conn)
    assert (after["status"], after["connection_id"]) == ("connected", before["connection_id"])
    assert after["authorization_id"] != before["authorization_id"]


def test_an_account_that_was_renamed_is_no_other(
    services: Services, owner: Owner, conn: Conn, requests_mock: Mocker
) -> None:
    pair = {"access_token": "one", "refresh_token": "two", "expires_in": 86_400}
    requests_mock.post(f"{API}/auth/token", json=pair)
    requests_mock.get(f"{API}/marketing/account_info", json={"name": "Before"})
    authorization.complete(services, owner, callback=callback_of(services, owner, "code"), by=BY)
    first = row(conn)
    requests_mock.get(f"{API}/marketing/account_info", json={"name": "After"})
    decided = authorization.complete(services, owner, callback=callback_of(services, owner, "code"), by=BY)
    assert connected_as(decided).name == row(conn)["name"] == "After"
    assert row(conn)["connection_id"] == first["connection_id"]


def test_a_subscription_with_our_secret_proves_the_same_account(
    connected: Services, sandbox: SandboxProcess, owner: Owner, conn: Conn
) -> None:
    come_back(connected, owner, sandbox)
    manage.subscribe(connected, "default", by=BY)
    before = row(conn)
    sandbox.patch(faults=[FAULT])
    connected_as(come_back(connected, owner, sandbox))
    assert row(conn)["connection_id"] == before["connection_id"]
    assert asked(come_back(connected, owner, sandbox, "account-2")).kind == "unknown"


def test_the_secret_of_an_earlier_connection_proves_nothing(
    connected: Services, sandbox: SandboxProcess, owner: Owner, conn: Conn
) -> None:
    come_back(connected, owner, sandbox)
    manage.subscribe(connected, "default", by=BY)
    conn.execute("UPDATE rdservice_subscriptions SET connection_id = gen_random_uuid()")
    sandbox.patch(faults=[FAULT])
    assert asked(come_back(connected, owner, sandbox)).kind == "unknown"


# Uploads


def upload(services: Services, pair: dict[str, Any], **more: Any) -> list[str]:
    _, warnings = uploads.upload(services, uploads.parse_upload(pair | more), by=BY)
    return [warning.code for warning in warnings]


def test_an_upload_of_another_account_is_refused_with_both_names(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    upload(connected, sandbox.pair())
    before = text_of(conn)
    with pytest.raises(errors.AnotherAccount) as caught:
        upload(connected, sandbox.pair("account-2"))
    assert (caught.value.status, caught.value.code) == (409, "another_account")
    assert repr(row(conn)["name"]) in caught.value.detail
    assert "(account-2)" in caught.value.detail
    assert "replace_account" in caught.value.detail
    assert text_of(conn) == before


def test_an_upload_that_says_so_replaces_the_account(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    old_pair = sandbox.pair()
    upload(connected, old_pair)
    old = row(conn)
    assert upload(connected, sandbox.pair("account-2"), replace_account=True) == []
    new = row(conn)
    assert new["connection_id"] != old["connection_id"]
    assert connected.rdstation.account_info(old_pair["access_token"]).status == 401
    assert entries(conn)[-2:] == [
        ("account_disconnected", "default", {"name": old["name"], "replaced_by": new["name"]}),
        ("tokens_uploaded", "default", {"verified": True, "name": new["name"], "replaced": old["name"]}),
    ]


def test_an_upload_of_the_same_account_replaces_nothing_even_if_it_may(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    upload(connected, sandbox.pair())
    before = row(conn)["connection_id"]
    upload(connected, sandbox.pair(), replace_account=True)
    assert row(conn)["connection_id"] == before


def test_replacing_needs_the_check(sandbox: SandboxProcess) -> None:
    with pytest.raises(errors.InvalidField) as caught:
        uploads.parse_upload(sandbox.pair() | {"verify": False, "replace_account": True})
    assert caught.value.extra == {"field": "replace_account"}


def test_one_rd_station_account_under_two_names_is_said(
    connected: Services, sandbox: SandboxProcess, owner: Owner, conn: Conn
) -> None:
    assert upload(connected, sandbox.pair(), account_id="one") == []
    assert upload(connected, sandbox.pair(), account_id="two") == ["same_account"]
    third = connected_as(come_back(connected, owner, sandbox, account_id="three"))
    assert [(warning.code, warning.values) for warning in third.warnings] == [
        ("same_account", {"accounts": "one, two"})
    ]


def test_the_check_of_a_pair_counts_as_a_call_of_the_account(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    upload(connected, sandbox.pair())
    with transaction(connected.pool) as inside:
        found = inside.execute("SELECT count(*) FROM rdstation_rate_limits").fetchone()
    assert found == (1,)
