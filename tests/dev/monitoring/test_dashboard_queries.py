"""Every query of the dashboard, asked of a real Prometheus that scrapes the real service."""

import json
import math
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from dev.alert_drill.scene import LONGEST_ANSWER_S, Scene
from dev.alert_drill.watch import Watch
from scripts.local.embedded_postgres import EmbeddedPostgres
from tests.support.dashboard_file import Target, load, targets
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

DASHBOARD = load()
TARGETS = targets(DASHBOARD)
MINUTE_S = 1.0
"""How long a minute of the rules lasts here; Prometheus scrapes as often."""
RATE_INTERVAL = "10s"
SERVICES = {"rdservice", "rdservice-trial"}
JOBS = {"$__all": SERVICES, "rdservice": {"rdservice"}}
# One number for all that is chosen.
WITHOUT_JOB = {"Alerts that fire"}
# All operations but the exchange of a code, for which a person gives consent in a browser, and `other`: nothing is.
CALLED = {"token_refresh", "revoke", "account_info", "segmentations_list", "contacts_list", "contact_get"}
# The first goes on without traffic, the second does not.
FIRING = ("RDStationTokenExpiresSoon", "RDStationServerErrorsHigh")
# A part or a quantile of nothing is NaN: while nothing is counted, and of an operation or a route that nobody uses.
MAYBE_NAN = [
    "Server errors",
    "Rejected calls",
    "Duration of calls, median",
    "Duration of calls, 95th percentile",
    "Duration of calls, 99th percentile",
    "Old leads",
    "Requests that failed",
    "Duration of requests, 95th percentile",
    "Duration by route, 95th percentile",
]
OLD_AFTER = 10
LOOKED_UP = "somebody@example.com"

Sample = tuple[dict[str, str], list[float]]


class Asked:
    """A Prometheus that has seen the service well, under load and failing."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False
        self.began = time.time()

    def instant(self, query: str) -> list[Sample]:
        data = self._get("query", query=query)
        assert data["resultType"] == "vector"
        return [(one["metric"], [float(one["value"][1])]) for one in data["result"]]

    def over_time(self, query: str) -> list[Sample]:
        """Return the samples of each second since it began, as Grafana asks for them."""
        data = self._get("query_range", query=query, start=self.began, end=time.time(), step=1)
        return [(one["metric"], [float(value) for _, value in one["values"]]) for one in data["result"]]

    def label_values(self, selector: str, label: str) -> list[str]:
        found: list[str] = self._get(f"label/{label}/values", **{"match[]": selector})
        return found

    def read_configuration(self) -> None:
        self._session.post(f"{self._url}/-/reload", timeout=20).raise_for_status()

    def _get(self, what: str, **parameters: Any) -> Any:
        response = self._session.get(f"{self._url}/api/v1/{what}", params=parameters, timeout=20)
        assert response.status_code == 200, response.text
        return response.json()["data"]


def variable(name: str) -> dict[str, Any]:
    [found] = [one for one in DASHBOARD["templating"]["list"] if one["name"] == name]
    assert isinstance(found, dict)
    return found


def filled_in(target: Target, job: str) -> str:
    """Return a query as Grafana sends it."""
    chosen = variable("job")["allValue"] if job == "$__all" else job
    text = target.expression.replace("$__rate_interval", RATE_INTERVAL).replace("$job", chosen)
    assert "$" not in text, text
    return text


def ask(prometheus: Asked, target: Target, job: str) -> list[Sample]:
    query = filled_in(target, job)
    return prometheus.over_time(query) if target.target["range"] else prometheus.instant(query)


def all_goes_well(scene: Scene) -> None:
    """Ask for everything that leads to a call to RD Station; a refused token among it, and old leads."""
    scene.connect()
    scene.refresh()
    scene.read_new_leads()
    for _ in range(OLD_AFTER):
        scene.read_old_leads()
    scene._get(f"/rd/leads/email/{LOOKED_UP}")
    scene.sandbox.patch(faults=[fault("segmentations_list", 401) | {"count": 1}])
    scene._get("/rd/segmentations")
    scene._session.delete(scene._url("/rd/tokens/default"), timeout=LONGEST_ANSWER_S).raise_for_status()


def fault(operation: str, status: int) -> dict[str, Any]:
    return {"operation": operation, "kind": "status", "status": status}


def let_alerts_fire(scene: Scene, watch: Watch) -> None:
    """Let RD Station fail, and a token that has little time left not be renewed."""
    scene.connect()
    scene.refresh()
    scene.sandbox.patch(faults=[fault("contacts_list", 500), fault("token_refresh", 503)])
    scene.connect(lifetime_s=3600)

    def both_fire() -> bool:
        scene.read_new_leads()
        return all(watch.notification(alert, "firing", 0) is not None for alert in FIRING)

    wait_until(both_fire, f"{', '.join(FIRING)} fire", seconds=120)


def scrape_more(config: Path, prometheus_url: str) -> None:
    """Let Prometheus scrape a second service, which is the first by another name, and a program that is no service."""
    settings = json.loads(config.read_text())
    [service] = settings["scrape_configs"]
    targets_of_other = [{"targets": [prometheus_url.removeprefix("http://")]}]
    settings["scrape_configs"] = [
        service,
        service | {"job_name": "rdservice-trial"},
        {"job_name": "prometheus", "static_configs": targets_of_other},
    ]
    config.write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def prometheus(server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """A Prometheus with the rules, which saw two web processes and a worker, well and failing."""
    for name in ("prometheus", "prometheus-alertmanager"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed (Debian: {name})")
    folder: Path = tmp_path_factory.mktemp("dashboard")
    with Scene(server, folder) as scene, Watch(folder, scene.target, MINUTE_S) as watch:
        asked = Asked(watch.prometheus_url)
        scrape_more(watch._prometheus.config, watch.prometheus_url)
        asked.read_configuration()
        wait_until(lambda: len(asked.instant("count by (job) (up == 1)")) == 3, "all jobs are scraped")
        all_goes_well(scene)
        let_alerts_fire(scene, watch)
        yield asked


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.title}-{target.target['refId']}")
def test_every_query_returns_numbers(prometheus: Asked, target: Target, job: str) -> None:
    found = ask(prometheus, target, job)
    numbers = [number for _, values in found for number in values if not math.isnan(number)]
    assert numbers, f"{filled_in(target, job)} found {found}"
    assert all(math.isfinite(number) for number in numbers)
    expected = {""} if target.title in WITHOUT_JOB else JOBS[job]
    assert {labels.get("job", "") for labels, _ in found} == expected
    if target.title not in MAYBE_NAN:
        assert len(numbers) == sum(len(values) for _, values in found)


@pytest.mark.parametrize("title", MAYBE_NAN)
def test_what_may_be_nan_divides_by_what_was_counted(title: str) -> None:
    queries = [target.expression for target in TARGETS if target.title == title]
    assert queries
    assert all(re.search(r"histogram_quantile|\) / sum|:ratio_rate", query) for query in queries)


def greatest(prometheus: Asked, title: str, label: str) -> dict[str, float]:
    """Return the greatest number that a panel showed for each value of a label, without those that are 0 or NaN."""
    [target] = [target for target in TARGETS if target.title == title]
    found = {
        labels.get(label, ""): max((value for value in values if value > 0), default=0.0)
        for labels, values in ask(prometheus, target, "rdservice")
    }
    return {name: value for name, value in found.items() if value}


def test_the_panels_show_what_happened(prometheus: Asked) -> None:
    assert greatest(prometheus, "Calls by status class", "status_class").keys() == {"2xx", "4xx", "5xx"}
    assert greatest(prometheus, "Leads throughput", "cache").keys() == {"hit", "miss", "stale"}
    assert {"unauthorized", "server_error"} <= greatest(prometheus, "Failed calls by reason", "reason").keys()
    assert greatest(prometheus, "Authentication failures by stage", "stage").keys() == {"api_call"}
    assert {"stored", "transient"} <= greatest(prometheus, "Refreshes by result", "result").keys()
    assert greatest(prometheus, "Tokens by state", "state") == {"connected": 1}
    assert greatest(prometheus, "Server errors", "job")["rdservice"] <= 1
    assert greatest(prometheus, "Refused access tokens", "job")["rdservice"] >= 1
    assert {"/rd/leads", "/metrics"} <= greatest(prometheus, "Requests by route", "url_rule").keys()
    assert 0 < greatest(prometheus, "Time left of the first token", "job")["rdservice"] <= 3600
    assert FIRING[0] in greatest(prometheus, "Which alerts fire", "alertname")


@pytest.mark.parametrize("percentile", ["median", "95th percentile", "99th percentile"])
def test_every_operation_that_was_called_has_its_duration(prometheus: Asked, percentile: str) -> None:
    assert greatest(prometheus, f"Duration of calls, {percentile}", "operation").keys() == CALLED


def test_every_variable_offers_something(prometheus: Asked) -> None:
    kinds = {one["name"]: one["type"] for one in DASHBOARD["templating"]["list"]}
    # Grafana itself lists its data sources.
    assert kinds == {"datasource": "datasource", "job": "query"}
    query = re.fullmatch(r"label_values\((.+), (\w+)\)", variable("job")["query"])
    assert query is not None
    assert prometheus.label_values(query[1], query[2]) == sorted(SERVICES)
