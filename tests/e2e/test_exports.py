"""Exports of the real web processes: cut off rather than incomplete, ended with their caller, small in memory."""

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from tests.support.accounts import connect_account
from tests.support.processes import Processes, Web
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

EXPORT = "/rd/leads/export"
LEADS = 200_000


@pytest.fixture
def web(processes: Processes, sandbox: SandboxProcess, connected: Any) -> Web:
    """One web process; everything that it may call at once is a page every half second."""
    sandbox.patch(leads=LEADS)
    connect_account(connected, sandbox, due=False)
    return processes.web(WEB_CONCURRENCY="1")


@contextlib.contextmanager
def export(web: Web, headers: dict[str, str], **query: str) -> Iterator[requests.Response]:
    with requests.get(web.url + EXPORT, headers=headers, params=query, stream=True, timeout=30) as response:
        assert response.status_code == 200, response.text
        yield response


def cut_off(response: requests.Response) -> list[dict[str, Any]]:
    """Read until the connection is cut; return the leads of complete lines."""
    arrived: list[dict[str, Any]] = []
    lines = response.iter_lines()
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        arrived.extend(map(json.loads, lines))
    return arrived


def test_an_export_ends_within_seconds_after_its_caller_has_gone(
    web: Web, authorized: dict[str, str], sandbox: SandboxProcess
) -> None:
    def begins() -> bool:
        url = f"{web.url}{EXPORT}?segmentation=1"
        with requests.get(url, headers=authorized, stream=True, timeout=30) as response:
            return response.status_code == 200 and bool(next(response.iter_lines()))

    # More than may run at once: each gives its place back.
    for _ in range(6):
        wait_until(begins, "an earlier export has given its place back", seconds=10)
    wait_until(lambda: _stands_still(sandbox), "nothing is read any more", seconds=10)


def _stands_still(sandbox: SandboxProcess) -> bool:
    """Return whether no page is read for a second, in which an export reads two."""
    before = sandbox.calls()["contacts_list"]
    time.sleep(1.2)
    return sandbox.calls()["contacts_list"] == before


def test_sigterm_cuts_an_export_off_and_it_goes_on_elsewhere(
    processes: Processes, web: Web, authorized: dict[str, str], sandbox: SandboxProcess
) -> None:
    sandbox.patch(leads=2_000)
    with export(web, authorized) as response:
        web.send(signal.SIGTERM)
        arrived = cut_off(response)
    assert web.ended() == 0
    assert 0 < len(arrived) < 2_000
    other = processes.web(WEB_CONCURRENCY="1")
    with export(other, authorized, after=f"{arrived[-1]['created_at']},{arrived[-1]['uuid']}") as response:
        arrived += [json.loads(line) for line in response.iter_lines()]
    assert len(arrived) == len({lead["uuid"] for lead in arrived}) == 2_000


def test_an_export_that_fails_in_the_middle_is_no_complete_answer(
    web: Web, authorized: dict[str, str], sandbox: SandboxProcess
) -> None:
    with export(web, authorized) as response:
        sandbox.patch(faults=[{"operation": "contacts_list", "kind": "status", "status": 403}])
        assert cut_off(response)
    wait_until(lambda: "an export was cut off: rdstation_failed" in web.log, "the log says why")
    assert "Traceback" not in web.log


def test_a_long_export_takes_less_than_20_mb(
    processes: Processes, authorized: dict[str, str], sandbox: SandboxProcess, connected: Any
) -> None:
    sandbox.patch(leads=100_000, rate_limit=None)
    connect_account(connected, sandbox, due=False)
    web = processes.web(WEB_CONCURRENCY="1", RDSTATION_RATE_LIMIT="100000")
    with export(web, authorized, segmentation="10") as response:
        assert response.content == b""
    [worker] = web.workers
    before, most, leads = _resident(worker), 0, 0
    with export(web, authorized) as response:
        for chunk in response.iter_content(None):
            leads += chunk.count(b"\n")
            most = max(most, _resident(worker))
    assert leads == 100_000
    assert most - before < 20_000_000


def _resident(pid: int) -> int:
    """Bytes of memory, from proc(5)."""
    [line] = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")
    ]
    return int(line.split()[1]) * 1024


def test_an_export_holds_no_database_connection(
    web: Web, authorized: dict[str, str], conn: psycopg.Connection[Any]
) -> None:
    with export(web, authorized) as response:
        # Nobody reads on: the process waits to write, or for the budget.
        next(response.iter_lines())
        busy = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' AND datname = current_database()"
        wait_until(lambda: conn.execute(busy).fetchone() == (0,), "no transaction is open")
