"""The configuration to copy, as it is used: Prometheus scrapes through a router with https and the token."""

import http.client
import ipaddress
import shutil
import signal
import ssl
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from scripts.child_process import spawn
from scripts.monitoring_programs import free_port
from tests.e2e.processes import Processes
from tests.e2e.waiting import wait_until
from tests.monitoring.rule_files import MONITORING

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
        web = processes.web()

        class Router(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=20)
                forwarded = {"X-Forwarded-For": self.client_address[0], "X-Forwarded-Proto": "https"}
                connection.request("GET", self.path, headers=dict(self.headers) | forwarded)
                answer = connection.getresponse()
                body = answer.read()
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers["Content-Type"])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                connection.close()

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                """Say nothing of requests."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Router)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        server.server_close()
    finally:
        processes.close()


Query = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def query(router: str, certificate: Path, tmp_path: Path) -> Iterator[Query]:
    """Asks a Prometheus that was set up with the copied files."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: prometheus)")
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
    port = free_port()
    command = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
    ]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    process = spawn(command, death_signal=signal.SIGKILL, stdout=subprocess.DEVNULL)

    def ask(expression: str) -> list[dict[str, Any]]:
        try:
            answer = requests.get(f"http://127.0.0.1:{port}/api/v1/query", {"query": expression}, timeout=10)
        except requests.ConnectionError:
            return []
        # It is still starting.
        if answer.status_code == 503:
            return []
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    try:
        yield ask
    finally:
        process.kill()
        process.wait()


def test_the_copied_configuration_reads_the_metrics_and_a_changed_token_is_an_alert(
    query: Query, tmp_path: Path
) -> None:
    [sample] = wait_until(lambda: query("rdstation_database_up == 1"), "the metrics are read", seconds=60)
    assert sample["metric"]["job"] == "rdservice"
    assert len(query('up{job=~"rdservice.*"}')) == 1
    (tmp_path / "copied" / "rdservice-metrics-token").write_text("another token")
    wait_until(
        lambda: query('ALERTS{alertname="RDServiceDown",job="rdservice"}'), "it is noticed", seconds=30
    )
