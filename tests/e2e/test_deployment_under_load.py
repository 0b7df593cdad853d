"""All processes are replaced at once while tokens are renewed and callers ask for them."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import requests

from rdservice.services import Services
from tests.support.accounts import assert_sandbox_accepts, connect_account, stored_pair
from tests.support.processes import Processes, listening_socket
from tests.support.sandbox_process import SandboxProcess
from tests.support.told import SERVED, told
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

ACCOUNTS = 30
LIFETIME_S = 6
DEPLOYMENTS = 2
CALLERS = 3


@pytest.mark.fault(
    "everything-replaced-at-once",
    "new web and worker processes start, and all old ones get SIGTERM at the same moment, twice under load",
    "callers get 200 throughout; no token is lost or exchanged twice; all end in time with status 0",
)
def test_replacing_everything_at_once_costs_no_token_and_no_caller_notices(
    processes: Processes,
    connected: Services,
    sandbox: SandboxProcess,
    conn: psycopg.Connection[Any],
    authorized: dict[str, str],
) -> None:
    sandbox.patch(access_token_lifetime=LIFETIME_S, rotate_refresh_tokens=True, rate_limit=None)
    accounts = [f"account-{number}" for number in range(ACCOUNTS)]
    over = threading.Event()
    with listening_socket() as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        old = [processes.worker(), processes.web(listening.dup())]
        for account in accounts:
            connect_account(connected, sandbox, account, lifetime_s=LIFETIME_S)
        sandbox.patch(latency_ms=300)
        wait_until(lambda: renewals(sandbox) >= ACCOUNTS, "all have been renewed")

        def call(number: int) -> set[Any]:
            responses = set()
            while not over.wait(0.01):
                number = (number + 1) % ACCOUNTS
                path = f"{url}/rd/tokens/{accounts[number]}/access-token"
                responses.add(told(requests.get(path, headers=authorized, timeout=30)))
            return responses

        with ThreadPoolExecutor(CALLERS) as executor:
            callers = [executor.submit(call, start) for start in range(CALLERS)]
            try:
                for _ in range(DEPLOYMENTS):
                    new = [processes.worker(), processes.web(listening.dup())]
                    wait_until(lambda: sandbox.report()["in_flight"] > 0, "an exchange is in flight")
                    for process in old:
                        process.send(signal.SIGTERM)
                    for process in old:
                        assert process.ended(28) == 0, process.log
                    before, old = renewals(sandbox), new
                    wait_until(lambda: renewals(sandbox) > before + ACCOUNTS, "renewals go on")  # noqa: B023
            finally:
                over.set()
        assert set().union(*(caller.result() for caller in callers)) == {SERVED}
        old[0].send(signal.SIGTERM)
        assert old[0].ended(28) == 0, old[0].log
    assert set(sandbox.calls()["token_refresh"]) == {"200"}
    assert sandbox.report()["max_concurrent_per_refresh_token"] == 1
    lost = conn.execute("SELECT count(*) FROM rdstation_refresh_attempts WHERE outcome IS NULL").fetchone()
    assert lost == (0,)
    sandbox.patch(latency_ms=0, access_token_lifetime=86_400)
    conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now(), retry_at = NULL")
    processes.worker()
    wait_until(lambda: renewed(conn) == ACCOUNTS, "all are renewed once more")
    for account in accounts:
        assert_sandbox_accepts(sandbox, *stored_pair(connected, conn, account))


def renewals(sandbox: SandboxProcess) -> int:
    return int(sandbox.calls()["token_refresh"].get("200", 0))


def renewed(conn: psycopg.Connection[Any]) -> int:
    """Return how many accounts have a token of the long lifetime."""
    found = conn.execute(
        "SELECT count(*) FROM rdstation_tokens WHERE expires_at > rd_now() + interval '1 h'"
    ).fetchone()
    assert found is not None
    return int(found[0])
