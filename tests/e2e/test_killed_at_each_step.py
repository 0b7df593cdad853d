"""kill -9 of a worker or a web process at each step of a refresh, with refresh tokens that last and that rotate."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import requests

from rdservice.services import Services
from rdservice.tokens.leases import LEASE_S, REFUSED_FOR_S
from tests.conftest import Clock
from tests.support.accounts import assert_sandbox_accepts, attempts_of, connect_account, row, stored_pair
from tests.support.database_proxy import DatabaseProxy, Fault, Where
from tests.support.processes import Processes, Web
from tests.support.sandbox_process import SandboxProcess
from tests.support.told import SERVED, Told, ask
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

Kill = Callable[[DatabaseProxy, Fault], None]
ASKED_LAST = "SELECT 1 FROM rdstation_tokens"
STORE = "SET access_token ="


@pytest.fixture
def proxy(database_url: str) -> Iterator[DatabaseProxy]:
    with DatabaseProxy(database_url) as running:
        yield running


@pytest.fixture
def web(processes: Processes) -> Web:
    """What callers talk to."""
    return processes.web()


@pytest.fixture(params=["worker", "web"])
def kill(request: pytest.FixtureRequest, processes: Processes, web: Web, authorized: dict[str, str]) -> Kill:
    """Let a process begin to renew the account over the proxy; kill it when the fault is reached."""

    def worker(proxy: DatabaseProxy, fault: Fault) -> None:
        process = processes.worker(DATABASE_URL=proxy.url)
        wait_until(fault.reached.is_set, "the worker is there", seconds=40)
        process.kill()
        proxy.cut_all()

    def one_of_the_web_processes(proxy: DatabaseProxy, fault: Fault) -> None:
        server = processes.web(DATABASE_URL=proxy.url, WEB_CONCURRENCY="1")
        refresh = f"{server.url}/rd/tokens/default/refresh"
        with ThreadPoolExecutor(1) as executor:
            call = executor.submit(requests.post, refresh, headers=authorized, timeout=60)
            wait_until(fault.reached.is_set, "the web process is there", seconds=40)
            [pid] = server.workers
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(requests.ConnectionError):
                call.result()
        proxy.cut_all()
        wait_until(lambda: server.workers - {pid}, "gunicorn has started another")
        assert ask(server, authorized) == SERVED

    return worker if request.param == "worker" else one_of_the_web_processes


@pytest.fixture(params=[False, True], ids=["lasting", "rotating"])
def rotates(request: pytest.FixtureRequest, sandbox: SandboxProcess) -> bool:
    """Whether RD Station gives a new refresh token at each exchange and forgets the old one."""
    sandbox.patch(rotate_refresh_tokens=request.param)
    return bool(request.param)


@pytest.mark.fault(
    "kill-9-before-the-call",
    "a process is killed after its claim, before it calls RD Station",
    "callers get the stored token; one exchange after the lease renews it",
)
def test_killed_before_the_call_no_token_is_spent_and_the_account_is_renewed_after_the_lease(
    kill: Kill,
    proxy: DatabaseProxy,
    web: Web,
    processes: Processes,
    connected: Services,
    sandbox: SandboxProcess,
    conn: psycopg.Connection[Any],
    clock: Clock,
    authorized: dict[str, str],
    rotates: bool,
) -> None:
    before = connect_account(connected, sandbox)
    kill(proxy, proxy.hold(ASKED_LAST))
    assert sandbox.calls()["token_refresh"] == {}
    assert attempts_of(conn) == [(None, None)]
    assert stored_pair(connected, conn) == (before["access_token"], before["refresh_token"])
    assert ask(web, authorized) == SERVED

    clock.advance(LEASE_S + 1)
    processes.worker()
    wait_until(lambda: attempts_of(conn) == [(None, None), ("stored", None)], "the account is renewed")
    assert sandbox.calls()["token_refresh"] == {"200": 1}
    assert_served_and_alive(web, authorized, connected, sandbox, conn)


@pytest.mark.fault(
    "kill-9-between-exchange-and-store",
    "a process is killed with RD Station's answer in hand",
    "lasting: renewed after the lease. Rotating, the one loss that nobody can prevent: the access token is served to"
    " its end, and the row says 'answer lost' and asks for a new authorization",
)
def test_killed_between_exchange_and_store_only_a_rotated_token_is_lost_and_the_row_says_so(
    kill: Kill,
    proxy: DatabaseProxy,
    web: Web,
    processes: Processes,
    connected: Services,
    sandbox: SandboxProcess,
    conn: psycopg.Connection[Any],
    clock: Clock,
    authorized: dict[str, str],
    rotates: bool,
) -> None:
    before = connect_account(connected, sandbox)
    kill(proxy, proxy.hold(STORE))
    assert sandbox.calls()["token_refresh"] == {"200": 1}
    assert attempts_of(conn) == [(None, None)]
    assert stored_pair(connected, conn) == (before["access_token"], before["refresh_token"])
    assert ask(web, authorized) == SERVED

    clock.advance(LEASE_S + 1)
    processes.worker()
    if not rotates:
        wait_until(lambda: attempts_of(conn) == [(None, None), ("stored", None)], "the account is renewed")
        assert sandbox.calls()["token_refresh"] == {"200": 2}
        assert_served_and_alive(web, authorized, connected, sandbox, conn)
        return
    # A doubtful refusal is believed after three of them over ten minutes.
    for refusals in (1, 2):
        wait_until(lambda: row(conn)["refusals"] == refusals, f"refused {refusals} times")  # noqa: B023
        assert (row(conn)["status"], row(conn)["last_error"]) == ("connected", "answer_lost")
        assert ask(web, authorized) == SERVED
        clock.advance(REFUSED_FOR_S / 2 + 2)
    wait_until(lambda: row(conn)["status"] == "reauthorization_required", "an operator is called")
    assert row(conn)["last_error"] == "answer_lost"
    assert sandbox.calls()["token_refresh"] == {"200": 1, "401": 3}
    assert ask(web, authorized) == SERVED
    conn.execute("UPDATE rdstation_tokens SET expires_at = rd_now()")
    wait_until(
        lambda: ask(web, authorized) == Told(409, "reauthorization_required"),
        "callers are told to reauthorize",
    )
    assert sandbox.report()["max_concurrent_per_refresh_token"] == 1


@pytest.mark.fault(
    "kill-9-after-the-store",
    "a process is killed after PostgreSQL took the answer, before it knows",
    "nothing is lost and nothing is repeated",
)
def test_killed_after_the_store_nothing_is_lost_and_nothing_is_repeated(
    kill: Kill,
    proxy: DatabaseProxy,
    web: Web,
    processes: Processes,
    connected: Services,
    sandbox: SandboxProcess,
    conn: psycopg.Connection[Any],
    authorized: dict[str, str],
    rotates: bool,
) -> None:
    before = connect_account(connected, sandbox)
    kill(proxy, proxy.hold(STORE, Where.COMMIT, answered=True))
    assert attempts_of(conn) == [("stored", None)]
    assert row(conn)["leased_until"] is None
    access_token, refresh_token = stored_pair(connected, conn)
    assert access_token != before["access_token"]
    assert (refresh_token != before["refresh_token"]) == rotates

    processes.worker()
    connect_account(connected, sandbox, "beside")
    wait_until(lambda: attempts_of(conn, "beside") == [("stored", None)], "a worker looks for due accounts")
    assert attempts_of(conn) == [("stored", None)]
    assert sandbox.calls()["token_refresh"] == {"200": 2}  # one of them for the account beside it
    assert_served_and_alive(web, authorized, connected, sandbox, conn)


def assert_served_and_alive(
    web: Web,
    headers: dict[str, str],
    connected: Services,
    sandbox: SandboxProcess,
    conn: psycopg.Connection[Any],
) -> None:
    """Show that the account is in order, that callers get its token, and that RD Station takes the stored pair."""
    assert (row(conn)["status"], row(conn)["last_error"]) == ("connected", None)
    assert ask(web, headers) == SERVED
    assert sandbox.report()["max_concurrent_per_refresh_token"] == 1
    assert_sandbox_accepts(sandbox, *stored_pair(connected, conn))
