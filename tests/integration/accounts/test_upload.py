"""Uploaded pairs."""

from typing import Any

import psycopg
import pytest
import requests
from requests_mock import Mocker

from rdservice import errors
from rdservice.accounts import upload as uploads
from rdservice.accounts.ids import check_new_account_id
from rdservice.accounts.upload import Upload, parse_upload
from rdservice.notices import Notice
from rdservice.services import Services
from rdservice.tokens.refresh import Result
from rdservice.tokens.store import AccountState
from tests.support.accounts import BY, connect_account, lease_due, lease_one, row, stored_pair
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
API = "http://127.0.0.1:9"
INFO = f"{API}/marketing/account_info"
BODY: dict[str, Any] = {"access_token": "new-access", "refresh_token": "new-refresh", "expires_in": 86400}


def upload(services: Services, **changes: Any) -> tuple[AccountState, list[Notice]]:
    return uploads.upload(services, parse_upload(BODY | changes), by=BY)


def codes(warnings: list[Notice]) -> list[str]:
    return [warning.code for warning in warnings]


def text_of(conn: Conn) -> Any:
    """Return every byte of the stored rows."""
    return (
        conn.execute("SELECT t::text FROM rdstation_tokens t ORDER BY account_id").fetchall(),
        conn.execute("SELECT t::text FROM rdstation_replaced_tokens t ORDER BY account_id").fetchall(),
    )


def replaced(conn: Conn) -> int:
    found = conn.execute("SELECT count(*) FROM rdstation_replaced_tokens").fetchone()
    assert found is not None
    return int(found[0])


# The body


def test_the_documented_body_is_taken() -> None:
    assert parse_upload(BODY) == Upload(
        account_id="default",
        access_token="new-access",
        refresh_token="new-refresh",
        expires_in_s=86400,
        verify=True,
        replace_account=False,
    )
    given = parse_upload(BODY | {"account_id": "acme", "verify": False, "unknown": "member"})
    assert (given.account_id, given.verify) == ("acme", False)
    assert "new-" not in repr(given)


@pytest.mark.parametrize("body", [None, [], [BODY], "text", 7, True])
def test_anything_but_an_object_is_malformed(body: object) -> None:
    with pytest.raises(errors.BadRequest):
        parse_upload(body)


TOKENS: list[Any] = [
    None,
    "",
    " ",
    "with space",
    "line\nbreak",
    "ção",
    "\x00",
    "a" * 16_385,
    7,
    0,
    True,
    [],
    {},
    ["a"],
    "\ud800",
]
EXPIRIES: list[Any] = [
    None,
    0,
    -1,
    31_536_001,
    10**30,
    "86400",
    86400.0,
    1e3,
    True,
    False,
    [],
    {},
    float("nan"),
]
ACCOUNTS: list[Any] = [
    None,
    "",
    "a" * 201,
    7,
    True,
    [],
    {},
    "a/b",
    " a",
    "a ",
    "\ta",
    "a\nb",
    "a\x00b",
    ".",
    "..",
    "\u202eabc",
]
WRONG: dict[str, list[Any]] = {
    "access_token": TOKENS,
    "refresh_token": TOKENS,
    "expires_in": EXPIRIES,
    "account_id": ACCOUNTS,
    "verify": [None, 0, 1, "false", "", []],
    "replace_account": [None, 0, 1, "false", "", []],
}
WRONG_FIELDS = [(field, value) for field, values in WRONG.items() for value in values]


@pytest.mark.parametrize(("field", "value"), WRONG_FIELDS)
def test_a_wrong_field_is_named_and_its_value_not_quoted(field: str, value: Any) -> None:
    with pytest.raises(errors.InvalidField) as caught:
        parse_upload(BODY | {field: value})
    assert caught.value.extra == {"field": field}
    assert caught.value.detail.startswith(f"{field} ")
    assert "new-" not in caught.value.detail
    if isinstance(value, str) and len(value) > 2 and field not in ("verify", "replace_account"):
        assert value not in caught.value.detail


@pytest.mark.parametrize("field", ["access_token", "refresh_token", "expires_in"])
def test_a_missing_field_is_named(field: str) -> None:
    with pytest.raises(errors.InvalidField, match=f"{field} is missing"):
        parse_upload({name: value for name, value in BODY.items() if name != field})


@pytest.mark.parametrize("value", [1, 86_400, 31_536_000])
def test_a_life_of_a_second_to_a_year_is_taken(value: int) -> None:
    assert parse_upload(BODY | {"expires_in": value}).expires_in_s == value


@pytest.mark.parametrize(
    "account_id", ["default", "a", "a" * 200, "Ação & Cia. 漢字", "a?b#c%20", "a@b.c", "~2"]
)
def test_an_account_may_have_any_printable_name_without_slash(account_id: str) -> None:
    assert check_new_account_id(account_id) == account_id


# Verified


def test_an_upload_that_rd_station_accepts_is_stored_connected_with_its_name(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    pair = sandbox.pair()
    state, warnings = upload(connected, **pair)
    assert (state.account_id, state.status, warnings) == ("default", "connected", [])
    assert state.name
    assert state.name == row(conn)["name"]
    assert stored_pair(connected, conn) == (pair["access_token"], pair["refresh_token"])
    # The refresh token is not spent before it is stored, but proven right after.
    assert sandbox.calls().get("token_refresh", {}) == {}
    assert state.due_at <= state.now
    assert connected.refresher.refresh(lease_one(connected)) is Result.STORED


@pytest.mark.parametrize("with_stored", [False, True])
def test_an_access_token_that_rd_station_refuses_replaces_nothing(
    connected: Services, sandbox: SandboxProcess, conn: Conn, with_stored: bool
) -> None:
    if with_stored:
        connect_account(connected, sandbox, due=False)
    before = text_of(conn)
    with pytest.raises(errors.TokenRefused) as caught:
        upload(connected)
    assert (caught.value.status, caught.value.code) == (422, "token_refused")
    assert "new-" not in caught.value.detail
    assert text_of(conn) == before


UNREACHABLE: dict[str, dict[str, Any]] = {
    "connection refused": {"exc": requests.ConnectionError},
    "time-out": {"exc": requests.ReadTimeout},
    "500": {"status_code": 500},
    "429": {"status_code": 429, "json": {}},
    "403": {"status_code": 403, "json": {}},
    "HTML": {"text": "<html></html>"},
    "no name": {"json": {}},
    "redirect": {"status_code": 302, "headers": {"Location": "/login"}},
}


@pytest.mark.parametrize("kind", UNREACHABLE)
def test_without_an_answer_a_usable_pair_stays(
    services: Services, conn: Conn, requests_mock: Mocker, kind: str
) -> None:
    requests_mock.get(INFO, **UNREACHABLE[kind])
    connect_account(services, due=False)
    before = text_of(conn)
    with pytest.raises(errors.RdStationUnavailable) as caught:
        upload(services)
    assert caught.value.status == 503
    assert caught.value.retry_after_s
    assert "new-" not in caught.value.detail
    assert text_of(conn) == before


@pytest.mark.parametrize("kind", UNREACHABLE)
def test_without_an_answer_and_without_a_usable_pair_the_upload_is_stored_unverified(
    services: Services, conn: Conn, requests_mock: Mocker, kind: str
) -> None:
    requests_mock.get(INFO, **UNREACHABLE[kind])
    state, warnings = upload(services)
    assert (state.status, codes(warnings)) == ("unverified", ["unverified"])
    assert stored_pair(services, conn) == ("new-access", "new-refresh")


def test_without_an_answer_a_dead_pair_gives_way(
    services: Services, conn: Conn, requests_mock: Mocker
) -> None:
    requests_mock.get(INFO, exc=requests.ConnectionError)
    connect_account(services, due=False)
    conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required'")
    state, warnings = upload(services)
    assert (state.status, codes(warnings)) == ("unverified", ["unverified"])
    assert replaced(conn) == 1, "the refusal may have been wrong"


def test_an_unverified_pair_is_connected_once_its_refresh_token_has_worked(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    state, _ = upload(connected, **sandbox.pair(), verify=False)
    assert state.status == "unverified"
    connected.refresher.refresh(lease_one(connected))
    assert row(conn)["status"] == "connected"


def test_verify_false_stores_without_asking(services: Services, conn: Conn, requests_mock: Mocker) -> None:
    connect_account(services, due=False)
    state, warnings = upload(services, verify=False)
    assert (state.status, warnings) == ("unverified", [])
    assert requests_mock.request_history == []
    assert stored_pair(services, conn) == ("new-access", "new-refresh")
    assert replaced(conn) == 1


# What stood there before


def test_the_very_same_pair_again_changes_nothing_and_asks_nobody(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    pair = sandbox.pair()
    first, _ = upload(connected, **pair)
    before, calls = text_of(conn), sandbox.calls()
    for _ in range(2):
        again, warnings = upload(connected, **pair)
        assert (again.status, again.expires_at, warnings) == (first.status, first.expires_at, [])
    assert text_of(conn) == before
    assert sandbox.calls() == calls


def test_the_same_access_token_with_another_refresh_token_is_another_pair(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    pair = sandbox.pair()
    upload(connected, **pair)
    before = row(conn)["authorization_id"]
    upload(connected, **pair | {"refresh_token": "another"})
    assert row(conn)["authorization_id"] != before


def test_another_pair_of_the_same_account_keeps_the_connection_without_warning(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    upload(connected, **sandbox.pair())
    before = row(conn)
    _, warnings = upload(connected, **sandbox.pair())
    after = row(conn)
    assert warnings == []
    assert after["connection_id"] == before["connection_id"]
    assert after["authorization_id"] != before["authorization_id"]


@pytest.mark.parametrize(
    ("claims", "warned"), [({"scope": "events"}, ["scope_missing"]), ({"aud": "other"}, ["audience_differs"])]
)
def test_a_token_for_something_else_is_stored_with_a_warning(
    connected: Services, sandbox: SandboxProcess, claims: dict[str, str], warned: list[str]
) -> None:
    sandbox.patch(**claims)
    state, warnings = upload(connected, **sandbox.pair())
    assert (state.status, codes(warnings)) == ("connected", warned)


def test_the_replaced_pair_is_kept_until_the_new_refresh_token_has_worked(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    upload(connected, **sandbox.pair())
    assert replaced(conn) == 1
    kept = conn.execute("SELECT r::text FROM rdstation_replaced_tokens r").fetchone()
    assert "eyJ" not in str(kept)
    assert connected.refresher.refresh(lease_one(connected)) is Result.STORED
    assert replaced(conn) == 0


def test_the_replaced_pair_comes_back_when_the_new_refresh_token_is_refused(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    old = connect_account(connected, sandbox, due=False)
    upload(connected, **sandbox.pair() | {"refresh_token": "never-given"})
    assert connected.refresher.refresh(lease_one(connected)) is Result.REFUSED
    assert stored_pair(connected, conn) == (old["access_token"], old["refresh_token"])
    assert (row(conn)["status"], replaced(conn)) == ("connected", 1)
    assert connected.refresher.refresh(lease_one(connected)) is Result.STORED
    assert replaced(conn) == 0


def test_a_passing_failure_keeps_both_pairs(connected: Services, sandbox: SandboxProcess, conn: Conn) -> None:
    connect_account(connected, sandbox, due=False)
    pair = sandbox.pair()
    upload(connected, **pair)
    sandbox.patch(faults=[{"operation": "token_refresh", "kind": "status", "status": 503}])
    assert connected.refresher.refresh(lease_one(connected)) is Result.TRANSIENT
    assert stored_pair(connected, conn) == (pair["access_token"], pair["refresh_token"])
    assert replaced(conn) == 1


def test_a_refused_first_upload_needs_a_person(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    upload(connected, **sandbox.pair() | {"refresh_token": "never-given"})
    assert connected.refresher.refresh(lease_one(connected)) is Result.REFUSED
    assert row(conn)["status"] == "reauthorization_required"
    assert lease_due(connected) == []


def test_an_upload_during_a_refresh_wins(connected: Services, sandbox: SandboxProcess, conn: Conn) -> None:
    connect_account(connected, sandbox)
    lease = lease_one(connected)
    pair = sandbox.pair()
    upload(connected, **pair)
    assert connected.refresher.refresh(lease) is Result.SUPERSEDED
    assert stored_pair(connected, conn) == (pair["access_token"], pair["refresh_token"])


def test_an_upload_is_served_at_once(connected: Services, sandbox: SandboxProcess) -> None:
    connect_account(connected, sandbox, due=False)
    connected.access_tokens.usable("default")
    pair = sandbox.pair()
    upload(connected, **pair)
    assert connected.access_tokens.usable("default").access_token == pair["access_token"]
