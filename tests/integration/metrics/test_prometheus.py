"""What a real Prometheus makes of the service behind a router: the right sums, and counters that never begin anew."""

import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from rdservice.access import keys
from rdservice.config.settings import Settings
from rdservice.metrics import store
from rdservice.metrics.definitions import Series
from rdservice.services import Services
from scripts.local.embedded_postgres import EmbeddedPostgres
from tests.support.accounts import connect_account
from tests.support.processes import Processes, ServiceProcess, Web
from tests.support.prometheus import PrometheusServer, write_config
from tests.support.router import Backend, Router
from tests.support.sandbox_process import SandboxProcess
from tests.support.scraping import take_down
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

TOKEN = "the-metrics-token-of-the-tests"
BEHIND_ROUTER = {"METRICS_TOKEN": TOKEN, "TRUSTED_PROXIES": "1"}
READ_ROUTE = "/rd/tokens/<account_id>/access-token"
REFRESH_ROUTE = "/rd/tokens/<account_id>/refresh"
REQUESTS = "rdstation_api_requests_total"
ROUTES = "flask_http_request_duration_seconds_count"
# Accounts that the sandbox has.
NAMES = [f"account-{number}" for number in range(2, 10)]


def stored_refreshes(status_class: str) -> Series:
    return REQUESTS, (("operation", "token_refresh"), ("status_class", status_class))


def reads(status: str) -> Series:
    return ROUTES, (("method", "GET"), ("status", status), ("url_rule", READ_ROUTE))


def not_zero(values: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    return {labels: value for labels, value in values.items() if value}


class Scene:
    """Two gunicorns of two workers each behind a router, beside two refresh workers, and who scrapes the router."""

    def __init__(
        self, processes: Processes, router: Router, prometheus: PrometheusServer, headers: dict[str, str]
    ) -> None:
        self.processes = processes
        self.router = router
        self.prometheus = prometheus
        self._headers = headers
        self._sessions = ExitStack()
        self.webs: list[Web] = []
        self.workers: list[ServiceProcess] = []

    def start(self) -> None:
        """Start all processes; the router's requests go to each of the four web processes in turn."""
        self.webs = [self.processes.web(None, **BEHIND_ROUTER) for _ in range(2)]
        self.workers = [self.processes.worker() for _ in range(2)]
        self.route_to(*self.webs)

    def route_to(self, *webs: Web) -> None:
        self._sessions.close()
        self.router.backends = [
            Backend(web.url, session)
            for web in webs
            for session in self._sessions.enter_context(web.sessions_of_each_worker())
        ]
        self.router.answered.clear()

    def wait_until_each_was_scraped(self) -> None:
        places = {(place, 200) for place in range(len(self.router.backends))}
        wait_until(lambda: places <= self.router.answered.keys(), "each process was scraped", seconds=40)

    def ask(self, number: int, path: str, method: str = "GET") -> int:
        web = self.webs[number % len(self.webs)]
        return requests.request(method, web.url + path, headers=self._headers, timeout=30).status_code

    def read(self, number: int) -> int:
        return self.ask(number, f"/rd/tokens/{NAMES[number % len(NAMES)]}/access-token")

    def shown(self) -> tuple[dict[tuple[str, ...], float], dict[tuple[str, ...], float]]:
        """The calls to RD Station by operation and status class, and the requests of two routes, in Prometheus."""
        calls = self.prometheus.values(REQUESTS, "operation", "status_class")
        asked = self.prometheus.values(f'{ROUTES}{{url_rule=~"/rd/tokens/.*"}}', "url_rule", "status")
        return not_zero(calls), not_zero(asked)

    def close(self) -> None:
        self._sessions.close()


@pytest.fixture
def headers(conn: psycopg.Connection[Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {keys.create(conn, 'a program', list(keys.SCOPES), created_by='test')}"}


@pytest.fixture
def every_s() -> int:
    """How often Prometheus scrapes, and how long it waits for each answer."""
    return 1


@pytest.fixture
def scene(processes: Processes, tmp_path: Path, headers: dict[str, str], every_s: int) -> Iterator[Scene]:
    with Router([]) as router:
        config = write_config(tmp_path / "prometheus.yml", router.address, token=TOKEN, every_s=every_s)
        with PrometheusServer(tmp_path / "prometheus", config) as prometheus:
            made = Scene(processes, router, prometheus, headers)
            yield made
            made.close()


@pytest.fixture
def accounts(
    make_services: Callable[[Settings], Services], sandbox_settings: Settings, sandbox: SandboxProcess
) -> Services:
    """Connects accounts whose tokens are due, and returns the services that did it."""
    services = make_services(sandbox_settings)
    for name in NAMES:
        connect_account(services, sandbox, name, rd_account=name)
    return services


@pytest.fixture
def sandbox_saw(
    accounts: Services,
    sandbox: SandboxProcess,
) -> Callable[[], dict[tuple[str, ...], float]]:
    """Returns the sandbox's own counts, by operation and class of the status."""

    def count() -> Counter[tuple[str, ...]]:
        counted: Counter[tuple[str, ...]] = Counter()
        for operation, results in sandbox.calls().items():
            for result, number in results.items():
                counted[operation, result if result == "none" else f"{result[0]}xx"] += number
        return counted

    before = count()
    return lambda: {key: float(number) for key, number in (count() - before).items()}


def test_a_prometheus_that_reaches_another_process_each_time_sees_each_request_once_and_no_reset(
    scene: Scene,
    sandbox: SandboxProcess,
    sandbox_saw: Callable[[], dict[tuple[str, ...], float]],
    conn: psycopg.Connection[Any],
) -> None:
    sandbox.patch(
        faults=[
            {"operation": "token_refresh", "kind": "status", "status": 503, "count": 2},
            {"operation": "token_refresh", "kind": "drop_before", "count": 2},
            {"operation": "token_refresh", "kind": "status", "status": 429, "count": 1},
        ]
    )
    scene.start()
    with ThreadPoolExecutor(8) as executor:
        assert Counter(executor.map(scene.read, range(200))) == {200: 200}
    asked: dict[tuple[str, ...], float] = {(READ_ROUTE, "200"): 200}
    wait_until(lambda: scene.shown() == (sandbox_saw(), asked), "Prometheus has the sums", seconds=60)
    assert sandbox_saw()["token_refresh", "none"] == 2
    scene.wait_until_each_was_scraped()

    # SIGTERM to all at once, with exchanges under way.
    wait_until(lambda: _none_is_due(conn), "every account is renewed", seconds=60)
    sandbox.patch(latency_ms=2_000, faults=[])
    with ThreadPoolExecutor(len(NAMES)) as executor:
        refreshes = [
            executor.submit(scene.ask, number, f"/rd/tokens/{name}/refresh", "POST")
            for number, name in enumerate(NAMES)
        ]
        wait_until(lambda: sandbox.report()["in_flight"] == len(NAMES), "all exchanges are in flight")
        everything = [*scene.webs, *scene.workers]
        for process in everything:
            process.send(signal.SIGTERM)
        assert Counter(refresh.result() for refresh in refreshes) == {200: len(NAMES)}
    assert [process.ended() for process in everything] == [0, 0, 0, 0]
    sandbox.patch(latency_ms=0)

    # All of it again, and the counters go on.
    scene.start()
    with ThreadPoolExecutor(8) as executor:
        assert Counter(executor.map(scene.read, range(100))) == {200: 100}
    asked = {(READ_ROUTE, "200"): 300, (REFRESH_ROUTE, "200"): len(NAMES)}
    wait_until(lambda: scene.shown() == (sandbox_saw(), asked), "the sums go on", seconds=60)
    scene.wait_until_each_was_scraped()
    resets = scene.prometheus.resets()
    assert set(resets.values()) == {0}
    assert {
        REQUESTS,
        ROUTES,
        "rdstation_api_request_duration_seconds_sum",
        "flask_http_request_total",
    } <= set(resets)


def _none_is_due(conn: psycopg.Connection[Any]) -> bool:
    row = conn.execute("SELECT bool_and(refresh_after > rd_now()) FROM rdstation_tokens").fetchone()
    return row == (True,)


def test_kill_9_loses_no_more_than_the_last_ten_seconds_and_of_calls_the_last_one(
    scene: Scene,
    sandbox: SandboxProcess,
    sandbox_saw: Callable[[], dict[tuple[str, ...], float]],
    conn: psycopg.Connection[Any],
) -> None:
    scene.start()
    wait_until(lambda: _none_is_due(conn), "every account is renewed", seconds=60)
    wait_until(lambda: scene.shown() == (sandbox_saw(), {}), "Prometheus has the calls", seconds=30)
    victim, survivor = scene.webs
    # From now on nobody who scrapes makes the victim hand over its counts: it does so by itself.
    scene.route_to(survivor)
    assert [scene.ask(0, "/rd/tokens/account-2/access-token") for _ in range(30)] == [200] * 30
    wait_until(lambda: store.totals(conn).get(reads("200")) == 30, "ten seconds have passed", seconds=15)
    before = store.totals(conn)[stored_refreshes("2xx")]
    assert scene.ask(0, "/rd/tokens/account-2/refresh", "POST") == 200
    # Well before the ten seconds of the others are over.
    wait_until(
        lambda: store.totals(conn)[stored_refreshes("2xx")] == before + 1, "a second has passed", seconds=5
    )
    lost = 7
    assert [scene.ask(0, "/rd/tokens/account-2/access-token") for _ in range(lost)] == [200] * lost
    victim.kill()
    assert scene.ask(1, "/rd/tokens/account-2/access-token") == 200

    def without_the_last() -> bool:
        calls, asked = scene.shown()
        return calls == sandbox_saw() and 31 <= asked.get((READ_ROUTE, "200"), 0) <= 31 + lost

    wait_until(without_the_last, "Prometheus has all but the last requests", seconds=30)
    assert set(scene.prometheus.resets().values()) == {0}


# Without the database an answer takes up to four seconds.
@pytest.mark.parametrize("every_s", [5])
def test_a_database_that_was_down_is_no_reset(
    own_postgres: EmbeddedPostgres, scene: Scene, promtool: str
) -> None:
    url = own_postgres.url
    scene.webs = [scene.processes.web(None, **BEHIND_ROUTER, DATABASE_URL=url) for _ in range(2)]
    scene.route_to(*scene.webs)
    value = scene.prometheus.values

    def refused() -> float | None:
        return value(f'sum({ROUTES}{{url_rule="{READ_ROUTE}",status="401"}})').get(())

    assert [_ask_unknown(scene.webs[number % 2]) for number in range(20)] == [401] * 20
    wait_until(lambda: refused() == 20, "Prometheus has the sums", seconds=30)

    take_down(own_postgres)
    wait_until(lambda: value("rdstation_database_up") == {(): 0}, "Prometheus knows of it", seconds=40)
    wait_until(lambda: not scene.prometheus.query(ROUTES), "the counters are absent", seconds=40)
    assert value("up") == {(): 1}
    assert [status for _, status in scene.router.answered if status != 200] == []

    own_postgres.start()
    wait_until(lambda: refused() is not None, "the counters are back", seconds=40)
    scene.wait_until_each_was_scraped()
    assert [_ask_unknown(scene.webs[number % 2]) for number in range(10)] == [401] * 10
    wait_until(lambda: refused() == 30, "the sums go on", seconds=30)
    assert set(scene.prometheus.resets().values()) == {0}
    status, _, text = scene.router.ask(
        "/metrics", {"Authorization": f"Bearer {TOKEN}", "X-Forwarded-For": "192.0.2.1"}
    )
    assert status == 200
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def _ask_unknown(web: Web) -> int:
    path = "/rd/tokens/default/access-token"
    return requests.get(web.url + path, headers={"Authorization": "Bearer nobody"}, timeout=30).status_code
