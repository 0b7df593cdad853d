"""`python -m worker`: what it renews, how many at once, how it ends, and what it does without its database."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import requests
from cryptography.fernet import Fernet

from rdservice.config.settings import EXIT_CONFIG
from rdservice.database import migrate
from rdservice.encryption import KeyRing
from rdservice.services import Services
from rdservice.tokens import store
from rdservice.worker.auto_refresh import CONCURRENCY, LOOK_EVERY_S
from rdservice.worker.run import END_AT_LATEST_S
from scripts.local.embedded_postgres import EmbeddedPostgres
from tests.support.accounts import attempts_of, connect_account, row, stored_pair
from tests.support.processes import Processes
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


def test_the_first_pass_is_made_at_the_start(
    processes: Processes, connected: Services, sandbox: SandboxProcess, conn: psycopg.Connection[Any]
) -> None:
    connect_account(connected, sandbox)
    processes.worker()
    wait_until(lambda: attempts_of(conn) == [("stored", None)], "the account that was due is renewed")


def test_an_upload_is_noticed_at_the_next_look(
    processes: Processes,
    connected: Services,
    sandbox: SandboxProcess,
    conn: psycopg.Connection[Any],
    authorized: dict[str, str],
) -> None:
    web = processes.web()
    worker = processes.worker()
    worker.wait_until_it_says("started")
    uploaded = sandbox.pair()
    response = requests.post(f"{web.url}/rd/tokens", json=uploaded, headers=authorized, timeout=20)
    assert response.status_code == 200, response.text
    wait_until(
        lambda: attempts_of(conn) == [("stored", None)],
        "the uploaded pair is renewed",
        # Twice what it should take: this is no measurement.
        seconds=2 * LOOK_EVERY_S + 2,
    )
    assert row(conn)["status"] == "connected"
    assert stored_pair(connected, conn)[1] == uploaded["refresh_token"]


def test_a_worker_holds_no_more_accounts_than_it_renews_at_once(
    processes: Processes, connected: Services, sandbox: SandboxProcess, conn: psycopg.Connection[Any]
) -> None:
    connect_many(connected, sandbox, conn, 100)
    sandbox.patch(latency_ms=300)
    processes.worker()
    most_held = most_in_flight = 0

    def all_renewed() -> bool:
        nonlocal most_held, most_in_flight
        held, stored = numbers(
            conn,
            "SELECT (SELECT count(*) FROM rdstation_tokens WHERE leased_until > rd_now()),"
            " (SELECT count(*) FROM rdstation_refresh_attempts WHERE outcome = 'stored')",
        )
        most_held = max(most_held, held)
        most_in_flight = max(most_in_flight, sandbox.report()["in_flight"])
        return stored == 100

    wait_until(all_renewed, "100 accounts are renewed")
    assert 1 < most_in_flight <= CONCURRENCY
    assert most_held <= CONCURRENCY
    assert sandbox.calls()["token_refresh"] == {"200": 100}


def test_two_workers_share_the_accounts_and_never_exchange_one_token_at_once(
    processes: Processes, connected: Services, sandbox: SandboxProcess, conn: psycopg.Connection[Any]
) -> None:
    workers = [processes.worker(), processes.worker()]
    for worker in workers:
        worker.wait_until_it_says("started")
    connect_many(connected, sandbox, conn, 200)
    # One worker alone would be busy for longer than the pause after which the other looks again.
    sandbox.patch(latency_ms=800)
    conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now()")

    stored = "SELECT count(*) FROM rdstation_refresh_attempts WHERE outcome = 'stored'"
    wait_until(lambda: numbers(conn, stored) == (200,), "200 accounts are renewed")
    shares = conn.execute(
        "SELECT claimed_by, count(*) FROM rdstation_refresh_attempts GROUP BY claimed_by"
    ).fetchall()
    assert len(shares) == 2
    assert sandbox.calls()["token_refresh"] == {"200": 200}
    assert sandbox.report()["max_concurrent_per_refresh_token"] == 1


@pytest.mark.fault(
    "sigterm-worker",
    "SIGTERM to a worker with 32 exchanges in flight",
    "all 32 answers are stored, nothing new begins, it ends in time with status 0",
)
def test_sigterm_starts_nothing_new_and_stores_what_is_in_flight(
    processes: Processes, connected: Services, sandbox: SandboxProcess, conn: psycopg.Connection[Any]
) -> None:
    connect_many(connected, sandbox, conn, 2 * CONCURRENCY)
    sandbox.patch(latency_ms=1_500, rotate_refresh_tokens=True)
    worker = processes.worker()
    wait_until(lambda: sandbox.report()["in_flight"] == CONCURRENCY, "all slots are in use")
    worker.send(signal.SIGTERM)

    assert worker.ended(END_AT_LATEST_S) == 0, worker.log
    outcomes = conn.execute(
        "SELECT outcome, count(*) FROM rdstation_refresh_attempts GROUP BY outcome"
    ).fetchall()
    assert outcomes == [("stored", CONCURRENCY)]
    assert sandbox.calls()["token_refresh"] == {"200": CONCURRENCY}
    assert numbers(conn, "SELECT count(*) FROM rdstation_tokens WHERE holder IS NOT NULL") == (0,)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_worker_ends_at_once_with_status_0(
    processes: Processes, sandbox: SandboxProcess, number: signal.Signals
) -> None:
    worker = processes.worker()
    worker.wait_until_it_says("started")
    worker.send(number)
    assert worker.ended(10) == 0, worker.log


@pytest.mark.fault(
    "encryption-key-missing",
    "a worker runs without the key of the stored tokens",
    "no token is spent; it ends with status 78; a worker with the key renews",
)
def test_without_the_encryption_key_the_row_is_only_put_off_and_the_status_is_78(
    processes: Processes, connected: Services, sandbox: SandboxProcess, conn: psycopg.Connection[Any]
) -> None:
    connect_account(connected, sandbox)
    before = row(conn)
    worker = processes.worker(TOKEN_ENCRYPTION_KEYS=Fernet.generate_key().decode())

    assert worker.ended() == EXIT_CONFIG
    assert connected.keys.key_ids[0] in worker.log
    assert "TOKEN_ENCRYPTION_KEYS" in worker.log
    after = row(conn)
    # `now` is no column.
    changed = {"now", "attempted_at", "undecryptable_until"}
    assert {name: after[name] for name in after.keys() - changed} == {
        name: before[name] for name in before.keys() - changed
    }
    assert attempts_of(conn) == [("released", "key_missing")]
    assert sandbox.calls()["token_refresh"] == {}

    processes.worker()
    conn.execute("UPDATE rdstation_tokens SET undecryptable_until = rd_now()")
    wait_until(lambda: attempts_of(conn)[-1] == ("stored", None), "a worker with the key renews it")


@pytest.fixture
def own_postgres(new_postgres: Callable[[], EmbeddedPostgres]) -> Iterator[EmbeddedPostgres]:
    """A server for one test, with the service's tables."""
    with new_postgres() as server:
        with psycopg.connect(server.url, autocommit=True) as conn:
            migrate.migrate(conn)
        yield server


@pytest.mark.fault(
    "postgresql-down-for-the-worker",
    "PostgreSQL is down for a while",
    "the worker waits without using the processor, and goes on by itself",
)
def test_a_worker_outlives_its_database_without_spinning_and_goes_on_by_itself(
    processes: Processes, own_postgres: EmbeddedPostgres, sandbox: SandboxProcess
) -> None:
    pair = sandbox.pair()
    keys = KeyRing([processes.variables["TOKEN_ENCRYPTION_KEYS"].encode()])
    url = own_postgres.url
    worker = processes.worker(DATABASE_URL=url)
    worker.wait_until_it_says("started")

    os.kill(own_postgres.pid or 0, signal.SIGINT)
    wait_until(lambda: not own_postgres.is_running, "the database is down")
    worker.wait_until_it_says("waiting for the database")
    used, began = worker.cpu_seconds(), time.monotonic()
    wait_until(lambda: time.monotonic() - began > 4, "four seconds without a database")
    assert worker.runs, worker.log
    assert worker.cpu_seconds() - used < 1
    assert worker.log.count("waiting for the database") == 1

    own_postgres.start()
    assert own_postgres.url == url
    with psycopg.connect(url, autocommit=True) as conn:
        store.authorize(
            conn,
            keys,
            "default",
            access_token=pair["access_token"],
            refresh_token=pair["refresh_token"],
            expires_in_s=pair["expires_in"],
            verified=True,
            proven=False,
        )
        wait_until(lambda: attempts_of(conn) == [("stored", None)], "the worker goes on")
    worker.send(signal.SIGTERM)
    assert worker.ended() == 0, worker.log


def connect_many(
    connected: Services, sandbox: SandboxProcess, conn: psycopg.Connection[Any], number: int
) -> None:
    """Connect `number` accounts, each with a refresh token of its own, all due at once."""
    with ThreadPoolExecutor(4) as executor:
        list(
            executor.map(
                lambda n: connect_account(connected, sandbox, f"account-{n}", due=False), range(number)
            )
        )
    conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now()")


def numbers(conn: psycopg.Connection[Any], query: str) -> tuple[int, ...]:
    found = conn.execute(query.encode()).fetchone()
    assert found is not None
    return tuple(found)
