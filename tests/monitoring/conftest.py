"""What the service really exports."""

from collections import defaultdict
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rdservice.services import Services
from rdservice.tokens import workers
from rdservice.web import create_app
from tests.accounts import connect_account
from tests.monitoring.names import Exposed


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
