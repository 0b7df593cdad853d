"""A PostgreSQL for simulations, and runs on it."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from dev.simulation.database import SETTINGS
from dev.simulation.run import Outcome, Plan, simulate
from scripts.local.embedded_postgres import EmbeddedPostgres

Run = Callable[[Plan], Outcome]


@pytest.fixture(scope="session")
def simulated_server(
    postgres_programs: Path | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(
        tmp_path_factory.mktemp("simulation"), bin_dir=postgres_programs, settings=SETTINGS
    ) as server:
        yield server


@pytest.fixture
def run(simulated_server: EmbeddedPostgres) -> Iterator[Run]:
    """Simulates a plan in an empty database. The service's warnings of what is injected are not logged."""

    def simulate_plan(plan: Plan) -> Outcome:
        with psycopg.connect(simulated_server.url, autocommit=True) as conn:
            conn.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        return simulate(plan, simulated_server)

    logging.disable(logging.CRITICAL)
    yield simulate_plan
    logging.disable(logging.NOTSET)
