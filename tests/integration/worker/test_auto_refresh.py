"""The worker's loop, in this process."""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg_pool import PoolTimeout

from rdservice.config.settings import Settings
from rdservice.encryption import KeyMissing
from rdservice.services import Services
from rdservice.tokens import leases, workers
from rdservice.tokens.refresh import Result
from rdservice.worker.auto_refresh import GATHER_S, LOOK_EVERY_S, auto_refresh_tokens
from rdservice.worker.bell import Bell
from tests.conftest import Clock
from tests.support.accounts import attempts_of, connect_account, row
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]


@contextmanager
def running(services: Services, *, concurrency: int = 8) -> Iterator[Bell]:
    """Run the loop in a thread for the time of the block; its exception is raised at the end."""
    bell = Bell()
    raised: list[BaseException] = []

    def run() -> None:
        try:
            auto_refresh_tokens(services.refresher, bell, concurrency=concurrency)
        except KeyMissing as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield bell
    finally:
        bell.stop()
        thread.join(30)
        assert not thread.is_alive()
    if raised:
        raise raised[0]


def connect_accounts(services: Services, sandbox: SandboxProcess, count: int) -> None:
    for number in range(2, count + 2):
        connect_account(services, sandbox, f"account-{number}", rd_account=f"account-{number}")


def wait_until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, "the condition did not come true"
        threading.Event().wait(0.02)


def renewed(conn: Conn) -> int:
    found = conn.execute("SELECT count(*) FROM rdstation_tokens WHERE stored_claim > 0").fetchone()
    assert found is not None
    return int(found[0])


def test_what_is_due_is_renewed_at_the_first_pass(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_accounts(connected, sandbox, 20)
    with running(connected):
        wait_until(lambda: renewed(conn) == 20)
    assert sandbox.calls()["token_refresh"] == {"200": 20}
    assert sandbox.report()["max_concurrent_per_refresh_token"] == 1


def test_unused_accounts_are_renewed_when_their_time_comes(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    with running(connected):
        conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now() + interval '300 milliseconds'")
        wait_until(lambda: renewed(conn) == 1)


def test_a_row_that_becomes_due_during_a_pause_is_noticed(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    with running(connected):
        wait_until(lambda: workers.seconds_since_last_beat(conn) is not None)
        connect_account(connected, sandbox)
        wait_until(lambda: renewed(conn) == 1, timeout_s=5)


def test_no_more_is_claimed_than_can_be_renewed_at_once(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_accounts(connected, sandbox, 10)
    sandbox.patch(latency_ms=300)
    most = 0
    with running(connected, concurrency=3):
        while renewed(conn) < 10:
            found = conn.execute("SELECT count(*) FROM rdstation_tokens WHERE holder IS NOT NULL").fetchone()
            assert found is not None
            most = max(most, found[0])
    assert 1 <= most <= 3


class Slots(Executor):
    """Renewals that end when the test says so."""

    def __init__(self) -> None:
        self._running: list[Future[Any]] = []

    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        self._running.append(Future())
        return self._running[-1]

    def end_one(self) -> None:
        self._running.pop(0).set_result(Result.STORED)


class ScriptedBell(Bell):
    """During each wait the next thing happens; after the last the loop is stopped. `waits` are the waits' lengths."""

    def __init__(self, happens: list[Callable[[], object]]) -> None:
        super().__init__()
        self._happens = iter(happens)
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        next(self._happens, self.stop)()


def test_a_claim_waits_a_moment_for_more_free_slots_while_more_is_due_than_there_are_slots(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_accounts(connected, sandbox, 12)
    clock, slots = [0.0], Slots()
    refresher = dataclasses.replace(connected.refresher, monotonic=lambda: clock[0])

    def nothing() -> None:
        pass

    def let_the_wait_pass() -> None:
        clock[0] += GATHER_S

    bell = ScriptedBell(
        [nothing, slots.end_one, slots.end_one, nothing, slots.end_one, let_the_wait_pass, slots.end_one]
    )
    auto_refresh_tokens(refresher, bell, concurrency=8, executor=slots)
    leased = conn.execute(
        "SELECT count(*) FROM rdstation_refresh_attempts WHERE reason = 'due' GROUP BY started_at ORDER BY started_at"
    )
    assert [number for (number,) in leased] == [8, 2, 1]
    # All slots are taken; one is free; two are; all are taken; one is free, and nothing more comes; one is free again.
    assert bell.waits == pytest.approx(
        [0, LOOK_EVERY_S, GATHER_S, 0, LOOK_EVERY_S, GATHER_S, 0, GATHER_S], abs=1e-9
    )


def test_what_is_due_alone_is_claimed_at_once(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_accounts(connected, sandbox, 1)
    bell, slots = ScriptedBell([]), Slots()
    auto_refresh_tokens(connected.refresher, bell, concurrency=8, executor=slots)
    assert bell.waits == [0]
    assert row(conn, "account-2")["holder"] is not None


def test_one_bad_account_does_not_hold_up_the_others(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_accounts(connected, sandbox, 6)
    conn.execute(
        "UPDATE rdstation_tokens SET refresh_token = 'garbage' WHERE account_id IN ('account-2', 'account-3')"
    )
    with running(connected, concurrency=1):
        wait_until(lambda: renewed(conn) == 4)


def test_after_a_stop_nothing_is_claimed_and_what_is_in_flight_is_stored(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_accounts(connected, sandbox, 4)
    sandbox.patch(latency_ms=500)
    with running(connected, concurrency=2) as bell:
        wait_until(lambda: sandbox.report()["in_flight"] == 2)
        bell.stop()
    assert renewed(conn) == 2
    assert sandbox.calls()["token_refresh"] == {"200": 2}


def test_a_database_outage_makes_the_loop_wait_and_go_on(
    connected: Services, sandbox: SandboxProcess, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[float] = []
    really_claim = leases.lease_due

    def fail_first(*args: Any, **kwargs: Any) -> Any:
        tries.append(time.monotonic())
        if len(tries) == 1:
            raise psycopg.OperationalError("the server closed the connection")
        if len(tries) == 2:
            raise PoolTimeout("no connection")
        return really_claim(*args, **kwargs)

    monkeypatch.setattr(leases, "lease_due", fail_first)
    connect_account(connected, sandbox)
    with running(connected):
        wait_until(lambda: renewed(conn) == 1)
    assert tries[2] - tries[0] > 3, "an outage must not become a busy loop"


def stranger_to(
    sandbox: SandboxProcess, variables: dict[str, str], make_services: Callable[[Settings], Services]
) -> Services:
    """Return a process that has another encryption key."""
    other_key = {"TOKEN_ENCRYPTION_KEYS": Fernet.generate_key().decode(), "RDSTATION_API_URL": sandbox.url}
    return make_services(Settings.from_mapping(variables | other_key))


def test_a_worker_that_can_open_no_row_ends_and_one_with_the_key_renews_it_after_five_minutes(
    connected: Services,
    sandbox: SandboxProcess,
    variables: dict[str, str],
    make_services: Callable[[Settings], Services],
    conn: Conn,
    clock: Clock,
) -> None:
    connect_account(connected, sandbox)
    with pytest.raises(KeyMissing):
        auto_refresh_tokens(stranger_to(sandbox, variables, make_services).refresher, Bell())
    found = row(conn)
    assert found["holder"] is None
    assert found["undecryptable_until"] > found["now"]
    assert sandbox.calls()["token_refresh"] == {}
    clock.advance(leases.UNDECRYPTABLE_S + 1)
    with running(connected):
        wait_until(lambda: renewed(conn) == 1)


def test_a_worker_that_lacks_the_key_of_some_accounts_says_so_and_renews_the_others(
    connected: Services,
    sandbox: SandboxProcess,
    variables: dict[str, str],
    make_services: Callable[[Settings], Services],
    conn: Conn,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stranger = stranger_to(sandbox, variables, make_services)
    for account_id in ("theirs", "theirs-too"):
        connect_account(stranger, sandbox, account_id)
    before = row(conn, "theirs")
    connect_account(connected, sandbox, "ours")
    with running(connected, concurrency=1):
        wait_until(lambda: renewed(conn) == 1)
        connect_account(connected, sandbox, "another")
        wait_until(lambda: renewed(conn) == 2)
    told = [found.getMessage() for found in caplog.records if "postponed" in found.getMessage()]
    assert len(told) == 1, "once in five minutes"
    assert f"needs key {stranger.keys.key_ids[0]}, which TOKEN_ENCRYPTION_KEYS lacks" in told[0]
    assert before["refresh_token"] not in caplog.text
    assert attempts_of(conn, "theirs") == attempts_of(conn, "theirs-too") == [("released", "key_missing")]
    changed = {"now", "attempted_at", "undecryptable_until"}
    after = row(conn, "theirs")
    assert {name: after[name] for name in before.keys() - changed} == {
        name: before[name] for name in before.keys() - changed
    }


def test_a_pick_after_a_full_one_goes_by_expiry(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_accounts(connected, sandbox, 3)
    for number, hours in ((2, 20), (3, 10), (4, 1)):
        conn.execute(
            "UPDATE rdstation_tokens SET expires_at = rd_now() + make_interval(hours => %s),"
            " refresh_after = rd_now() - make_interval(hours => %s) WHERE account_id = %s",
            [hours, hours, f"account-{number}"],
        )
    with running(connected, concurrency=1):
        wait_until(lambda: renewed(conn) == 3)
    leased = conn.execute("SELECT account_id FROM rdstation_refresh_attempts ORDER BY claim_no").fetchall()
    assert leased == [("account-2",), ("account-4",), ("account-3",)]


def test_the_heartbeat_tells_of_a_living_worker(connected: Services, conn: Conn) -> None:
    assert workers.seconds_since_last_beat(conn) is None
    with running(connected):
        wait_until(lambda: workers.seconds_since_last_beat(conn) is not None)
    age_s = workers.seconds_since_last_beat(conn)
    assert age_s is not None
    assert age_s < 30


def test_a_locked_table_of_the_cache_holds_up_neither_renewals_nor_the_heartbeat(
    connected: Services,
    sandbox: SandboxProcess,
    conn: Conn,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    connect_account(connected, sandbox)
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE rdstation_cache IN ACCESS EXCLUSIVE MODE")
        with running(connected):
            wait_until(lambda: renewed(conn) == 1)
            wait_until(lambda: workers.seconds_since_last_beat(conn) is not None)
            wait_until(lambda: "old rows of rdstation_cache were not deleted" in caplog.text)
            connect_account(connected, sandbox, "another")
            wait_until(lambda: renewed(conn) == 2)
        other.rollback()


def test_an_idle_loop_sleeps(connected: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    really_claim = leases.lease_due

    def count(*args: Any, **kwargs: Any) -> Any:
        looks.append(time.monotonic())
        return really_claim(*args, **kwargs)

    monkeypatch.setattr(leases, "lease_due", count)
    with running(connected):
        wait_until(lambda: len(looks) == 3)
    assert looks[2] - looks[0] > 3


def test_counters_of_failed_attempts_whose_window_is_over_are_removed(
    connected: Services, conn: Conn
) -> None:
    conn.execute(
        "INSERT INTO rdservice_access_failures (subject, failures, window_ends_at)"
        " VALUES ('over', 1, rd_now() - interval '1 s'), ('runs', 1, rd_now() + interval '1 min')"
    )
    subjects = "SELECT array_agg(subject) FROM rdservice_access_failures"
    with running(connected):
        wait_until(lambda: conn.execute(subjects).fetchone() == ([b"runs"],))


def test_the_loop_makes_second_looks_when_nothing_is_due(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox)
    conn.execute(
        "UPDATE rdstation_tokens SET status = 'reauthorization_required', last_error = 'revoked',"
        " second_look_at = rd_now()"
    )
    with running(connected):
        wait_until(lambda: renewed(conn) == 1)
    assert conn.execute("SELECT reason FROM rdstation_refresh_attempts").fetchall() == [("second_look",)]
    assert row(conn)["status"] == "connected"
