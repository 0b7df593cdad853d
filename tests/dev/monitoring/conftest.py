"""What the service really exports, and where it is scraped."""

import ipaddress
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client.parser import text_string_to_metric_families

from rdservice.services import Services
from rdservice.tokens import workers
from rdservice.web import create_app
from tests.support.accounts import connect_account
from tests.support.metric_names import Exposed
from tests.support.processes import Processes
from tests.support.router import Backend, Router

TOKEN = "a-token-of-the-metrics"
BEHIND_ROUTER = {"METRICS_TOKEN": TOKEN, "TRUSTED_PROXIES": "1"}
LOOPBACK = ipaddress.ip_address("127.0.0.1")


@pytest.fixture
def exposed(services: Services, conn: psycopg.Connection[Any]) -> Exposed:
    """The samples of a service with an account, a worker, a request, and what asks for its state."""
    connect_account(services)
    workers.beat(conn, "a-worker")
    client = create_app(services).test_client()
    for path in ("/healthz", "/readyz", "/metrics", "/rd/leads"):
        client.get(path)
    found: Exposed = defaultdict(list)
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            found[sample.name].append(sample.labels)
    return dict(found)


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
def processes(variables: dict[str, str], tmp_path: Path) -> Iterator[Processes]:
    """Starts processes of the service; none of them outlives the test."""
    started = Processes(variables, tmp_path / "processes")
    yield started
    started.close()


@pytest.fixture
def router(processes: Processes, certificate: Path) -> Iterator[Router]:
    """A router that ends https and passes requests on, with headers about them, to web processes with METRICS_TOKEN."""
    web = processes.web(None, **BEHIND_ROUTER)
    with Router([Backend(web.url)], certificate=certificate) as running:
        yield running
