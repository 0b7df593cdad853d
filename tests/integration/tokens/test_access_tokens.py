"""Access tokens for callers: live at once, renewed by one, never dead."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from requests_mock import Mocker

from rdservice import errors
from rdservice.config.settings import Settings
from rdservice.services import Services
from rdservice.tokens import access_tokens, leases
from rdservice.tokens.refresh import Result
from tests.support.accounts import BY, attempts_of, connect_account, lease_one, row
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
TOKEN_URL = "http://127.0.0.1:9/auth/token"


def leave(conn: Conn, seconds: float) -> None:
    """Leave the default account's access token this much of a life of a day."""
    conn.execute(
        "UPDATE rdstation_tokens SET expires_at = rd_now() + make_interval(secs => %(s)s),"
        " issued_at = rd_now() + make_interval(secs => %(s)s) - interval '1 day'",
        {"s": seconds},
    )


def test_a_live_token_is_given_out_without_a_call(connected: Services, sandbox: SandboxProcess) -> None:
    pair = connect_account(connected, sandbox, due=False)
    assert connected.access_tokens.usable("default").access_token == pair["access_token"]
    assert sandbox.calls()["token_refresh"] == {}


def test_a_live_token_is_given_out_whatever_the_status(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    pair = connect_account(connected, sandbox, due=False)
    for status in ("unverified", "credentials_refused", "reauthorization_required"):
        conn.execute("UPDATE rdstation_tokens SET status = %s", [status])
        connected.memory.forget("default")
        assert connected.access_tokens.usable("default").access_token == pair["access_token"]


def test_an_expired_token_is_renewed_before_it_is_given_out(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    pair = connect_account(connected, sandbox, due=False)
    leave(conn, -1)
    token = connected.access_tokens.usable("default")
    assert token.access_token != pair["access_token"]
    assert token.life_left_s > 80_000


def test_a_live_token_near_its_end_is_given_out_at_once_and_renewed_behind_the_caller(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    pair = connect_account(connected, sandbox, due=False)
    leave(conn, 50)
    sandbox.patch(latency_ms=500)
    assert connected.access_tokens.usable("default").access_token == pair["access_token"]
    connected.access_tokens.close()
    assert sandbox.calls()["token_refresh"] == {"200": 1}
    assert row(conn)["stored_claim"] > 0


def test_a_token_that_would_die_on_the_way_is_not_given_out(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    pair = connect_account(connected, sandbox, due=False)
    leave(conn, 2)
    assert connected.access_tokens.usable("default").access_token != pair["access_token"]


def test_a_caller_who_needs_a_longer_life_gets_it(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    leave(conn, 3600)
    assert connected.access_tokens.usable("default", min_ttl_s=3000).life_left_s > 3000
    assert sandbox.calls()["token_refresh"] == {}
    assert connected.access_tokens.usable("default", min_ttl_s=7200).life_left_s > 7200
    assert sandbox.calls()["token_refresh"] == {"200": 1}


def test_no_caller_can_ask_for_more_than_half_of_the_life(
    connected: Services, sandbox: SandboxProcess
) -> None:
    connect_account(connected, sandbox, due=False)
    with pytest.raises(errors.InvalidField):
        connected.access_tokens.usable("default", min_ttl_s=43_300)


def test_many_callers_in_several_processes_cause_one_exchange(
    make_services: Callable[[Settings], Services],
    sandbox_settings: Settings,
    sandbox: SandboxProcess,
    conn: Conn,
) -> None:
    processes = [make_services(sandbox_settings) for _ in range(3)]
    pair = connect_account(processes[0], sandbox, due=False)
    leave(conn, -1)
    sandbox.patch(latency_ms=300)
    with ThreadPoolExecutor(45) as callers:
        asked = [callers.submit(processes[n % 3].access_tokens.usable, "default") for n in range(45)]
        got = {asking.result().access_token for asking in asked}
    assert len(got) == 1
    assert pair["access_token"] not in got
    assert sandbox.calls()["token_refresh"] == {"200": 1}


def test_waiting_for_anothers_refresh_counts_as_no_failure(
    make_services: Callable[[Settings], Services],
    sandbox_settings: Settings,
    sandbox: SandboxProcess,
    conn: Conn,
) -> None:
    holder, waiter = make_services(sandbox_settings), make_services(sandbox_settings)
    connect_account(holder, sandbox)
    leave(conn, -1)
    lease = lease_one(holder)
    asking = threading.Thread(target=waiter.access_tokens.usable, args=["default"])
    asking.start()
    assert holder.refresher.refresh(lease) is Result.STORED
    asking.join()
    assert attempts_of(conn) == [("stored", None)]
    assert row(conn)["failures"] == 0


def test_nobody_refreshes_without_the_claim_even_when_the_wait_is_over(
    connected: Services, sandbox: SandboxProcess, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_tokens, "WAIT_S", 0.5)
    connect_account(connected, sandbox)
    leave(conn, -1)
    lease_one(connected)  # by a process that does not come back
    with pytest.raises(errors.RdStationUnavailable) as raised:
        connected.access_tokens.usable("default")
    assert raised.value.retry_after_s
    assert sandbox.calls()["token_refresh"] == {}


def test_a_caller_only_looks_while_another_process_holds_the_account_and_takes_over_when_the_lease_ends(
    connected: Services, sandbox: SandboxProcess, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_account(connected, sandbox)
    leave(conn, -1)
    lease_one(connected)  # by a process that does not come back
    tries, looks, looked_often = [], [], threading.Event()
    really_claim, really_read = leases.lease_seen, connected.memory.read

    def lease(*args: Any, **kwargs: Any) -> Any:
        tries.append(1)
        return really_claim(*args, **kwargs)

    def read(account_id: str) -> Any:
        looks.append(1)
        if len(looks) == 5:
            looked_often.set()
        return really_read(account_id)

    monkeypatch.setattr(leases, "lease_seen", lease)
    monkeypatch.setattr(connected.memory, "read", read)
    asking = threading.Thread(target=connected.access_tokens.usable, args=["default"])
    asking.start()
    assert looked_often.wait(10)
    assert len(tries) == 1
    conn.execute("UPDATE rdstation_tokens SET leased_until = rd_now()")
    asking.join()
    assert len(tries) == 2
    assert sandbox.calls()["token_refresh"] == {"200": 1}


def test_a_callers_wait_ends_although_rd_station_never_answers(
    connected: Services, sandbox: SandboxProcess, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_tokens, "WAIT_S", 0.5)
    monkeypatch.setattr("rdservice.rdstation.client.EXCHANGE_DEADLINE_S", 2.0)
    connect_account(connected, sandbox, due=False)
    leave(conn, -1)
    sandbox.patch(faults=[{"operation": "token_refresh", "kind": "timeout"}])
    with pytest.raises(errors.RdStationUnavailable):
        connected.access_tokens.usable("default")
    connected.access_tokens.close()
    assert attempts_of(conn) == [("transient", "timeout")]


def test_a_stuck_refresh_does_not_stay_stuck(connected: Services, conn: Conn, requests_mock: Mocker) -> None:
    connect_account(connected, due=False)
    leave(conn, -1)
    url = f"{connected.settings.api_url}/auth/token"
    requests_mock.post(url, status_code=500)
    with pytest.raises(errors.RdStationUnavailable):
        connected.access_tokens.usable("default")
    conn.execute("UPDATE rdstation_tokens SET retry_at = NULL")
    connected.memory.forget("default")
    requests_mock.post(url, json={"access_token": "good", "expires_in": 86_400})
    assert connected.access_tokens.usable("default").access_token == "good"


def test_an_account_without_row_is_not_connected_and_the_answer_names_the_url(services: Services) -> None:
    with pytest.raises(errors.NotConnected) as raised:
        services.access_tokens.usable("nobody & co")
    assert raised.value.extra == {
        "reauthorize_url": "http://localhost:8000/rd/login?account_id=nobody+%26+co"
    }


def test_a_dead_refresh_token_asks_for_reauthorization(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    leave(conn, -1)
    sandbox.revoke()
    for _ in range(3):
        with pytest.raises(errors.ReauthorizationRequired):
            connected.access_tokens.usable("default")
    assert sandbox.calls()["token_refresh"] == {"401": 1}


def test_wrong_client_credentials_are_told_apart_from_a_dead_account(
    services: Services, conn: Conn, requests_mock: Mocker
) -> None:
    connect_account(services, due=False)
    leave(conn, -1)
    response = {"error_type": "ACCESS_DENIED", "error_message": "Wrong credentials provided."}
    requests_mock.post(TOKEN_URL, status_code=401, json=response)
    for _ in range(2):
        with pytest.raises(errors.CredentialsRefused):
            services.access_tokens.usable("default")
    assert requests_mock.call_count == 1


def test_a_back_off_is_told_with_its_length(services: Services, conn: Conn, requests_mock: Mocker) -> None:
    connect_account(services, due=False)
    leave(conn, -1)
    requests_mock.post(TOKEN_URL, status_code=429, headers={"Retry-After": "20"})
    with pytest.raises(errors.RdStationUnavailable) as raised:
        services.access_tokens.usable("default")
    assert raised.value.retry_after_s == pytest.approx(20, abs=2)
    assert requests_mock.call_count == 1


def test_a_value_that_cannot_be_decrypted_is_named_without_its_content(
    services: Services, conn: Conn
) -> None:
    connect_account(services, due=False)
    conn.execute("UPDATE rdstation_tokens SET access_token = 'plain-access-token'")
    with pytest.raises(errors.TokenUnreadable) as raised:
        services.access_tokens.usable("default")
    assert "plain-access-token" not in str(raised.value)


def test_refresh_now_renews_what_is_not_due(connected: Services, sandbox: SandboxProcess, conn: Conn) -> None:
    connect_account(connected, sandbox, due=False)
    assert connected.access_tokens.refresh_now("default", by=BY) is Result.STORED
    assert conn.execute("SELECT reason FROM rdstation_refresh_attempts").fetchone() == ("operator",)


def test_refresh_now_may_try_a_refused_token_once_more(
    services: Services, conn: Conn, requests_mock: Mocker
) -> None:
    connect_account(services, due=False)
    requests_mock.post(TOKEN_URL, status_code=401, json={"error_type": "INVALID_REFRESH_TOKEN"})
    assert services.access_tokens.refresh_now("default", by=BY) is Result.REFUSED
    conn.execute("UPDATE rdstation_tokens SET attempted_at = attempted_at - interval '1 minute'")
    requests_mock.post(TOKEN_URL, json={"access_token": "a", "expires_in": 86_400})
    assert services.access_tokens.refresh_now("default", by=BY) is Result.STORED
    assert row(conn)["status"] == "connected"


def test_refresh_now_is_bound_by_the_back_off(services: Services, conn: Conn, requests_mock: Mocker) -> None:
    connect_account(services, due=False)
    conn.execute("UPDATE rdstation_tokens SET retry_at = rd_now() + interval '1 minute'")
    with pytest.raises(errors.TooManyRequests) as raised:
        services.access_tokens.refresh_now("default", by=BY)
    assert raised.value.retry_after_s == pytest.approx(60, abs=2)
    assert requests_mock.call_count == 0


def test_refresh_now_pressed_twice_is_one_exchange(connected: Services, sandbox: SandboxProcess) -> None:
    connect_account(connected, sandbox, due=False)
    sandbox.patch(latency_ms=400)
    with ThreadPoolExecutor(2) as presses:
        first = presses.submit(connected.access_tokens.refresh_now, "default", by=BY)
        deadline = time.monotonic() + 5
        while not sandbox.report()["in_flight"]:
            assert time.monotonic() < deadline
        second = presses.submit(connected.access_tokens.refresh_now, "default", by=BY)
        assert (first.result(), second.result()) == (Result.STORED, Result.STORED)
    assert sandbox.calls()["token_refresh"] == {"200": 1}


def test_a_deleted_row_is_without_effect_within_a_second(
    make_services: Callable[[Settings], Services], settings: Settings, conn: Conn
) -> None:
    processes = [make_services(settings) for _ in range(2)]
    connect_account(processes[0], due=False)
    for process in processes:
        process.access_tokens.usable("default")
    conn.execute("DELETE FROM rdstation_tokens WHERE account_id='default'")
    ends = time.monotonic() + 1
    for process in processes:
        while True:
            try:
                process.access_tokens.usable("default")
            except errors.NotConnected:
                break
            assert time.monotonic() < ends


def test_a_new_row_is_seen_at_once(services: Services) -> None:
    for _ in range(2):
        with pytest.raises(errors.NotConnected):
            services.access_tokens.usable("default")
    connect_account(services, due=False)
    assert services.access_tokens.usable("default")


@contextmanager
def row_locked_until_a_claim_has_passed_it_by(monkeypatch: pytest.MonkeyPatch, conn: Conn) -> Iterator[None]:
    """Hold the row as another process does in the instant before its claim is visible."""
    passed = threading.Event()
    really_claim = leases.lease_seen

    def lease(*args: Any, **kwargs: Any) -> Any:
        leased = really_claim(*args, **kwargs)
        passed.set()
        return leased

    monkeypatch.setattr(leases, "lease_seen", lease)
    locked = threading.Event()

    def hold() -> None:
        with conn.transaction():
            conn.execute("SELECT 1 FROM rdstation_tokens FOR NO KEY UPDATE")
            locked.set()
            assert passed.wait(10)

    holding = threading.Thread(target=hold)
    holding.start()
    assert locked.wait(10)
    yield
    holding.join()


def test_a_refused_token_is_replaced_although_another_process_was_just_claiming(
    connected: Services, sandbox: SandboxProcess, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_account(connected, sandbox, due=False)
    refused = connected.access_tokens.usable("default")
    with row_locked_until_a_claim_has_passed_it_by(monkeypatch, conn):
        assert connected.access_tokens.replace_rejected(refused) is not None


def test_refresh_now_does_not_fail_because_another_process_was_just_claiming(
    connected: Services, sandbox: SandboxProcess, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_account(connected, sandbox, due=False)
    with row_locked_until_a_claim_has_passed_it_by(monkeypatch, conn):
        assert connected.access_tokens.refresh_now("default", by=BY) is Result.STORED
