"""The configuration to copy, as it is used: Prometheus scrapes through a router with https and the token."""

import ipaddress
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.e2e.processes import Processes
from tests.e2e.waiting import wait_until
from tests.monitoring.rule_files import MONITORING
from tests.prometheus import PrometheusServer
from tests.router import Backend, Router

pytestmark = pytest.mark.slow

TOKEN = "a-token-of-the-metrics"
LOOPBACK = ipaddress.ip_address("127.0.0.1")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A file with a key and its own certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "router")])
    made = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
        .not_valid_after(datetime.now(UTC) + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(LOOPBACK)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = tmp_path / "router.pem"
    file.write_bytes(private + made.public_bytes(pem))
    return file


@pytest.fixture
def router(variables: dict[str, str], tmp_path: Path, certificate: Path) -> Iterator[str]:
    """The address of a router that ends https and passes requests on, with headers about them, to two web processes."""
    settings = {"METRICS_TOKEN": TOKEN, "TRUSTED_PROXIES": "1"}
    processes = Processes(variables | settings, tmp_path / "processes")
    try:
        with Router([Backend(processes.web().url)], certificate=certificate) as running:
            yield running.address
    finally:
        processes.close()


@pytest.fixture
def prometheus(router: str, certificate: Path, tmp_path: Path) -> Iterator[PrometheusServer]:
    """A Prometheus that was set up with the copied files."""
    folder = tmp_path / "copied"
    shutil.copytree(MONITORING / "rules", folder / "rules")
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    [job] = config["scrape_configs"]
    job["static_configs"] = [{"targets": [router]}]
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
