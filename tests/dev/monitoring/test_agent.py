"""A Prometheus that cannot reach the service: an agent scrapes it and forwards, with the configuration to copy."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.dev.monitoring.conftest import BEHIND_ROUTER, TOKEN
from tests.support.processes import Processes, Web
from tests.support.prometheus import PrometheusServer
from tests.support.router import Backend, Router
from tests.support.rule_files import MONITORING
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

USER, PASSWORD = "rdservice", "the-password-of-the-tests"
# bcrypt of the password, as `htpasswd -nB` makes it.
HASH = "$2b$05$PVyK4oUyYy2xde2OEj1kPOMyMtbT6mqXwkHwNyjQpDp219DG37g1e"
HEALTH = 'flask_http_request_duration_seconds_count{job="rdservice",url_rule="/healthz"}'

StartAgent = Callable[[dict[str, Any]], PrometheusServer]


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[PrometheusServer]:
    """A Prometheus that scrapes nothing, with the rules, and lets one user write."""
    folder = tmp_path / "receiver"
    folder.mkdir()
    config = {"global": {"evaluation_interval": "1s"}, "rule_files": [str(MONITORING / "rules" / "*.yml")]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "web.yml").write_text(yaml.safe_dump({"basic_auth_users": {USER: HASH}}))
    options = ["--web.enable-remote-write-receiver", f"--web.config.file={folder / 'web.yml'}"]
    # How long a series that gets no more samples is there: five minutes by default.
    options.append("--query.lookback-delta=8s")
    with PrometheusServer(
        folder, folder / "prometheus.yml", options=options, auth=(USER, PASSWORD)
    ) as running:
        yield running


@pytest.fixture
def start_agent(receiver: PrometheusServer, tmp_path: Path) -> Iterator[StartAgent]:
    """Starts an agent with the copied configuration, in which its job is changed, and the receiver is the test's."""
    started: list[PrometheusServer] = []

    def start(changes: dict[str, Any]) -> PrometheusServer:
        folder = tmp_path / "agent"
        folder.mkdir(exist_ok=True)
        config = yaml.safe_load((MONITORING / "prometheus-agent.yml").read_text())
        [job], [remote] = config["scrape_configs"], config["remote_write"]
        job |= changes
        remote["url"] = f"{receiver.url}/api/v1/write"
        config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        (folder / "rdservice-metrics-token").write_text(TOKEN)
        (folder / "remote-write-password").write_text(PASSWORD)
        agent = PrometheusServer(folder, folder / "prometheus.yml", agent=True)
        started.append(agent)
        return agent.__enter__()

    yield start
    for agent in started:
        agent.__exit__()


def ask(web: Web, times: int) -> None:
    for _ in range(times):
        requests.get(f"{web.url}/healthz", timeout=20).raise_for_status()


def test_through_the_router_values_arrive_and_restarts_of_service_and_agent_are_no_reset(
    processes: Processes,
    router: Router,
    certificate: Path,
    receiver: PrometheusServer,
    start_agent: StartAgent,
) -> None:
    job = {
        "static_configs": [{"targets": [router.address]}],
        "tls_config": {"ca_file": str(certificate)},
    }
    agent = start_agent(job)
    [sample] = wait_until(
        lambda: receiver.query("rdstation_database_up == 1"), "the metrics arrive", seconds=60
    )
    assert sample["metric"]["job"] == "rdservice"
    assert len(receiver.query('up{job=~"rdservice.*"} == 1')) == 1

    web = processes.web(None, **BEHIND_ROUTER)
    router.backends = [Backend(web.url)]
    ask(web, 20)
    # The processes ask /healthz themselves until they answer.
    [(_, first)] = wait_until(
        lambda: arrived(receiver, at_least=20), "the requests arrive", seconds=30
    ).items()
    agent.__exit__()
    web.kill()
    web = processes.web(None, **BEHIND_ROUTER)
    router.backends = [Backend(web.url)]
    agent = start_agent(job)
    ask(web, 10)
    wait_until(lambda: arrived(receiver, at_least=first + 10), "the requests arrive again", seconds=30)
    assert set(receiver.resets().values()) == {0}

    agent.__exit__()
    wait_until(lambda: receiver.query('ALERTS{alertname="RDServiceDown"}'), "the agent is missed", seconds=30)


def test_beside_the_web_process_it_needs_no_token(
    processes: Processes, receiver: PrometheusServer, start_agent: StartAgent
) -> None:
    web = processes.web()
    # What the configuration's comment says to leave out.
    loopback = {"scheme": "http", "authorization": None}
    start_agent(loopback | {"static_configs": [{"targets": [f"127.0.0.1:{web.port}"]}]})
    ask(web, 5)
    wait_until(lambda: arrived(receiver, at_least=5), "the requests arrive", seconds=60)
    assert set(receiver.resets().values()) == {0}


def arrived(receiver: PrometheusServer, *, at_least: float) -> dict[tuple[str, ...], float]:
    return receiver.values(f"sum({HEALTH}) >= {at_least}")
