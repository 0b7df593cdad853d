"""Several web processes and workers together: one sum, which agrees with what RD Station saw."""

import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import requests

from rdservice.access import keys
from rdservice.config.settings import Settings
from rdservice.services import Services
from rdservice.web import create_app
from tests.support.accounts import connect_account
from tests.support.processes import Processes, Web
from tests.support.sandbox_process import SandboxProcess
from tests.support.scraping import Scrape, parse, scrape
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

REQUESTS = "rdstation_api_requests_total"
DURATIONS = "flask_http_request_duration_seconds_count"
TOKEN_ROUTE = "/rd/tokens/<account_id>/access-token"
REFRESH_ROUTE = "/rd/tokens/<account_id>/refresh"
ACCOUNTS = 24


def by_class(calls: dict[str, dict[str, int]]) -> dict[tuple[str, ...], float]:
    """The sandbox's own counts, by operation and class of the status."""
    counted: Counter[tuple[str, ...]] = Counter()
    for operation, results in calls.items():
        for result, number in results.items():
            counted[operation, result if result == "none" else f"{result[0]}xx"] += number
    return dict(counted)


def ask(web: Web, path: str, headers: dict[str, str], *, method: str = "GET") -> int:
    return requests.request(method, web.url + path, headers=headers, timeout=30).status_code


@pytest.fixture
def headers(conn: psycopg.Connection[Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {keys.create(conn, 'a program', list(keys.SCOPES), created_by='test')}"}


def test_two_gunicorns_and_two_workers_agree_with_the_sandbox_and_sigterm_loses_nothing(
    processes: Processes,
    make_services: Callable[[Settings], Services],
    sandbox_settings: Settings,
    sandbox: SandboxProcess,
    headers: dict[str, str],
    conn: psycopg.Connection[Any],
) -> None:
    services = make_services(sandbox_settings)
    names = [f"account-{number}" for number in range(2, ACCOUNTS + 2)]
    for name in names:
        connect_account(services, sandbox, name, rd_account=name)
    # What the tests themselves have called does not count.
    asked_before = by_class(sandbox.calls())
    sandbox.patch(
        faults=[
            {"operation": "token_refresh", "kind": "status", "status": 503, "count": 5},
            {"operation": "token_refresh", "kind": "drop_before", "count": 4},
            {"operation": "token_refresh", "kind": "status", "status": 429, "count": 3},
        ]
    )
    webs = [processes.web(), processes.web()]
    workers = [processes.worker(), processes.worker()]
    paths = [f"/rd/tokens/{name}/access-token" for name in names] * 4
    with ThreadPoolExecutor(8) as executor:
        read = list(executor.map(lambda job: ask(webs[job[0] % 2], job[1], headers), enumerate(paths)))
    assert Counter(read) == {200: len(paths)}
    wait_until(lambda: _all_attempts_ended(conn, ACCOUNTS), "every account was tried")

    def sandbox_saw() -> dict[tuple[str, ...], float]:
        seen = by_class(sandbox.calls())
        return {
            key: seen[key] - asked_before.get(key, 0) for key in seen if seen[key] != asked_before.get(key)
        }

    for web in webs:
        with web.sessions_of_each_worker() as sessions:
            assert len(sessions) == 2
            for session in sessions:
                _wait_for_agreement(session, web, sandbox_saw, len(paths))
    assert {
        ("token_refresh", "2xx"),
        ("token_refresh", "4xx"),
        ("token_refresh", "5xx"),
    } <= sandbox_saw().keys()
    assert sandbox_saw()["token_refresh", "none"] == 4

    # Exchanges of all processes are on their way when they are told to end: eight for callers, the rest by the workers.
    sandbox.patch(latency_ms=6_000, faults=[])
    conn.execute(
        "UPDATE rdstation_tokens SET retry_at = NULL, refresh_after = rd_now()"
        " + CASE WHEN account_id = ANY (%s) THEN interval '1 hour' ELSE interval '0' END",
        [names[:8]],
    )
    with ThreadPoolExecutor(8) as executor:
        refreshes = [
            executor.submit(ask, webs[number % 2], f"/rd/tokens/{name}/refresh", headers, method="POST")
            for number, name in enumerate(names[:8])
        ]
        wait_until(lambda: sandbox.report()["in_flight"] >= ACCOUNTS, "all exchanges are in flight")
        for process in (*webs, *workers):
            process.send(signal.SIGTERM)
        refreshed = [refresh.result() for refresh in refreshes]
    assert Counter(refreshed) == {200: 8}
    assert [process.ended() for process in (*webs, *workers)] == [0, 0, 0, 0]
    final = scrape(create_app(services).test_client())
    assert final.non_zero(REQUESTS, "operation", "status_class") == sandbox_saw()
    assert _requests_of(final, REFRESH_ROUTE) == {"200": 8}
    assert _requests_of(final, TOKEN_ROUTE) == {"200": len(paths)}


def _all_attempts_ended(conn: psycopg.Connection[Any], accounts: int) -> bool:
    row = conn.execute(
        "SELECT count(DISTINCT account_id) FILTER (WHERE outcome IS NOT NULL), bool_and(outcome IS NOT NULL)"
        " FROM rdstation_refresh_attempts"
    ).fetchone()
    return row == (accounts, True)


def _wait_for_agreement(
    session: requests.Session, web: Web, sandbox_saw: Callable[[], dict[tuple[str, ...], float]], reads: int
) -> None:
    """Wait until this one process shows what the sandbox has seen and what all web processes have answered.

    Back-offs end meanwhile, so the sandbox is asked each time. Fails with the last difference.
    """
    last: list[Any] = []

    def agrees() -> bool:
        shown = parse(session.get(f"{web.url}/metrics", timeout=20).text)
        counted = shown.non_zero(REQUESTS, "operation", "status_class")
        seen, answered = sandbox_saw(), _requests_of(shown, TOKEN_ROUTE)
        last[:] = [counted, seen, answered]
        return counted == seen and answered == {"200": reads}

    try:
        wait_until(agrees, "the metrics agree", seconds=20)
    except AssertionError as error:
        raise AssertionError(f"metrics, sandbox, requests: {last}") from error


def _requests_of(shown: Scrape, route: str) -> dict[str, float]:
    """The requests of a route by status."""
    counted = shown.non_zero(DURATIONS, "url_rule", "status")
    return {status: number for (url_rule, status), number in counted.items() if url_rule == route}
