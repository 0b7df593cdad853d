"""What a deployment runs, started as it would be there."""

import os
import subprocess
import sys

import pytest

from rdservice.config.settings import ROOT
from scripts.local.embedded_postgres import EmbeddedPostgres


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "RDSERVICE_ENV": "production", **variables}
    return subprocess.run(
        [sys.executable, "-m", *command],
        check=False,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "command",
    [("gunicorn", "--bind", "127.0.0.1:0", "wsgi:app"), ("worker",), ("flask", "release")],
    ids=["web", "worker", "release"],
)
def test_every_process_of_the_procfile_ends_with_78_and_names_all_settings_that_are_missing(
    command: tuple[str, ...],
) -> None:
    ended = run(*command)
    assert ended.returncode == 78
    for name in (
        "RDSTATION_CLIENT_ID",
        "RDSTATION_CLIENT_SECRET",
        "RDSTATION_REDIRECT_URI",
        "DATABASE_URL",
        "SECRET_KEY",
        "TOKEN_ENCRYPTION_KEYS",
    ):
        assert f"{name} is not set" in ended.stderr


def test_a_release_of_a_database_that_is_down_says_so_and_can_be_repeated(
    variables: dict[str, str], server: EmbeddedPostgres
) -> None:
    nowhere = variables | {
        "DATABASE_URL": "postgres://user:a-password@127.0.0.1:9/none",
        "RDSTATION_REDIRECT_URI": "https://app.example.com/rd/callback",
        "RDSTATION_API_URL": "https://api.rd.services",
    }
    ended = run("flask", "release", **nowhere)
    assert ended.returncode == os.EX_TEMPFAIL
    assert "database cannot be reached" in ended.stderr
    assert "Connection refused" in ended.stderr.splitlines()[-1]
    assert "a-password" not in ended.stdout + ended.stderr
    again = run("flask", "release", **(nowhere | {"DATABASE_URL": server.url}))
    assert again.returncode == 0
    assert "up to date" in again.stdout
