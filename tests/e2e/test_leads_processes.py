"""Leads through real web processes that share one table."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import requests

from rdservice.services import Services
from tests.conftest import Clock
from tests.support.accounts import connect_account
from tests.support.processes import Processes, Web
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

CALLERS = 60
LEADS = "/rd/leads?segmentation=1"


@pytest.fixture
def webs(processes: Processes) -> list[Web]:
    """Two gunicorns with two workers each."""
    return [processes.web(), processes.web()]


@pytest.fixture
def pair(connected: Services, sandbox: SandboxProcess) -> dict[str, Any]:
    return connect_account(connected, sandbox, due=False)


def ask_all(webs: list[Web], headers: dict[str, str], path: str) -> list[requests.Response]:
    """Ask with all callers at once."""

    def ask(number: int) -> requests.Response:
        return requests.get(webs[number % len(webs)].url + path, headers=headers, timeout=30)

    with ThreadPoolExecutor(CALLERS) as callers:
        return list(callers.map(ask, range(CALLERS)))


def test_sixty_callers_of_four_processes_who_miss_cause_one_call(
    webs: list[Web], sandbox: SandboxProcess, pair: dict[str, Any], authorized: dict[str, str]
) -> None:
    sandbox.patch(latency_ms=300)
    responses = ask_all(webs, authorized, "/rd/leads")
    assert [response.status_code for response in responses] == [200] * CALLERS
    assert (
        len({response.content for response in responses})
        == len({response.headers["ETag"] for response in responses})
        == 1
    )
    assert sandbox.calls()["contacts_list"] == {"200": 1}
    assert sandbox.calls()["segmentations_list"] == {"200": 1}
    states = Counter(response.headers["X-Cache"] for response in ask_all(webs, authorized, "/rd/leads"))
    assert states == {"hit": CALLERS}
    assert sandbox.calls()["contacts_list"] == {"200": 1}


@pytest.mark.fault(
    "rdstation-fails-for-leads",
    "RD Station fails while many callers want leads",
    "one call for all; old leads are served as stale",
)
def test_a_failing_call_is_shared_by_all_callers_and_old_leads_cover_it(
    webs: list[Web], sandbox: SandboxProcess, pair: dict[str, Any], authorized: dict[str, str], clock: Clock
) -> None:
    failing = {"operation": "contacts_list", "kind": "status", "status": 500}
    sandbox.patch(latency_ms=300, faults=[failing])
    responses = ask_all(webs, authorized, LEADS)
    assert {(response.status_code, response.json()["code"]) for response in responses} == {
        (502, "rdstation_failed")
    }
    assert sandbox.calls()["contacts_list"] == {"500": 1}

    sandbox.patch(faults=[])
    clock.advance(3)
    fresh = requests.get(webs[0].url + LEADS, headers=authorized, timeout=30)
    assert fresh.headers["X-Cache"] == "miss"
    sandbox.patch(faults=[failing])
    clock.advance(1_000)
    stale = [
        response
        for response in ask_all(webs, authorized, LEADS)
        # The one process that fetched it has it in its memory, whose clock nobody sets forward.
        if response.headers["X-Cache"] != "hit"
    ]
    assert stale
    for response in stale:
        assert (response.status_code, response.headers["X-Cache"]) == (200, "stale")
        assert response.content == fresh.content
        assert int(response.headers["Age"]) >= 1_000
    wait_until(lambda: sandbox.calls()["contacts_list"].get("500") == 2, "the renewal fails once")


def test_a_row_deleted_by_sql_ends_the_leads_of_all_processes_within_a_second(
    processes: Processes,
    connected: Services,
    sandbox: SandboxProcess,
    pair: dict[str, Any],
    authorized: dict[str, str],
    conn: psycopg.Connection[Any],
) -> None:
    webs = [processes.web()]
    before = {response.content for response in ask_all(webs, authorized, LEADS)}
    conn.execute("DELETE FROM rdstation_tokens WHERE account_id='default'")

    def all_refuse() -> bool:
        responses = ask_all(webs, authorized, LEADS)
        return all(response.status_code == 409 for response in responses)

    # A second, and what sixty requests take on a busy machine.
    wait_until(all_refuse, "every process answers 409", seconds=1.0 + 4.0)
    connect_account(connected, sandbox, rd_account="account-2", due=False)
    after = ask_all(webs, authorized, LEADS)
    assert {response.status_code for response in after} == {200}
    assert len({response.content for response in after}) == 1
    assert not {response.content for response in after} & before


@pytest.mark.fault(
    "token-refused-for-leads",
    "RD Station refuses a token that should live",
    "one exchange for all callers; they get leads",
)
def test_a_token_that_rd_station_refuses_is_renewed_once_for_all_callers(
    processes: Processes, sandbox: SandboxProcess, pair: dict[str, Any], authorized: dict[str, str]
) -> None:
    webs = [processes.web()]
    sandbox.patch(replaced_access_tokens_die=True, latency_ms=100)
    body = {
        "client_id": sandbox.client_id,
        "client_secret": sandbox.client_secret,
        "refresh_token": pair["refresh_token"],
    }
    requests.post(f"{sandbox.url}/auth/token", json=body, timeout=10).raise_for_status()
    responses = ask_all(webs, authorized, LEADS)
    assert [response.status_code for response in responses] == [200] * CALLERS
    assert sandbox.calls()["contacts_list"] == {"401": 1, "200": 1}
    assert sandbox.calls()["token_refresh"] == {"200": 2}  # one of them by the test


@pytest.mark.fault(
    "kill-9-fetching-leads",
    "a web process is killed while it fetches leads",
    "others wait no longer than its lease",
)
def test_a_process_killed_while_it_fetches_holds_the_others_up_no_longer_than_its_lease(
    processes: Processes,
    sandbox: SandboxProcess,
    pair: dict[str, Any],
    authorized: dict[str, str],
    clock: Clock,
) -> None:
    webs = [processes.web(WEB_CONCURRENCY="1") for _ in range(2)]
    sandbox.patch(faults=[{"operation": "contacts_list", "kind": "timeout"}])
    with ThreadPoolExecutor(1) as caller:
        asking = caller.submit(requests.get, webs[0].url + LEADS, headers=authorized, timeout=30)
        wait_until(lambda: sandbox.report()["in_flight"], "the call is under way")
        webs[0].kill()
        assert isinstance(asking.exception(), requests.ConnectionError)
    sandbox.patch(faults=[])
    with ThreadPoolExecutor(1) as caller:
        asking = caller.submit(requests.get, webs[1].url + LEADS, headers=authorized, timeout=30)
        assert sandbox.calls()["contacts_list"] == {"none": 1}
        clock.advance(41)
        assert asking.result().status_code == 200
    assert sandbox.calls()["contacts_list"] == {"none": 1, "200": 1}
