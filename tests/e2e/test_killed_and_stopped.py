"""A worker that dies or stands still in the middle of an exchange: who may start another, and whose answer counts."""

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import jwt
import psycopg
import pytest
import requests

from rdservice.rdstation.client import EXCHANGE_DEADLINE_S
from rdservice.services import Services
from rdservice.tokens.leases import LEASE_S
from tests.conftest import Clock
from tests.support.accounts import assert_sandbox_accepts, attempts_of, connect_account, row, stored_pair
from tests.support.processes import Processes, ServiceProcess
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

SLOW_MS = 1_000
"""Long enough to stop or kill a process while its exchange is in flight."""
Conn = psycopg.Connection[Any]


@dataclass(frozen=True)
class Stage:
    """The account `default`, due for refresh at the sandbox, and processes that the test starts."""

    processes: Processes
    services: Services
    sandbox: SandboxProcess
    conn: Conn
    pair: dict[str, Any]
    """What the account was connected with."""

    def worker_in_an_exchange(self) -> ServiceProcess:
        """Start a worker; return it while RD Station is about to answer the first account that is due."""
        self.sandbox.patch(latency_ms=SLOW_MS)
        worker = self.processes.worker()
        wait_until(lambda: self.sandbox.report()["in_flight"] > 0, "an exchange is in flight")
        return worker

    def connect_again(self, **options: Any) -> dict[str, Any]:
        """Connect the account as an operator does; its token is good for a day."""
        return connect_account(self.services, self.sandbox, due=False, **options)

    def stored_pair(self) -> tuple[str, str]:
        return stored_pair(self.services, self.conn)

    def assert_sandbox_accepts_the_stored_pair(self) -> None:
        assert_sandbox_accepts(self.sandbox, *self.stored_pair())


@pytest.fixture
def stage(processes: Processes, connected: Services, sandbox: SandboxProcess, conn: Conn) -> Stage:
    return Stage(processes, connected, sandbox, conn, connect_account(connected, sandbox))


def test_kill_9_between_exchange_and_store_delays_the_account_by_no_more_than_a_lease(
    stage: Stage, clock: Clock
) -> None:
    stage.worker_in_an_exchange().kill()
    stage.sandbox.patch(latency_ms=0)
    left = row(stage.conn)
    assert left["leased_until"] - left["attempted_at"] == timedelta(seconds=LEASE_S)

    clock.advance(LEASE_S - 10)
    stage.processes.worker()
    assert_workers_pass_over(stage)
    assert (
        stage.sandbox.calls()["token_refresh"]["200"] == 2
    )  # the killed one's, and that of the account beside it
    assert stage.stored_pair() == (stage.pair["access_token"], stage.pair["refresh_token"])

    clock.advance(LEASE_S + 1)
    wait_until(lambda: attempts_of(stage.conn) == [(None, None), ("stored", None)], "the account is renewed")
    assert row(stage.conn)["status"] == "connected"
    assert stage.sandbox.report()["max_concurrent_per_refresh_token"] == 1


@pytest.mark.fault(
    "sigstop-past-the-lease",
    "a worker stands still past its lease with an exchange in flight, then goes on",
    "its good answer is stored",
)
@pytest.mark.parametrize("rotate", [False, True], ids=["lasting", "rotating"])
def test_a_process_stopped_past_its_lease_stores_its_good_answer(
    stage: Stage, clock: Clock, rotate: bool
) -> None:
    stage.sandbox.patch(rotate_refresh_tokens=rotate)
    worker = stage.worker_in_an_exchange()
    with worker.stopped():
        stage.sandbox.wait_until("in_flight")
        clock.advance(LEASE_S + 1)

    # Awake again it may also find its own account due, as its lease is over: that changes nothing for this answer.
    wait_until(lambda: attempts_of(stage.conn)[0] == ("stored", None), "the answer is stored")
    access_token, refresh_token = stage.stored_pair()
    assert row(stage.conn)["status"] == "connected"
    assert access_token != stage.pair["access_token"]
    assert (refresh_token != stage.pair["refresh_token"]) == rotate
    assert_sandbox_accepts(stage.sandbox, access_token, refresh_token)


@pytest.mark.fault(
    "sigstop-past-the-deadline",
    "a worker stands still for longer than an exchange may take; the answer waits in its socket",
    "its good answer, which holds the only rotated token, is stored",
)
def test_a_process_stopped_for_longer_than_an_exchange_may_take_stores_its_good_answer(
    stage: Stage, clock: Clock
) -> None:
    """The answer waits in the socket; no exchange may run for so long, and yet this one holds the only good token."""
    stage.sandbox.patch(rotate_refresh_tokens=True)
    worker = stage.worker_in_an_exchange()
    with worker.stopped():
        stage.sandbox.wait_until("in_flight")
        clock.advance(LEASE_S + 1)
        stopped_at = time.monotonic()
        wait_until(
            lambda: time.monotonic() - stopped_at > EXCHANGE_DEADLINE_S + 1,
            "the deadline of the exchange has passed",
            seconds=EXCHANGE_DEADLINE_S + 5,
        )

    wait_until(lambda: attempts_of(stage.conn)[0] == ("stored", None), "the answer is stored")
    assert row(stage.conn)["status"] == "connected"
    stage.assert_sandbox_accepts_the_stored_pair()


@pytest.mark.fault(
    "sigstop-while-another-is-refused",
    "a worker stands still past its lease; another is refused the token that the first has rotated",
    "nobody is called; the first answer is stored and lifts the refusal",
)
def test_the_only_good_answer_of_a_stopped_process_is_stored_although_another_was_refused_meanwhile(
    stage: Stage, clock: Clock
) -> None:
    stage.sandbox.patch(rotate_refresh_tokens=True)
    worker = stage.worker_in_an_exchange()
    with worker.stopped():
        stage.sandbox.patch(latency_ms=0)
        stage.sandbox.wait_until("in_flight")
        clock.advance(LEASE_S + 1)
        second = stage.processes.worker()
        # A refresh token that a lost answer may have used up: no operator is called for that.
        wait_until(lambda: row(stage.conn)["last_error"] == "answer_lost", "the second worker was refused")
        assert row(stage.conn)["status"] == "connected"
        second.kill()

    wait_until(lambda: attempts_of(stage.conn)[0] == ("stored", None), "the first worker's answer is stored")
    assert row(stage.conn)["status"] == "connected"
    assert row(stage.conn)["last_error"] is None
    stage.assert_sandbox_accepts_the_stored_pair()


@pytest.mark.fault(
    "sigstop-while-another-renews",
    "a worker stands still past its lease; another renews meanwhile",
    "the older answer is not stored",
)
def test_an_old_answer_does_not_overwrite_that_of_a_later_claim(stage: Stage, clock: Clock) -> None:
    worker = stage.worker_in_an_exchange()
    with worker.stopped():
        stage.sandbox.patch(latency_ms=0)
        clock.advance(LEASE_S + 1)
        second = stage.processes.worker()
        wait_until(lambda: ("stored", None) in attempts_of(stage.conn), "the second worker has renewed")
        second.kill()
        newer = stage.stored_pair()

    wait_until(lambda: attempts_of(stage.conn)[0][0] is not None, "the first worker has its answer")
    assert attempts_of(stage.conn) == [("superseded", None), ("stored", None)]
    assert stage.stored_pair() == newer


@pytest.mark.fault(
    "sigstop-while-an-operator-connects",
    "a worker stands still while an operator connects the account anew",
    "the older answer is not stored",
)
def test_an_old_answer_does_not_overwrite_a_newer_authorization(stage: Stage) -> None:
    worker = stage.worker_in_an_exchange()
    with worker.stopped():
        newer = stage.connect_again()
        stage.sandbox.wait_until("in_flight")

    wait_until(lambda: attempts_of(stage.conn) == [("superseded", None)], "the worker has its answer")
    assert stage.stored_pair() == (newer["access_token"], newer["refresh_token"])
    assert row(stage.conn)["leased_until"] is None


def test_an_old_answer_does_not_overwrite_a_new_connection_after_a_delete(stage: Stage) -> None:
    before = row(stage.conn)
    worker = stage.worker_in_an_exchange()
    with worker.stopped():
        stage.conn.execute("DELETE FROM rdstation_tokens WHERE account_id='default'")
        newer = stage.connect_again(rd_account="account-2")
        stage.sandbox.wait_until("in_flight")

    wait_until(lambda: attempts_of(stage.conn) == [("superseded", None)], "the worker has its answer")
    assert stage.stored_pair() == (newer["access_token"], newer["refresh_token"])
    assert row(stage.conn)["connection_id"] != before["connection_id"]


def test_an_answer_does_not_bring_a_deleted_account_back(stage: Stage) -> None:
    worker = stage.worker_in_an_exchange()
    with worker.stopped():
        stage.conn.execute("DELETE FROM rdstation_tokens WHERE account_id='default'")
        stage.sandbox.wait_until("in_flight")

    wait_until(lambda: attempts_of(stage.conn) == [("superseded", None)], "the worker has its answer")
    assert stage.conn.execute("SELECT count(*) FROM rdstation_tokens").fetchone() == (0,)
    assert worker.runs


@pytest.mark.fault(
    "sigstop-while-a-pair-is-uploaded",
    "a worker stands still while a program uploads a pair, twice",
    "the upload wins and is proven; the second changes nothing",
)
def test_an_upload_during_a_refresh_wins_and_the_same_pair_again_changes_nothing(
    stage: Stage, authorized: dict[str, str]
) -> None:
    web = stage.processes.web()
    uploaded = stage.sandbox.pair()

    def upload() -> dict[str, Any]:
        response = requests.post(f"{web.url}/rd/tokens", json=uploaded, headers=authorized, timeout=20)
        assert response.status_code == 200, response.text
        state: dict[str, Any] = response.json()
        return state

    worker = stage.worker_in_an_exchange()
    with worker.stopped():
        stage.sandbox.patch(latency_ms=0)
        first = upload()
        stored = row(stage.conn)
        again = upload()
        assert again == first
        now = row(stage.conn)
        assert {**now, "now": None} == {**stored, "now": None}
        stage.sandbox.wait_until("in_flight")

    # The old answer counts for nothing, and the uploaded refresh token is proven at once.
    wait_until(
        lambda: attempts_of(stage.conn) == [("superseded", None), ("stored", None)], "the upload is proven"
    )
    access_token, refresh_token = stage.stored_pair()
    assert refresh_token == uploaded["refresh_token"]
    assert grant_of(access_token) == grant_of(uploaded["access_token"])

    proven = row(stage.conn)
    upload_again = {**uploaded, "access_token": access_token}
    response = requests.post(f"{web.url}/rd/tokens", json=upload_again, headers=authorized, timeout=20)
    assert response.status_code == 200
    assert {**row(stage.conn), "now": None} == {**proven, "now": None}


def assert_workers_pass_over(stage: Stage) -> None:
    """Show by another account that a worker looks for due accounts, and that `default` is not among them."""
    connect_account(stage.services, stage.sandbox, "beside")
    wait_until(lambda: attempts_of(stage.conn, "beside") != [], "a worker looks for due accounts")
    wait_until(
        lambda: attempts_of(stage.conn, "beside")[0][0] is not None, "it has renewed the other account"
    )
    assert attempts_of(stage.conn) == [(None, None)]


def grant_of(access_token: str) -> int:
    """Return the number of the consent at the sandbox that an access token comes from."""
    grant: int = jwt.decode(access_token, options={"verify_signature": False})["grant"]
    return grant
