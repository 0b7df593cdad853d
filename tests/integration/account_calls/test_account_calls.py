"""Calls to RD Station for an account: token, budget, one refresh after a 401, and errors of no response."""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from rdservice import errors
from rdservice.account_calls.failures import RETRY_S, call_once, is_transient, refusal, transport_error_behind
from rdservice.config.settings import Settings
from rdservice.rdstation import rate_budget
from rdservice.rdstation.client import ApiResponse, TransportError
from rdservice.services import Services
from tests.support.accounts import BY, connect_account, kill_access_token
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]


def ask_name(services: Services, **more: Any) -> ApiResponse:
    return services.account_calls.send("default", services.rdstation.account_info, **more)


def response(status: int, **headers: str) -> ApiResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ApiResponse(operation="other", status=status, headers=named, body=b"{}")


def never(_: str) -> ApiResponse:
    raise AssertionError("nothing may be sent")


def places_taken(conn: Conn) -> int:
    budgets = rate_budget.states(conn, ["default"])
    return sum(state.spent for state in budgets.get("default", {}).values())


def close_budget(conn: Conn) -> None:
    conn.execute(
        "INSERT INTO rdstation_rate_limits (budget, class, closed_until)"
        " VALUES ('default', 'account', rd_now() + interval '5 minutes')"
    )


def test_a_401_is_worth_one_refresh_of_that_token_and_one_repetition(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    kill_access_token(sandbox, connect_account(connected, sandbox, due=False))
    assert ask_name(connected).status == 200
    assert sandbox.calls()["account_info"] == {"401": 1, "200": 1}
    assert sandbox.calls()["token_refresh"] == {"200": 2}  # one of them by the test
    assert conn.execute("SELECT reason FROM rdstation_refresh_attempts").fetchall() == [("rejected",)]


def test_a_second_401_within_five_minutes_is_the_response(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    sandbox.patch(faults=[{"operation": "account_info", "kind": "status", "status": 401}])
    assert ask_name(connected).status == 401
    assert ask_name(connected).status == 401
    assert sandbox.calls()["account_info"] == {"401": 3}
    assert sandbox.calls()["token_refresh"] == {"200": 1}


def test_a_401_that_says_nothing_about_the_token_is_the_response(
    connected: Services, sandbox: SandboxProcess
) -> None:
    connect_account(connected, sandbox, due=False)
    sandbox.patch(faults=[{"operation": "account_info", "kind": "status", "status": 401}])
    assert ask_name(connected, refresh_on_401=False).status == 401
    assert sandbox.calls()["account_info"] == {"401": 1}
    assert sandbox.calls()["token_refresh"] == {}


def test_a_401_with_a_token_that_was_replaced_meanwhile_causes_no_refresh(
    make_services: Callable[[Settings], Services], sandbox_settings: Settings, sandbox: SandboxProcess
) -> None:
    slow, quick = make_services(sandbox_settings), make_services(sandbox_settings)
    pair = connect_account(slow, sandbox, due=False)
    slow.access_tokens.usable("default")
    kill_access_token(sandbox, pair)
    quick.access_tokens.refresh_now("default", by=BY)
    assert ask_name(slow).status == 200
    assert sandbox.calls()["token_refresh"] == {"200": 2}


def test_many_callers_who_meet_a_401_cause_one_refresh(
    make_services: Callable[[Settings], Services], sandbox_settings: Settings, sandbox: SandboxProcess
) -> None:
    processes = [make_services(sandbox_settings) for _ in range(2)]
    pair = connect_account(processes[0], sandbox, due=False)
    for process in processes:
        process.access_tokens.usable("default")
    kill_access_token(sandbox, pair)
    with ThreadPoolExecutor(20) as callers:
        statuses = list(callers.map(lambda number: ask_name(processes[number % 2]).status, range(20)))
    assert statuses == [200] * 20
    assert sandbox.calls()["token_refresh"] == {"200": 2}


def test_a_401_on_a_revoked_account_asks_for_reauthorization(
    connected: Services, sandbox: SandboxProcess
) -> None:
    connect_account(connected, sandbox, due=False)
    sandbox.revoke()
    with pytest.raises(errors.ReauthorizationRequired) as raised:
        ask_name(connected)
    assert raised.value.extra["reauthorize_url"] == "http://localhost:8000/rd/login?account_id=default"


def test_a_caller_may_prevent_the_repetition_once_the_token_is_refreshed(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    kill_access_token(sandbox, connect_account(connected, sandbox, due=False))

    def prevent() -> None:
        raise errors.BadRequest("read once")

    with pytest.raises(errors.BadRequest, match="read once"):
        ask_name(connected, before_retry=prevent)
    assert sandbox.calls()["account_info"] == {"401": 1}
    assert sandbox.calls()["token_refresh"] == {"200": 2}
    assert places_taken(conn) == 1
    assert ask_name(connected).status == 200


def test_each_request_takes_a_place_in_the_budget_the_repetition_too(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    pair = connect_account(connected, sandbox, due=False)
    assert ask_name(connected).status == 200
    assert places_taken(conn) == 1
    kill_access_token(sandbox, pair)
    assert ask_name(connected).status == 200
    assert places_taken(conn) == 3


def test_nothing_is_sent_while_the_budget_is_spent(services: Services, conn: Conn) -> None:
    connect_account(services, due=False)
    close_budget(conn)
    with pytest.raises(errors.TooManyRequests):
        services.account_calls.send("default", never, timeout_s=0)


def test_nothing_is_sent_after_the_latest_start(services: Services, conn: Conn) -> None:
    connect_account(services, due=False)
    with pytest.raises(errors.RdStationTimeout) as raised:
        services.account_calls.send("default", never, deadline=time.monotonic() - 0.001)
    assert raised.value.retry_after_s == RETRY_S
    assert transport_error_behind(raised.value) is None
    assert places_taken(conn) == 0


def test_nobody_waits_for_a_place_beyond_the_latest_start(services: Services, conn: Conn) -> None:
    connect_account(services, due=False)
    close_budget(conn)
    with pytest.raises(errors.TooManyRequests):
        services.account_calls.send("default", never, timeout_s=math.inf, deadline=time.monotonic() + 0.5)


def test_without_an_account_nothing_is_sent(services: Services) -> None:
    with pytest.raises(errors.NotConnected):
        services.account_calls.send("default", never)


@pytest.mark.parametrize("kind", ["timeout", "connection"])
@pytest.mark.parametrize("sent", [False, True])
def test_no_response_is_an_error_that_says_why(services: Services, kind: str, sent: bool) -> None:
    connect_account(services, due=False)
    transport_error = TransportError("other", kind, sent=sent)

    def fail(_: str) -> ApiResponse:
        raise transport_error

    with pytest.raises(errors.RdServiceError) as own:
        services.account_calls.send("default", fail)
    with pytest.raises(errors.RdServiceError) as passed_through:
        services.account_calls.send("default", fail, passed_through=True)
    for raised in (own, passed_through):
        assert raised.value.code == ("rdstation_timeout" if kind == "timeout" else "rdstation_unavailable")
        assert raised.value.retry_after_s == RETRY_S
        assert transport_error_behind(raised.value) is transport_error
    assert own.value.extra == {}
    assert passed_through.value.extra == {"reached_rd_station": "unknown" if sent else "no"}
    assert ("may have taken effect" in passed_through.value.detail) is sent


def test_a_mistake_of_ours_is_not_taken_for_silence() -> None:
    def fail() -> ApiResponse:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call_once(fail)


@pytest.mark.parametrize(
    ("status", "code", "transient"),
    [
        (200, "rdstation_failed", True),
        (204, "rdstation_failed", False),
        (302, "rdstation_failed", False),
        (400, "rdstation_failed", False),
        (401, "rdstation_failed", False),
        (403, "rdstation_failed", False),
        (404, "not_found", False),
        (429, "too_many_requests", True),
        (500, "rdstation_failed", True),
        (503, "rdstation_failed", True),
    ],
)
def test_a_response_that_cannot_be_used_is_judged_by_its_status(
    status: int, code: str, transient: bool
) -> None:
    assert (refusal(response(status)).code, is_transient(response(status))) == (code, transient)


def test_a_429_passes_on_how_long_to_wait() -> None:
    assert refusal(response(429, Retry_After="30")).retry_after_s == 30
    assert refusal(response(429)).retry_after_s == RETRY_S
