"""The configuration to copy, as it is used: Prometheus scrapes through a router with https and the token."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.dev.monitoring.conftest import TOKEN
from tests.support.prometheus import PrometheusServer
from tests.support.router import Router
from tests.support.rule_files import MONITORING
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def prometheus(router: Router, certificate: Path, tmp_path: Path) -> Iterator[PrometheusServer]:
    """A Prometheus that was set up with the copied files."""
    folder = tmp_path / "copied"
    shutil.copytree(MONITORING / "rules", folder / "rules")
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    [job] = config["scrape_configs"]
    job["static_configs"] = [{"targets": [router.address]}]
    # A public host has a certificate that everybody trusts. And a test does not wait for half a minute.
    job["tls_config"] = {"ca_file": str(certificate)}
    config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "rdservice-metrics-token").write_text(f"{TOKEN}\n")
    with PrometheusServer(tmp_path / "prometheus", folder / "prometheus.yml") as running:
        yield running


def test_the_copied_configuration_reads_the_metrics_and_a_changed_token_is_an_alert(
    prometheus: PrometheusServer, tmp_path: Path
) -> None:
    query = prometheus.query
    [sample] = wait_until(lambda: query("rdstation_database_up == 1"), "the metrics are read", seconds=60)
    assert sample["metric"]["job"] == "rdservice"
    assert len(query('up{job=~"rdservice.*"}')) == 1
    (tmp_path / "copied" / "rdservice-metrics-token").write_text("another token")
    wait_until(
        lambda: query('ALERTS{alertname="RDServiceDown",job="rdservice"}'), "it is noticed", seconds=30
    )
