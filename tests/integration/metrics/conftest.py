"""An application whose metrics are read."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from rdservice.database import migrate, pool
from rdservice.services import Services
from rdservice.web import create_app
from scripts.local.embedded_postgres import EmbeddedPostgres
from tests.support.processes import Processes
from tests.support.sandbox_process import SandboxProcess


@pytest.fixture
def app(services: Services) -> Flask:
    return create_app(services)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def connected_client(connected: Services) -> FlaskClient:
    """A client of an application whose RD Station is the sandbox."""
    return create_app(connected).test_client()


@pytest.fixture
def promtool() -> str:
    """The path of Prometheus's tool."""
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    return path


@pytest.fixture
def own_postgres(
    new_postgres: Callable[[], EmbeddedPostgres], monkeypatch: pytest.MonkeyPatch
) -> Iterator[EmbeddedPostgres]:
    """A server with the service's tables for one test that stops it; pools made meanwhile wait for it only briefly."""
    monkeypatch.setattr(pool, "POOL_TIMEOUT_S", 1.0)
    with new_postgres() as server:
        with psycopg.connect(server.url, autocommit=True) as own:
            migrate.migrate(own)
        yield server


@pytest.fixture
def processes(variables: dict[str, str], sandbox: SandboxProcess, tmp_path: Path) -> Iterator[Processes]:
    """Starts web and worker processes whose RD Station is the sandbox; none of them outlives the test."""
    started = Processes(variables | {"RDSTATION_API_URL": sandbox.url}, tmp_path / "processes")
    yield started
    started.close()
