"""`/rd/api/<path>` through real processes when RD Station breaks a connection or refuses a token."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from rdservice.services import Services
from tests.support.accounts import connect_account
from tests.support.odd_server import OddServer, odd_server, read_request, respond_with
from tests.support.processes import Processes, Web
from tests.support.sandbox_process import SandboxProcess

pytestmark = pytest.mark.slow

PATH = "/rd/api/platform/contacts/fields"
CALLERS = 50
OK = respond_with(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")


def break_the_first(connection: socket.socket, server: OddServer, number: int) -> None:
    """Read the first request whole and hang up; answer the others."""
    if number == 0:
        read_request(connection, server, number)
    else:
        OK(connection, server, number)


def ask(
    processes: Processes, upstream: OddServer, headers: dict[str, str], method: str, body: bytes | None = None
) -> requests.Response:
    web = processes.web(RDSTATION_API_URL=upstream.url)
    return requests.request(method, web.url + PATH, headers=headers, data=body, timeout=60)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_what_broke_after_it_was_sent_is_not_repeated_where_that_could_do_it_twice(
    processes: Processes, connected: Services, authorized: dict[str, str], method: str
) -> None:
    connect_account(connected, due=False)
    with odd_server(break_the_first) as upstream:
        response = ask(processes, upstream, authorized, method, b'{"name": "Nova"}')
        assert (response.status_code, response.json()["code"]) == (503, "rdstation_unavailable")
        assert response.json()["reached_rd_station"] == "unknown"
        assert len(upstream.received) == 1
        assert upstream.received[0].endswith(b'\r\n\r\n{"name": "Nova"}')


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_what_broke_is_repeated_where_twice_is_as_good_as_once(
    processes: Processes, connected: Services, authorized: dict[str, str], method: str
) -> None:
    connect_account(connected, due=False)
    body = b'{"name": "Nova"}' if method == "PUT" else None
    with odd_server(break_the_first) as upstream:
        response = ask(processes, upstream, authorized, method, body)
        assert (response.status_code, response.headers["X-Answer-From"]) == (200, "rdstation")
        assert len(upstream.received) == 2
        assert upstream.received[0] == upstream.received[1]


def test_what_cannot_be_sent_at_all_did_not_reach_rd_station(
    processes: Processes, connected: Services, authorized: dict[str, str]
) -> None:
    connect_account(connected, due=False)
    with odd_server(OK) as upstream:
        pass
    response = ask(processes, upstream, authorized, "POST", b"{}")
    assert (response.status_code, response.json()["reached_rd_station"]) == (503, "no")


@pytest.mark.fault(
    "token-refused-for-any-route",
    "RD Station refuses a token that 50 callers in four processes use",
    "one exchange; all get RD Station's answer",
)
def test_a_token_that_rd_station_refuses_is_renewed_once_for_callers_of_four_processes(
    processes: Processes, connected: Services, sandbox: SandboxProcess, authorized: dict[str, str]
) -> None:
    pair = connect_account(connected, sandbox, due=False)
    webs = [processes.web(RDSTATION_RATE_LIMIT="1000"), processes.web(RDSTATION_RATE_LIMIT="1000")]
    sandbox.patch(replaced_access_tokens_die=True, latency_ms=100, rate_limit=None)
    replace_token(sandbox, pair["refresh_token"])
    with ThreadPoolExecutor(CALLERS) as executor:
        responses = list(executor.map(lambda number: call(webs[number % 2], authorized), range(CALLERS)))
    assert [response.status_code for response in responses] == [200] * CALLERS
    assert {response.headers["X-Answer-From"] for response in responses} == {"rdstation"}
    assert sandbox.calls()["token_refresh"] == {"200": 2}  # one of them by the test


def call(web: Web, headers: dict[str, str]) -> requests.Response:
    return requests.get(web.url + PATH, headers=headers, timeout=60)


def replace_token(sandbox: SandboxProcess, refresh_token: str) -> None:
    """Renew at RD Station behind the service's back, which ends the access token that it has."""
    body = {
        "client_id": sandbox.client_id,
        "client_secret": sandbox.client_secret,
        "refresh_token": refresh_token,
    }
    requests.post(f"{sandbox.url}/auth/token", json=body, timeout=10).raise_for_status()
