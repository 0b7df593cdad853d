"""Runs the `flask` commands inside this process."""

from collections.abc import Callable

import pytest
from click.testing import Result

from rdservice.config.settings import Settings
from rdservice.database import pool
from rdservice.services import Services
from tests.support.command_line import app_with_commands

Run = Callable[..., Result]
MakeRun = Callable[[Services], Run]


@pytest.fixture
def run_with() -> MakeRun:
    """Makes a runner of commands over given services; `stdin` is what the command reads."""

    def make(services: Services) -> Run:
        app = app_with_commands(services)

        def run(*arguments: str, stdin: str | None = None) -> Result:
            return app.test_cli_runner().invoke(args=list(arguments), input=stdin)

        return run

    return make


@pytest.fixture
def run(run_with: MakeRun, connected: Services) -> Run:
    """Runs a command over the test's database and the sandbox."""
    return run_with(connected)


@pytest.fixture
def run_without_database(
    run_with: MakeRun,
    make_services: Callable[[Settings], Services],
    variables: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """Runs a command while nobody answers at DATABASE_URL."""
    monkeypatch.setattr(pool, "POOL_TIMEOUT_S", 0.3)
    nowhere = variables | {"DATABASE_URL": "postgres://planted:planted-password@127.0.0.1:9/app"}
    return run_with(make_services(Settings.from_mapping(nowhere)))


@pytest.fixture
def run_before_release(
    run_with: MakeRun,
    make_services: Callable[[Settings], Services],
    variables: dict[str, str],
    empty_database_url: str,
) -> Run:
    """Runs a command over a database without any table."""
    return run_with(make_services(Settings.from_mapping(variables | {"DATABASE_URL": empty_database_url})))
