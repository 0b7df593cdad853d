"""A person who was erased comes back from no cache of the real web processes."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
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

Conn = psycopg.Connection[Any]

LIST = "/rd/leads?segmentation=1"
ERASE = "/rd/privacy/erase"
OUTAGE = {"operation": "*", "kind": "status", "status": 503}


@pytest.fixture
def webs(processes: Processes, connected: Services, sandbox: SandboxProcess) -> list[Web]:
    """Two web processes over one connected account."""
    connect_account(connected, sandbox, due=False)
    return [processes.web(WEB_CONCURRENCY="1") for _ in range(2)]


@pytest.fixture
def lead(webs: list[Web], authorized: dict[str, str]) -> dict[str, Any]:
    """A lead that both processes have in memory, in all ways in which it can be had."""
    found: dict[str, Any] = ask(webs[0], authorized, LIST).json()["contacts"][5]
    for web in webs:
        for path in paths_of(found):
            assert found["email"].encode() in ask(web, authorized, path).content
            assert ask(web, authorized, path).headers["X-Cache"] == "hit"
    return found


def paths_of(lead: dict[str, Any]) -> list[str]:
    return [LIST, f"/rd/leads/{lead['uuid']}", f"/rd/leads/email/{lead['email']}"]


def ask(web: Web, headers: dict[str, str], path: str) -> requests.Response:
    return requests.get(web.url + path, headers=headers, timeout=30)


def kept(conn: Conn) -> list[datetime]:
    """Return when each of the stored answers was fetched."""
    rows = conn.execute("SELECT fetched_at FROM rdstation_cache WHERE value IS NOT NULL ORDER BY 1")
    return [fetched_at for (fetched_at,) in rows]


def test_neither_warm_memory_nor_a_stale_copy_brings_the_person_back_during_an_outage(
    webs: list[Web],
    processes: Processes,
    sandbox: SandboxProcess,
    lead: dict[str, Any],
    authorized: dict[str, str],
    conn: Conn,
    clock: Clock,
) -> None:
    sandbox.patch(faults=[OUTAGE])
    for web in webs:
        for path in paths_of(lead):
            # Without an erasure the outage is covered by what is kept.
            assert lead["email"].encode() in ask(web, authorized, path).content
    told = json.loads(processes.flask("privacy", "erase", "-", "--yes", text=lead["email"].upper() + "\n"))
    assert told["removed"]["cached_answers"] >= 3
    assert (told["left"], told["unreadable"], told["fetched_again"]) == (0, 0, 0)
    for web in webs:
        for path in paths_of(lead):
            response = ask(web, authorized, path)
            assert (response.status_code, response.json()["code"]) == (502, "rdstation_failed")
            assert lead["email"].encode() not in response.content
    assert kept(conn) == []
    clock.advance(5_000)
    for web in webs:
        assert ask(web, authorized, LIST).status_code == 502
    log = "".join(web.log for web in webs)
    assert lead["email"] not in log


def test_a_fetch_that_was_under_way_is_thrown_away(
    webs: list[Web],
    sandbox: SandboxProcess,
    lead: dict[str, Any],
    authorized: dict[str, str],
    conn: Conn,
) -> None:
    page = LIST + "&page_size=50"
    before = sandbox.calls()["contacts_list"]["200"]
    sandbox.patch(latency_ms=2_500)
    with ThreadPoolExecutor(1) as caller:
        asking = caller.submit(ask, webs[0], authorized, page)
        wait_until(lambda: sandbox.report()["in_flight"], "the fetch is under way")
        erasing = requests.post(
            webs[1].url + ERASE, headers=authorized, json={"email": lead["email"]}, timeout=30
        )
        assert erasing.status_code == 200, erasing.text
        assert sandbox.report()["in_flight"], "the fetch is still under way"
        assert (erasing.json()["left"], kept(conn)) == (0, [])
        [erased_at] = conn.execute("SELECT rd_now()").fetchone() or [None]
        sandbox.patch(latency_ms=0)
        assert asking.result().status_code == 200
    # Its own caller got what RD Station says after the erasure, and only that is kept.
    assert sandbox.calls()["contacts_list"]["200"] == before + 2
    [fetched_at] = kept(conn)
    assert erased_at is not None
    assert fetched_at > erased_at


def test_renewal_in_the_background_that_began_before_brings_nothing_back(
    webs: list[Web],
    sandbox: SandboxProcess,
    lead: dict[str, Any],
    authorized: dict[str, str],
    conn: Conn,
    processes: Processes,
    clock: Clock,
) -> None:
    clock.advance(5_000)
    sandbox.patch(latency_ms=2_500)
    third = processes.web(WEB_CONCURRENCY="1")
    assert ask(third, authorized, LIST).headers["X-Cache"] == "stale"
    wait_until(lambda: sandbox.report()["in_flight"], "the renewal is under way")
    told = requests.post(third.url + ERASE, headers=authorized, json={"email": lead["email"]}, timeout=30)
    assert told.json()["left"] == 0
    sandbox.patch(faults=[OUTAGE], latency_ms=0)
    sandbox.wait_until("in_flight")
    for web in (*webs, third):
        assert ask(web, authorized, LIST).status_code == 502
    assert kept(conn) == []
