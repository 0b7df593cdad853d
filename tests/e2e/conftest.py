"""Real processes over the test run's PostgreSQL and sandbox."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rdservice.access import keys
from tests.support.processes import Processes
from tests.support.sandbox_process import SandboxProcess


@pytest.fixture
def processes(variables: dict[str, str], sandbox: SandboxProcess, tmp_path: Path) -> Iterator[Processes]:
    """Starts web and worker processes whose RD Station is the sandbox; none of them outlives the test."""
    started = Processes(variables | {"RDSTATION_API_URL": sandbox.url}, tmp_path / "processes")
    yield started
    started.close()


@pytest.fixture
def api_key(conn: psycopg.Connection[Any]) -> str:
    """An API key with all scopes."""
    return keys.create(conn, "a program", list(keys.SCOPES), created_by="test")


@pytest.fixture
def authorized(api_key: str) -> dict[str, str]:
    """Request headers with an API key."""
    return {"Authorization": f"Bearer {api_key}"}
