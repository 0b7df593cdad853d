"""Faults, latency, and what of it a client of the running program meets."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.integration.sandbox.conftest import CLIENT_ID, Core
from tests.support.sandbox_process import SandboxProcess


def refresh(sandbox: SandboxProcess, refresh_token: str, timeout: float = 10) -> requests.Response:
    body = {"client_id": CLIENT_ID, "client_secret": "client-secret", "refresh_token": refresh_token}
    return requests.post(f"{sandbox.url}/auth/token", json=body, timeout=timeout)


def rotating(sandbox: SandboxProcess, kind: str, **more: Any) -> str:
    """Let the next refresh meet a fault; returns a refresh token that a refresh would end."""
    token = str(sandbox.pair()["refresh_token"])
    fault = {"operation": "token_refresh", "kind": kind, "count": 1, **more}
    sandbox.patch(rotate_refresh_tokens=True, faults=[fault])
    return token


@pytest.mark.parametrize("status", [400, 401, 403, 404, 418, 429, 500, 502, 503])
def test_a_status_fault_answers_with_it_and_has_no_effect(sandbox: SandboxProcess, status: int) -> None:
    token = rotating(sandbox, "status", status=status)
    assert refresh(sandbox, token).status_code == status
    assert refresh(sandbox, token).status_code == 200
    assert sandbox.calls()["token_refresh"] == {str(status): 1, "200": 1}


def test_a_status_fault_may_carry_an_error_type_and_retry_after(core: Core) -> None:
    token = core.pair()["refresh_token"]
    faults = [
        {
            "operation": "token_refresh",
            "kind": "status",
            "status": 401,
            "error_type": "ACCESS_DENIED",
            "count": 1,
        },
        {"operation": "token_refresh", "kind": "status", "status": 429, "retry_after": 7, "count": 1},
        {"operation": "token_refresh", "kind": "status", "status": 302, "count": 1},
    ]
    core.patch(faults=faults)
    denied = core.token(refresh_token=token)
    expected = {"error_type": "ACCESS_DENIED", "error_message": "Wrong credentials provided."}
    assert (denied.status, denied.json()) == (401, {"errors": expected})
    limited = core.token(refresh_token=token)
    assert (limited.status, limited.headers["Retry-After"]) == (429, "7")
    assert core.token(refresh_token=token).status == 302


@pytest.mark.parametrize(("kind", "takes_effect"), [("drop_before", False), ("drop_after", True)])
def test_a_dropped_connection_is_cut_before_or_after_the_effect(
    sandbox: SandboxProcess, kind: str, takes_effect: bool
) -> None:
    token = rotating(sandbox, kind)
    with pytest.raises(requests.ConnectionError):
        refresh(sandbox, token)
    assert sandbox.calls()["token_refresh"] == {"none": 1}
    assert refresh(sandbox, token).status_code == (401 if takes_effect else 200)


def test_a_timeout_never_answers_and_has_no_effect(sandbox: SandboxProcess) -> None:
    token = rotating(sandbox, "timeout")
    with pytest.raises(requests.ReadTimeout):
        refresh(sandbox, token, timeout=0.3)
    assert sandbox.calls()["token_refresh"] == {"none": 1}
    sandbox.wait_until("in_flight")
    assert refresh(sandbox, token).status_code == 200


def test_a_gateway_s_page_may_have_another_status(sandbox: SandboxProcess) -> None:
    sandbox.patch(faults=[{"operation": "account_info", "kind": "html", "status": 403}])
    response = requests.get(f"{sandbox.url}/marketing/account_info", timeout=10)
    assert (response.status_code, response.headers["Content-Type"]) == (403, "text/html; charset=utf-8")


def test_an_html_answer_is_a_200_without_effect(sandbox: SandboxProcess) -> None:
    token = rotating(sandbox, "html")
    response = refresh(sandbox, token)
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert response.text.startswith("<html>")
    assert refresh(sandbox, token).status_code == 200


def test_a_truncated_answer_is_a_whole_http_answer_with_half_the_json_and_took_effect(
    sandbox: SandboxProcess,
) -> None:
    token = rotating(sandbox, "truncated")
    response = refresh(sandbox, token)
    assert response.status_code == 200
    assert int(response.headers["Content-Length"]) == len(response.content)
    with pytest.raises(json.JSONDecodeError):
        json.loads(response.text)
    assert refresh(sandbox, token).status_code == 401


def test_a_slow_drip_sends_one_byte_a_time_and_took_effect(sandbox: SandboxProcess) -> None:
    token = rotating(sandbox, "slow_drip")
    body = json.dumps(
        {"client_id": CLIENT_ID, "client_secret": "client-secret", "refresh_token": token}
    ).encode()
    address = urlsplit(sandbox.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        head = b"POST /auth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % len(body) + body)
        received = b""
        while len(received.partition(b"\r\n\r\n")[2]) < 3:
            received += connection.recv(1)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b'{"a')
    sandbox.wait_until("in_flight")
    assert refresh(sandbox, token).status_code == 401


def test_a_fault_hits_its_operation_only_and_as_often_as_it_says(core: Core) -> None:
    pair = core.pair()
    core.patch(faults=[{"operation": "account_info", "kind": "status", "status": 500, "count": 2}])
    assert core.token(refresh_token=pair["refresh_token"]).status == 200
    statuses = [core.get("/marketing/account_info", pair["access_token"]).status for _ in range(3)]
    assert statuses == [500, 500, 200]
    assert core.call("GET", "/_sandbox").json()["settings"]["faults"] == []


def test_a_star_hits_every_api_call_but_neither_consent_nor_control(core: Core) -> None:
    pair = core.pair()
    core.patch(faults=[{"operation": "*", "kind": "status", "status": 503}])
    assert core.token(refresh_token=pair["refresh_token"]).status == 503
    assert core.get("/marketing/account_info", pair["access_token"]).status == 503
    assert core.get("/nothing", "").status == 503
    assert core.code()
    assert core.call("GET", "/_sandbox").status == 200


def test_a_rate_is_a_probability_that_the_seed_repeats() -> None:
    runs = []
    for seed in (1, 1, 2):
        core = Core(seed=seed)
        core.patch(
            rate_limit=None,
            faults=[{"operation": "account_info", "kind": "status", "status": 500, "rate": 0.3}],
        )
        token = core.pair()["access_token"]
        runs.append([core.get("/marketing/account_info", token).status for _ in range(400)])
        core.sandbox.close()
    assert runs[0] == runs[1] != runs[2]
    assert 80 < runs[0].count(500) < 160


def test_latency_holds_back_every_answer_but_not_the_others(sandbox: SandboxProcess) -> None:
    token = sandbox.pair()["refresh_token"]
    sandbox.patch(latency_ms=300)
    together = Barrier(20)

    def timed(_: int) -> float:
        together.wait(10)
        return refresh(sandbox, token).elapsed.total_seconds()

    with ThreadPoolExecutor(20) as pool:
        took = list(pool.map(timed, range(20)))
    assert min(took) >= 0.3
    # One after the other they would have been 6 s; the report shows that they were under way together.
    assert sandbox.report()["max_concurrent_per_refresh_token"] > 1
    assert requests.get(f"{sandbox.url}/_sandbox", timeout=10).elapsed.total_seconds() < 0.3


def test_calls_at_once_are_counted_for_each_refresh_token_apart(sandbox: SandboxProcess) -> None:
    tokens = [sandbox.pair(account)["refresh_token"] for account in ("default", "account-2", "account-3")]
    sandbox.patch(latency_ms=200)
    together = Barrier(3)

    def send(token: str) -> int:
        together.wait(10)
        return refresh(sandbox, token).status_code

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(send, tokens)) == [200, 200, 200]
    assert sandbox.report()["max_concurrent_per_refresh_token"] == 1
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(send, tokens[:1] * 3)) == [200, 200, 200]
    assert sandbox.report()["max_concurrent_per_refresh_token"] == 3
    assert sandbox.report()["in_flight"] == 0


def test_a_client_that_hangs_up_ends_its_call(sandbox: SandboxProcess) -> None:
    token = sandbox.pair()["refresh_token"]
    sandbox.patch(latency_ms=60_000)
    with pytest.raises(requests.ReadTimeout):
        refresh(sandbox, token, timeout=0.2)
    sandbox.wait_until("in_flight")
    sandbox.patch(latency_ms=0)
    assert refresh(sandbox, token).status_code == 200
    assert sandbox.report()["max_concurrent_per_refresh_token"] == 1


def test_latency_and_faults_are_told_to_callers_in_the_same_process(core: Core) -> None:
    core.patch(latency_ms=250, faults=[{"operation": "account_info", "kind": "timeout"}])
    pair = core.token(code=core.code())
    assert pair.latency_s == 0.25
    assert core.get("/marketing/account_info", pair.json()["access_token"]).enact == "timeout"
