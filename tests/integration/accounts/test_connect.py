"""Connecting an account in a browser: the state, the code, and everything that can go wrong in between."""

import dataclasses
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import requests
from requests_mock import Mocker

from rdservice import errors
from rdservice.access import operators
from rdservice.accounts import connect as authorization
from rdservice.accounts import decide
from rdservice.accounts.decide import Connected
from rdservice.accounts.waiting_pairs import Owner
from rdservice.rdstation import client
from rdservice.services import Services
from rdservice.tokens import store
from tests.support.accounts import BY, attempts_of, connect_account, row, stored_pair
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
API = "http://127.0.0.1:9"
SESSION = "5e" * 32
PAIR = {"access_token": "new-access", "refresh_token": "new-refresh", "expires_in": 86400}


@pytest.fixture
def operator_id(conn: Conn) -> str:
    return add_operator(conn, "ana@example.com")


def add_operator(conn: Conn, email: str) -> str:
    created = operators.create(conn, email, "no hash: nobody logs in here")
    assert created is not None
    return created.operator_id


def begin(services: Services, operator_id: str, account_id: str = "default") -> str:
    """Begin an authorization; return its state."""
    url = authorization.begin(services, owner(operator_id), account_id=account_id)
    (state,) = parse_qs(urlsplit(url).query)["state"]
    return state


def owner(operator_id: str) -> Owner:
    return Owner(operator_id=operator_id, session_id=SESSION)


def complete(services: Services, operator_id: str, **callback: str) -> Connected:
    decided = authorization.complete(services, owner(operator_id), callback=callback, by=BY)
    assert isinstance(decided, Connected)
    return decided


def connect(
    services: Services, sandbox: SandboxProcess, operator_id: str, *, rd_account: str = "default", **more: str
) -> Connected:
    state = begin(services, operator_id, **more)
    return complete(services, operator_id, state=state, code=sandbox.code(rd_account))


def states(conn: Conn) -> int:
    found = conn.execute("SELECT count(*) FROM rdstation_oauth_states").fetchone()
    assert found is not None
    return int(found[0])


def codes(connected: Connected) -> list[str]:
    return [warning.code for warning in connected.warnings]


def text_of(conn: Conn) -> Any:
    """Return every byte of the stored rows."""
    return (
        conn.execute("SELECT t::text FROM rdstation_tokens t ORDER BY account_id").fetchall(),
        conn.execute("SELECT t::text FROM rdstation_replaced_tokens t ORDER BY account_id").fetchall(),
    )


# Success


def test_an_operator_who_consents_connects_the_account(
    connected: Services, sandbox: SandboxProcess, operator_id: str, conn: Conn
) -> None:
    result = connect(connected, sandbox, operator_id)
    found = row(conn)
    assert (result.account_id, result.warnings) == ("default", [])
    assert result.name
    assert (found["status"], found["name"]) == ("connected", result.name)
    assert found["refreshed_at"] is not None
    assert stored_pair(connected, conn)[0].startswith("eyJ")
    assert sandbox.calls()["token_exchange"] == {"200": 1}
    assert sandbox.calls()["account_info"] == {"200": 1}
    assert states(conn) == 0


def test_the_dialog_url_is_that_of_rd_station_with_a_long_random_state(
    connected: Services, sandbox: SandboxProcess, operator_id: str, conn: Conn
) -> None:
    url = urlsplit(authorization.begin(connected, owner(operator_id), account_id="default"))
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{sandbox.url}/auth/dialog"
    query = parse_qs(url.query)
    assert set(query) == {"client_id", "redirect_uri", "scope", "state"}
    assert len(query["state"][0]) >= 43
    assert begin(connected, operator_id) != query["state"][0]
    # A copy of the table finishes no authorization.
    assert query["state"][0] not in str(
        conn.execute("SELECT t::text FROM rdstation_oauth_states t").fetchall()
    )


def test_the_account_is_the_one_that_was_asked_for_at_the_beginning(
    connected: Services, sandbox: SandboxProcess, operator_id: str, conn: Conn
) -> None:
    assert connect(connected, sandbox, operator_id, account_id="acme").account_id == "acme"
    assert row(conn, "acme")["status"] == "connected"
    assert conn.execute("SELECT count(*) FROM rdstation_tokens").fetchone() == (1,)


def test_connecting_the_same_account_again_keeps_the_connection_and_is_a_new_authorization(
    connected: Services, sandbox: SandboxProcess, operator_id: str, conn: Conn
) -> None:
    first_name = connect(connected, sandbox, operator_id).name
    first = row(conn)
    result = connect(connected, sandbox, operator_id)
    second = row(conn)
    assert (result.name, result.warnings) == (first_name, [])
    assert second["connection_id"] == first["connection_id"]
    assert second["authorization_id"] != first["authorization_id"]


def test_a_dead_account_lives_again_after_a_new_authorization(
    connected: Services, sandbox: SandboxProcess, operator_id: str, conn: Conn
) -> None:
    connect(connected, sandbox, operator_id)
    conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required', last_error = 'revoked'")
    connect(connected, sandbox, operator_id)
    assert (row(conn)["status"], row(conn)["last_error"]) == ("connected", None)


@pytest.mark.parametrize(
    ("claims", "warned"),
    [
        ({"scope": "events"}, ["scope_missing"]),
        ({"aud": "https://www.rdstation.com.br/api"}, ["audience_differs"]),
        ({"scope": "", "aud": "other"}, ["scope_missing", "audience_differs"]),
        ({"scope": "contacts events"}, []),
    ],
)
def test_a_token_for_something_else_is_stored_with_a_warning(
    connected: Services,
    sandbox: SandboxProcess,
    operator_id: str,
    conn: Conn,
    claims: dict[str, str],
    warned: list[str],
) -> None:
    sandbox.patch(**claims)
    assert codes(connect(connected, sandbox, operator_id)) == warned
    assert row(conn)["status"] == "connected"


@pytest.mark.parametrize("kind", ["drop_before", "html"])
def test_an_account_whose_name_cannot_be_read_is_connected_all_the_same(
    connected: Services, sandbox: SandboxProcess, operator_id: str, conn: Conn, kind: str
) -> None:
    sandbox.patch(faults=[{"operation": "account_info", "kind": kind}])
    result = connect(connected, sandbox, operator_id)
    assert (result.name, codes(result)) == (None, ["name_unknown"])
    assert (row(conn)["status"], row(conn)["name"]) == ("connected", None)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Acme\u202e\n<b>", "Acme<b>"),
        ("a" * 1000, "a" * 200),
        ("   ", None),
        (7, None),
        (None, None),
        ("Ação", "Ação"),
    ],
)
def test_a_name_is_printable_and_short(
    services: Services, operator_id: str, conn: Conn, requests_mock: Mocker, name: object, shown: str | None
) -> None:
    requests_mock.post(f"{API}/auth/token", json=PAIR)
    requests_mock.get(f"{API}/marketing/account_info", json={"name": name})
    result = complete(services, operator_id, state=begin(services, operator_id), code="the-code")
    assert result.name == row(conn)["name"] == shown


def test_tokens_and_code_stand_in_no_repr(
    services: Services, operator_id: str, requests_mock: Mocker
) -> None:
    requests_mock.post(f"{API}/auth/token", json=PAIR)
    requests_mock.get(f"{API}/marketing/account_info", json={"name": "Acme"})
    result = complete(services, operator_id, state=begin(services, operator_id), code="the-code")
    assert "new-access" not in repr(result)
    pair = authorization.FullPair(access_token="new-access", refresh_token="new-refresh", expires_in_s=1)
    assert "new-" not in repr(pair)


def test_a_good_code_opens_a_closed_gate_for_refreshes(
    connected: Services, sandbox: SandboxProcess, operator_id: str, conn: Conn
) -> None:
    conn.execute(
        "INSERT INTO rdstation_client_credentials (fingerprint, refused_since, probe_after)"
        " VALUES (%s, now(), now() + interval '5 minutes')",
        [connected.refresher.fingerprint],
    )
    connect(connected, sandbox, operator_id)
    known = conn.execute(
        "SELECT refused_since, last_success_at IS NOT NULL FROM rdstation_client_credentials"
    )
    assert known.fetchall() == [(None, True)]


class FakeTime:
    """A monotonic clock with given readings; the last one stays."""

    def __init__(self, *readings: float) -> None:
        self._readings = list(readings)

    def monotonic(self) -> float:
        return self._readings.pop(0) if len(self._readings) > 1 else self._readings[0]


def test_the_life_of_a_token_counts_from_before_its_exchange(
    services: Services, operator_id: str, conn: Conn, requests_mock: Mocker
) -> None:
    requests_mock.post(f"{API}/auth/token", json=PAIR)
    requests_mock.get(f"{API}/marketing/account_info", json={"name": "Acme"})
    refresher = dataclasses.replace(services.refresher, monotonic=FakeTime(100.0, 112.0).monotonic)
    timed = dataclasses.replace(services, refresher=refresher)
    complete(timed, operator_id, state=begin(services, operator_id), code="the-code")
    left = (row(conn)["expires_at"] - row(conn)["now"]).total_seconds()
    assert 86_400 - 20 < left <= 86_400 - 12


def test_a_token_that_the_database_took_late_is_that_much_older(
    services: Services, operator_id: str, conn: Conn, requests_mock: Mocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests_mock.post(f"{API}/auth/token", json=PAIR)
    requests_mock.get(f"{API}/marketing/account_info", json={"name": "Acme"})
    real = store.authorize
    tries: list[float] = []

    def fail_once(*args: Any, **more: Any) -> Any:
        tries.append(more["age_s"])
        if len(tries) == 1:
            raise psycopg.OperationalError("restarting")
        return real(*args, **more)

    monkeypatch.setattr(store, "authorize", fail_once)
    complete(services, operator_id, state=begin(services, operator_id), code="the-code")
    assert len(tries) == 2
    assert tries[1] > tries[0]
    assert stored_pair(services, conn) == ("new-access", "new-refresh")


# The state


def test_a_state_is_good_for_one_exchange_and_a_second_callback_sees_its_result(
    connected: Services, sandbox: SandboxProcess, operator_id: str, conn: Conn
) -> None:
    state = begin(connected, operator_id)
    complete(connected, operator_id, state=state, code=sandbox.code())
    before = text_of(conn)
    first = complete(connected, operator_id, state=state, code=sandbox.code())
    assert first == complete(connected, operator_id, state=state, code=sandbox.code())
    assert text_of(conn) == before
    assert sandbox.calls()["token_exchange"] == {"200": 1}


@pytest.mark.parametrize(
    "state", [None, "", "unknown", "ção", "\ud800", "a" * 10_000, "'; DROP TABLE x; --", "\x00"]
)
def test_a_missing_or_unknown_state_exchanges_nothing(
    services: Services, operator_id: str, requests_mock: Mocker, state: str | None
) -> None:
    begin(services, operator_id)
    callback = {"code": "the-code"} | ({} if state is None else {"state": state})
    with pytest.raises(errors.InvalidState):
        complete(services, operator_id, **callback)
    assert requests_mock.request_history == []


def test_a_state_ends_after_ten_minutes(
    services: Services, operator_id: str, conn: Conn, requests_mock: Mocker
) -> None:
    state = begin(services, operator_id)
    conn.execute("UPDATE rdstation_oauth_states SET created_at = now() - interval '10 minutes 1 second'")
    with pytest.raises(errors.InvalidState, match="ten minutes"):
        complete(services, operator_id, state=state, code="the-code")
    assert requests_mock.request_history == []


def test_a_state_of_nine_minutes_is_good(
    connected: Services, sandbox: SandboxProcess, operator_id: str, conn: Conn
) -> None:
    state = begin(connected, operator_id)
    conn.execute("UPDATE rdstation_oauth_states SET created_at = now() - interval '9 minutes'")
    assert complete(connected, operator_id, state=state, code=sandbox.code()).name


def test_a_state_is_bound_to_its_operator_and_gone_after_a_strangers_try(
    connected: Services, sandbox: SandboxProcess, operator_id: str, conn: Conn
) -> None:
    stranger = add_operator(conn, "bruno@example.com")
    state = begin(connected, operator_id)
    for who in (stranger, operator_id):
        with pytest.raises(errors.InvalidState):
            complete(connected, who, state=state, code=sandbox.code())
    assert sandbox.calls().get("token_exchange", {}) == {}
    assert states(conn) == 0


def test_two_windows_of_one_operator_do_not_disturb_each_other(
    connected: Services, sandbox: SandboxProcess, operator_id: str
) -> None:
    first, second = begin(connected, operator_id), begin(connected, operator_id, "acme")
    assert complete(connected, operator_id, state=second, code=sandbox.code()).account_id == "acme"
    assert complete(connected, operator_id, state=first, code=sandbox.code()).account_id == "default"


# Failure: nothing stored is touched


@pytest.fixture
def stored(services: Services, conn: Conn) -> Any:
    """A connected account; the bytes of all its rows."""
    connect_account(services, due=False)
    return text_of(conn)


def refused(services: Services, operator_id: str, **callback: str) -> errors.RdServiceError:
    state = begin(services, operator_id)
    with pytest.raises(errors.RdServiceError) as caught:
        complete(services, operator_id, state=state, **callback)
    for secret in ("client-secret-of-the-tests", "planted-code", state):
        assert secret not in f"{caught.value} {caught.value.extra}"
    return caught.value


def test_a_refused_consent_says_so_and_uses_the_state_up(
    services: Services, operator_id: str, conn: Conn, stored: Any, requests_mock: Mocker
) -> None:
    error = refused(services, operator_id, error="access_denied", error_description="planted-code")
    assert isinstance(error, errors.ConsentRefused)
    assert "start again" in error.detail
    assert requests_mock.request_history == []
    assert (states(conn), text_of(conn)) == (0, stored)


@pytest.mark.parametrize("error", ["invalid_scope", "server_error", "planted-code"])
def test_another_error_of_the_dialog_is_not_told_as_refused_consent(
    services: Services, operator_id: str, conn: Conn, stored: Any, error: str
) -> None:
    raised = refused(services, operator_id, error=error)
    assert isinstance(raised, errors.RdStationFailed)
    assert ("invalid_scope" in raised.detail) == (error == "invalid_scope")
    assert text_of(conn) == stored


@pytest.mark.parametrize("callback", [{}, {"code": ""}])
def test_a_callback_without_code_exchanges_nothing(
    services: Services,
    operator_id: str,
    conn: Conn,
    stored: Any,
    requests_mock: Mocker,
    callback: dict[str, str],
) -> None:
    assert isinstance(refused(services, operator_id, **callback), errors.InvalidState)
    assert requests_mock.request_history == []
    assert text_of(conn) == stored


def test_a_dead_code_is_named(
    connected: Services, sandbox: SandboxProcess, operator_id: str, conn: Conn
) -> None:
    code = sandbox.code()
    complete(connected, operator_id, state=begin(connected, operator_id), code=code)
    before = text_of(conn)
    error = refused(connected, operator_id, code=code)
    assert isinstance(error, errors.CodeExpired)
    assert "over an hour old" in error.detail
    assert text_of(conn) == before


def test_a_code_of_over_an_hour_is_named(
    connected: Services, sandbox: SandboxProcess, operator_id: str
) -> None:
    code = sandbox.code()
    sandbox.patch(clock_offset_s=3700)
    assert isinstance(refused(connected, operator_id, code=code), errors.CodeExpired)


def test_a_refused_code_names_both_causes(
    connected: Services, sandbox: SandboxProcess, operator_id: str, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    before = text_of(conn)
    error = refused(connected, operator_id, code="planted-code")
    assert isinstance(error, errors.CodeRefused)
    assert "code" in error.detail
    assert "RDSTATION_CLIENT_SECRET" in error.detail
    assert text_of(conn) == before
    # A stranger's code must not close the gate for every account's refresh.
    assert conn.execute(
        "SELECT count(*) FROM rdstation_client_credentials WHERE refused_since IS NOT NULL"
    ).fetchone() == (0,)


ODD_ANSWERS: dict[str, tuple[dict[str, Any], type[errors.RdServiceError], str]] = {
    "connection refused": ({"exc": requests.ConnectionError}, errors.RdStationUnavailable, "did not respond"),
    "time-out": ({"exc": requests.ReadTimeout}, errors.RdStationUnavailable, "did not respond"),
    "429": (
        {"status_code": 429, "json": {}, "headers": {"Retry-After": "42"}},
        errors.RdStationUnavailable,
        "HTTP 429",
    ),
    "500": ({"status_code": 500, "text": "planted-code"}, errors.RdStationUnavailable, "HTTP 500"),
    "503": ({"status_code": 503}, errors.RdStationUnavailable, "HTTP 503"),
    "HTML": ({"text": "<html>planted-code</html>"}, errors.RdStationFailed, "HTTP 200"),
    "cut off": ({"text": '{"access_token": "planted-code", "refr'}, errors.RdStationFailed, "HTTP 200"),
    "empty": ({"text": ""}, errors.RdStationFailed, "HTTP 200"),
    "no refresh token": (
        {"json": {"access_token": "a", "expires_in": 9}},
        errors.RdStationFailed,
        "HTTP 200",
    ),
    "no access token": (
        {"json": {"refresh_token": "r", "expires_in": 9}},
        errors.RdStationFailed,
        "HTTP 200",
    ),
    "an error with 200": ({"json": {"error_type": "ACCESS_DENIED"}}, errors.RdStationFailed, "HTTP 200"),
    "a list": ({"json": [PAIR]}, errors.RdStationFailed, "HTTP 200"),
    "a redirect": ({"status_code": 302, "headers": {"Location": "/x"}}, errors.RdStationFailed, "HTTP 302"),
    "403": ({"status_code": 403, "json": {}}, errors.RdStationFailed, "HTTP 403"),
    "other 401": (
        {"status_code": 401, "json": {"error_type": "UNAUTHORIZED"}},
        errors.RdStationFailed,
        "HTTP 401",
    ),
    "wrong secret": (
        {"status_code": 401, "json": {"error_type": "ACCESS_DENIED"}},
        errors.CodeRefused,
        "client credentials",
    ),
    "dead code": (
        {"status_code": 401, "json": {"errors": {"error_type": "EXPIRED_CODE_GRANT"}}},
        errors.CodeExpired,
        "used already",
    ),
    "dead code in a list": (
        {"status_code": 401, "json": {"errors": [{"error_type": "EXPIRED_CODE_GRANT"}]}},
        errors.CodeExpired,
        "used already",
    ),
}


@pytest.mark.parametrize("kind", ODD_ANSWERS)
def test_an_answer_that_is_no_pair_is_told_and_changes_nothing(
    services: Services, operator_id: str, conn: Conn, stored: Any, requests_mock: Mocker, kind: str
) -> None:
    response, expected, said = ODD_ANSWERS[kind]
    requests_mock.post(f"{API}/auth/token", **response)
    error = refused(services, operator_id, code="planted-code")
    assert type(error) is expected
    assert said in error.detail
    assert error.retry_after_s == (42 if kind == "429" else None)
    assert text_of(conn) == stored
    assert len(requests_mock.request_history) == 1
    assert attempts_of(conn) == []


def test_an_exchange_that_takes_too_long_is_told_and_changes_nothing(
    connected: Services,
    sandbox: SandboxProcess,
    operator_id: str,
    conn: Conn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect_account(connected, sandbox, due=False)
    before = text_of(conn)
    monkeypatch.setattr(client, "EXCHANGE_DEADLINE_S", 0.3)
    sandbox.patch(faults=[{"operation": "token_exchange", "kind": "slow_drip"}])
    assert isinstance(refused(connected, operator_id, code=sandbox.code()), errors.RdStationUnavailable)
    assert text_of(conn) == before


def test_a_database_that_does_not_take_the_tokens_is_waited_for_in_bounds(
    services: Services, operator_id: str, requests_mock: Mocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests_mock.post(f"{API}/auth/token", json=PAIR)
    monkeypatch.setattr(decide, "STORE_TIMEOUT_S", 0.2)
    requests_mock.get(f"{API}/marketing/account_info", json={"name": "Acme"})

    def down(*args: Any, **more: Any) -> Any:
        raise psycopg.OperationalError("down")

    state = begin(services, operator_id)
    monkeypatch.setattr(store, "authorize", down)
    with pytest.raises(psycopg.OperationalError):
        complete(services, operator_id, state=state, code="the-code")
