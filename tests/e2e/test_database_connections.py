"""Connections to PostgreSQL that are cut in the middle of a commit, are all in use, or are not to be had."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rdservice.access import keys
from rdservice.config.settings import Settings
from rdservice.database import migrate
from rdservice.services import Services
from rdservice.tokens.leases import LEASE_S
from scripts.local.embedded_postgres import EmbeddedPostgres
from tests.conftest import NOBODY_WAITS_FOR_THE_DISK, Clock
from tests.support.accounts import assert_sandbox_accepts, attempts_of, connect_account, row, stored_pair
from tests.support.database_proxy import DatabaseProxy, Where
from tests.support.processes import Processes
from tests.support.sandbox_process import SandboxProcess
from tests.support.told import DATABASE_UNAVAILABLE, SERVED, ask
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

Conn = psycopg.Connection[Any]
REFRESH = "/rd/tokens/default/refresh"
CLAIM = "rd_next_claim"
STORE = "SET access_token ="
READ = "AS life_left_s"
WEB_POOL = 4
WORKERS_POOL = 2
MAX_CONNECTIONS = 12


@pytest.fixture
def proxy(database_url: str) -> Iterator[DatabaseProxy]:
    with DatabaseProxy(database_url) as running:
        yield running


@pytest.fixture(params=[False, True], ids=["before it took effect", "after it took effect"])
def effective(request: pytest.FixtureRequest) -> bool:
    """Whether the server gets the commit whose connection is cut."""
    return bool(request.param)


@pytest.mark.fault(
    "commit-of-an-answer-cut",
    "the connection is cut in the middle of the COMMIT of a rotated answer, which takes effect or not",
    "one exchange; the answer is stored; the caller gets 200",
)
def test_an_answer_is_stored_once_although_its_commit_is_cut(
    processes: Processes,
    proxy: DatabaseProxy,
    connected: Services,
    sandbox: SandboxProcess,
    conn: Conn,
    authorized: dict[str, str],
    effective: bool,
) -> None:
    sandbox.patch(rotate_refresh_tokens=True)
    web = processes.web(DATABASE_URL=proxy.url)
    before = connect_account(connected, sandbox, due=False)
    cut = proxy.cut(STORE, Where.COMMIT, answered=effective)
    assert ask(web, authorized, REFRESH, method="POST") == SERVED
    assert cut.reached.is_set()
    first = stored_pair(connected, conn)
    assert first[1] != before["refresh_token"]

    worker = processes.worker(DATABASE_URL=proxy.url)
    cut = proxy.cut(STORE, Where.COMMIT, answered=effective)
    conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now()")
    wait_until(lambda: attempts_of(conn) == [("stored", None)] * 2, "the worker's answer is stored")
    assert cut.reached.is_set()
    worker.wait_until_it_says("did not take a write")
    assert sandbox.calls()["token_refresh"] == {"200": 2}
    assert stored_pair(connected, conn)[1] != first[1]
    assert ask(web, authorized) == SERVED
    assert_sandbox_accepts(sandbox, *stored_pair(connected, conn))


@pytest.mark.fault(
    "commit-of-a-claim-cut",
    "the connection is cut in the middle of the COMMIT of a claim, which takes effect or not",
    "the caller gets 503 with Retry-After; no token is spent; renewed at once or after the lease",
)
def test_no_token_is_spent_when_the_commit_of_its_claim_is_cut(
    processes: Processes,
    proxy: DatabaseProxy,
    connected: Services,
    sandbox: SandboxProcess,
    conn: Conn,
    clock: Clock,
    authorized: dict[str, str],
    effective: bool,
) -> None:
    sandbox.patch(rotate_refresh_tokens=True)
    web = processes.web(DATABASE_URL=proxy.url)
    connect_account(connected, sandbox, due=False)
    cut = proxy.cut(CLAIM, Where.COMMIT, answered=effective)
    assert ask(web, authorized, REFRESH, method="POST") == DATABASE_UNAVAILABLE
    assert cut.reached.is_set()
    assert sandbox.calls()["token_refresh"] == {}
    lost: list[tuple[str | None, str | None]] = [(None, None)] if effective else []
    assert attempts_of(conn) == lost
    assert ask(web, authorized) == SERVED

    clock.advance(LEASE_S + 1 if effective else 0)
    conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now()")
    cut = proxy.cut(CLAIM, Where.COMMIT, answered=effective)
    processes.worker(DATABASE_URL=proxy.url)
    wait_until(cut.reached.is_set, "the worker's claim is cut too")
    if effective:
        lost *= 2
        wait_until(lambda: attempts_of(conn) == lost, "the claim stands")
        clock.advance(2 * (LEASE_S + 1))
    wait_until(lambda: attempts_of(conn) == [*lost, ("stored", None)], "the account is renewed")
    assert sandbox.calls()["token_refresh"] == {"200": 1}
    assert_sandbox_accepts(sandbox, *stored_pair(connected, conn))


@pytest.mark.fault(
    "pool-used-up",
    "every connection that a process may have is in use",
    "callers get 503 with Retry-After, /healthz 200; an answer in hand is stored, and all goes on by itself",
)
def test_with_all_connections_in_use_callers_are_told_to_come_back_and_an_answer_in_hand_is_kept(
    processes: Processes,
    proxy: DatabaseProxy,
    connected: Services,
    sandbox: SandboxProcess,
    conn: Conn,
    authorized: dict[str, str],
) -> None:
    sandbox.patch(rotate_refresh_tokens=True)
    processes.variables["DATABASE_POOL_SIZE"] = str(WEB_POOL)
    web = processes.web(DATABASE_URL=proxy.url, WEB_CONCURRENCY="1")
    connect_account(connected, sandbox, due=False)
    held = proxy.hold(READ, times=WEB_POOL)
    with ThreadPoolExecutor(WEB_POOL) as executor:
        # One account each: callers who ask for the same one share its row.
        paths = [f"/rd/tokens/account-{n}/access-token" for n in range(WEB_POOL)]
        waiting = [executor.submit(ask, web, authorized, path) for path in paths]
        wait_until(lambda: held.happened == WEB_POOL, "all connections of the web process are in use")
        assert ask(web, authorized) == DATABASE_UNAVAILABLE
        assert ask(web, {}, "/healthz") == SERVED
        assert ask(web, {}, "/readyz") == DATABASE_UNAVAILABLE
        held.release()
        assert {call.result().code for call in waiting} == {"not_connected"}
    assert ask(web, authorized) == SERVED

    # So that the client credentials are known to work: the first renewal in a minute notes it in a row for all.
    assert ask(web, authorized, REFRESH, method="POST") == SERVED
    accounts = [f"account-{number}" for number in range(WORKERS_POOL + 1)]
    for account in accounts:
        connect_account(connected, sandbox, account)
    held = proxy.hold(STORE, times=WORKERS_POOL)
    worker = processes.worker(DATABASE_URL=proxy.url)
    wait_until(lambda: sandbox.calls()["token_refresh"] == {"200": 2 + WORKERS_POOL}, "all are renewed")
    worker.wait_until_it_says("(PoolTimeout)")
    assert sandbox.report()["in_flight"] == 0
    held.release()
    for account in accounts:
        wait_until(lambda: attempts_of(conn, account) == [("stored", None)], f"{account} is stored")  # noqa: B023
        assert_sandbox_accepts(sandbox, *stored_pair(connected, conn, account))
    assert sandbox.report()["max_concurrent_per_refresh_token"] == 1


@pytest.mark.long
@pytest.mark.fault(
    "server-full-of-connections",
    "others use all of PostgreSQL's max_connections",
    "callers get 503 with Retry-After; the worker waits; all goes on by itself",
)
def test_while_postgresql_gives_no_connection_callers_are_told_to_come_back_and_the_worker_waits(
    processes: Processes,
    postgres_programs: Path | None,
    tmp_path_factory: pytest.TempPathFactory,
    make_services: Callable[[Settings], Services],
    sandbox_settings: Settings,
    sandbox: SandboxProcess,
) -> None:
    settings = {**NOBODY_WAITS_FOR_THE_DISK, "max_connections": str(MAX_CONNECTIONS)}
    folder = tmp_path_factory.mktemp("small-postgres")
    with EmbeddedPostgres(folder, bin_dir=postgres_programs, settings=settings) as server:
        url = server.url
        with psycopg.connect(url, autocommit=True) as conn:
            migrate.migrate(conn)
            headers = {"Authorization": "Bearer " + keys.create(conn, "p", ["tokens:read"], created_by="t")}
            processes.variables["DATABASE_URL"] = url
            services = make_services(replace(sandbox_settings, database_url=url))
            connect_account(services, sandbox)
            services.pool.close()
            others = [conn, *fill(url)]
            try:
                web, worker = processes.web(WEB_CONCURRENCY="1"), processes.worker()
                worker.wait_until_it_says("waiting for the database")
                assert ask(web, headers) == DATABASE_UNAVAILABLE
                assert ask(web, {}, "/healthz") == SERVED
                assert sandbox.calls()["token_refresh"] == {}
            finally:
                for other in others[1:]:
                    other.close()
            worker.wait_until_it_says("the database is back")
            wait_until(lambda: attempts_of(conn) == [("stored", None)], "the account is renewed")
            wait_until(lambda: ask(web, headers) == SERVED, "callers are served")
            assert row(conn)["status"] == "connected"


def fill(url: str) -> list[Conn]:
    """Open connections until the server refuses one."""
    opened: list[Conn] = []
    while len(opened) <= MAX_CONNECTIONS:
        try:
            opened.append(psycopg.connect(url))
        except psycopg.OperationalError as error:
            assert "too many clients" in str(error)  # noqa: PT017 - any number may succeed before
            return opened
    pytest.fail("the server has more connections than it was told")
