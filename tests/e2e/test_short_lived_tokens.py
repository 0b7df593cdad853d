"""A token that lives for seconds shows in a minute what a token of a day shows in two months."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import requests

from rdservice.services import Services
from tests.support.accounts import connect_account, row
from tests.support.processes import Processes
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

LIFETIME_S = 3
RENEWALS = 40
CALLERS = 3


@pytest.mark.fault(
    "tokens-of-seconds",
    "40 renewals of a token that lives for three seconds",
    "no caller ever gets a dead token",
)
def test_40_renewals_pass_without_a_moment_in_which_a_caller_gets_a_dead_token(
    processes: Processes,
    connected: Services,
    sandbox: SandboxProcess,
    conn: psycopg.Connection[Any],
    authorized: dict[str, str],
) -> None:
    sandbox.patch(access_token_lifetime=LIFETIME_S, rotate_refresh_tokens=True, rate_limit=None)
    web = processes.web()
    worker = processes.worker()
    worker.wait_until_it_says("started")
    connect_account(connected, sandbox, lifetime_s=LIFETIME_S)
    wait_until(lambda: row(conn)["refreshed_at"] > row(conn)["created_at"], "the first renewal")
    enough = threading.Event()

    def call() -> list[int]:
        """Get the token again and again and use each at once; return the statuses of both."""
        statuses = []
        with requests.Session() as ours, requests.Session() as theirs:
            while not enough.wait(0.02):
                given = ours.get(f"{web.url}/rd/tokens/default/access-token", headers=authorized, timeout=20)
                statuses.append(given.status_code)
                if given.status_code == 200:
                    headers = {"Authorization": f"Bearer {given.json()['access_token']}"}
                    used = theirs.get(f"{sandbox.url}/marketing/account_info", headers=headers, timeout=20)
                    statuses.append(used.status_code)
        return statuses

    def renewals() -> int:
        return int(sandbox.calls()["token_refresh"].get("200", 0))

    with ThreadPoolExecutor(CALLERS) as executor:
        calls = [executor.submit(call) for _ in range(CALLERS)]
        try:
            wait_until(lambda: renewals() >= RENEWALS, f"{RENEWALS} renewals", seconds=120)
        finally:
            enough.set()
    statuses = [status for ended in calls for status in ended.result()]
    assert set(statuses) == {200}
    assert len(statuses) > RENEWALS * CALLERS
    assert set(sandbox.calls()["token_refresh"]) == {"200"}
    reasons = conn.execute("SELECT DISTINCT reason FROM rdstation_refresh_attempts").fetchall()
    assert reasons == [("due",)]
