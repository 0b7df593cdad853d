"""However many processes and threads want a token at the same moment, RD Station is asked once."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from rdservice.services import Services
from tests.support.accounts import attempts_of, connect_account, stored_pair
from tests.support.processes import Processes, ServiceProcess
from tests.support.sandbox_process import SandboxProcess

pytestmark = pytest.mark.slow

CALLERS = Path(__file__).resolve().parents[1] / "support" / "callers.py"
PROCESSES = 4
THREADS = 50


@pytest.mark.fault(
    "callers-at-once",
    "200 callers in four processes want one dying token",
    "one exchange; all get the new token",
)
def test_four_processes_with_50_threads_each_cause_one_exchange_and_all_get_a_good_token(
    processes: Processes,
    connected: Services,
    sandbox: SandboxProcess,
    conn: psycopg.Connection[Any],
) -> None:
    connect_account(connected, sandbox)
    leave_little_life(conn)
    sandbox.patch(latency_ms=300)
    with held_back_callers(processes) as callers:
        pass
    got = [token for caller in callers for token in tokens_of(caller)]

    new_token, _ = stored_pair(connected, conn)
    assert got == [new_token] * (PROCESSES * THREADS)
    assert sandbox.calls()["token_refresh"] == {"200": 1}
    assert sandbox_accepts(sandbox, new_token)
    assert attempts_of(conn) == [("stored", None)]


def test_callers_of_four_web_processes_cause_one_exchange_and_all_get_a_good_token(
    processes: Processes,
    connected: Services,
    sandbox: SandboxProcess,
    conn: psycopg.Connection[Any],
    authorized: dict[str, str],
) -> None:
    webs = [processes.web(), processes.web()]
    connect_account(connected, sandbox)
    leave_little_life(conn)
    sandbox.patch(latency_ms=300, rate_limit=None)

    def ask(number: int) -> requests.Response:
        url = f"{webs[number % 2].url}/rd/tokens/default/access-token"
        return requests.get(url, headers=authorized, timeout=30)

    with ThreadPoolExecutor(THREADS) as executor:
        responses = list(executor.map(ask, range(THREADS)))

    new_token, _ = stored_pair(connected, conn)
    assert [response.status_code for response in responses] == [200] * THREADS
    assert {response.json()["access_token"] for response in responses} == {new_token}
    assert sandbox.calls()["token_refresh"] == {"200": 1}
    assert sandbox_accepts(sandbox, new_token)


@pytest.mark.fault(
    "callers-and-worker-at-once",
    "worker and callers want one dying token",
    "one exchange; all get 200",
)
def test_the_worker_and_callers_of_web_processes_share_one_exchange(
    processes: Processes,
    connected: Services,
    sandbox: SandboxProcess,
    conn: psycopg.Connection[Any],
    authorized: dict[str, str],
) -> None:
    web = processes.web()
    processes.worker()
    sandbox.patch(latency_ms=300)
    connect_account(connected, sandbox, due=False)
    leave_little_life(conn)
    conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now()")

    def ask(_: int) -> int:
        url = f"{web.url}/rd/tokens/default/access-token"
        return requests.get(url, headers=authorized, timeout=30).status_code

    with ThreadPoolExecutor(20) as executor:
        assert list(executor.map(ask, range(20))) == [200] * 20
    assert sandbox.calls()["token_refresh"] == {"200": 1}


def leave_little_life(conn: psycopg.Connection[Any]) -> None:
    """Make the token as old as one that nobody renewed for a day: it has 3 of its 86,400 seconds left."""
    conn.execute(
        "UPDATE rdstation_tokens SET issued_at = rd_now() + interval '3 s' - interval '1 day',"
        " expires_at = rd_now() + interval '3 s'"
    )


@contextmanager
def held_back_callers(processes: Processes) -> Iterator[list[ServiceProcess]]:
    """Start the caller processes; at the end of the block all of them ask at once."""
    released, release = os.pipe()
    try:
        callers = [
            processes.python(str(CALLERS), "default", str(THREADS), stdin=released) for _ in range(PROCESSES)
        ]
        for caller in callers:
            caller.wait_until_it_says("ready")
        yield callers
    finally:
        os.close(released)
        os.close(release)


def tokens_of(caller: ServiceProcess) -> list[str]:
    assert caller.ended() == 0, caller.log
    tokens: list[str] = json.loads(caller.log.splitlines()[-1])
    return tokens


def sandbox_accepts(sandbox: SandboxProcess, access_token: str) -> bool:
    url = f"{sandbox.url}/marketing/account_info"
    response = requests.get(url, headers={"Authorization": f"Bearer {access_token}"}, timeout=10)
    return response.status_code == 200
