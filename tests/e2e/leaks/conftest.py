"""Stages for the search of secrets, each with a PostgreSQL, a sandbox and processes of its own."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.local.embedded_postgres import EmbeddedPostgres
from tests.support.leaks.stage import REDIRECT_URI, SECRETS, TALKATIVE, Stage, open_stage, plant_lead
from tests.support.sandbox_process import SandboxProcess

MakeStage = Callable[..., Stage]


@pytest.fixture(scope="module")
def make_stage(
    tmp_path_factory: pytest.TempPathFactory, postgres_programs: Path | None
) -> Iterator[MakeStage]:
    """Makes stages: `production` with the second fence and JSON lines, or not; further settings by name."""
    with contextlib.ExitStack() as started:

        def make(*, production: bool, **more: str) -> Stage:
            folder = tmp_path_factory.mktemp("stage")
            settings = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"} | TALKATIVE
            postgres = started.enter_context(
                EmbeddedPostgres(folder / "postgres", bin_dir=postgres_programs, settings=settings)
            )
            sandbox = started.enter_context(
                SandboxProcess(
                    folder / "sandbox.db",
                    client_id="11111111-2222-3333-4444-555555555555",
                    client_secret=SECRETS["second_client_secret"],
                    redirect_uri=REDIRECT_URI,
                    seed=7,
                    log=folder / "sandbox.log",
                )
            )
            stage = open_stage(folder, postgres, sandbox, production=production, **more)
            started.callback(stage.processes.close)
            plant_lead(stage)
            return stage

        yield make


@pytest.fixture(scope="module", params=[False, True], ids=["without the second fence", "in production"])
def stage(request: pytest.FixtureRequest, make_stage: MakeStage) -> Stage:
    """A stage that tests of a module share, once as each fence alone must hold it."""
    return make_stage(production=request.param)
