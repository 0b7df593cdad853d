"""`flask release`."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg

from rdservice.config.settings import ROOT, Settings
from rdservice.database.migrate import migrations
from rdservice.services import Services
from tests.integration.cli.conftest import MakeRun, Run


def test_a_release_prepares_an_empty_database_and_a_second_one_finds_nothing_to_do(
    run_before_release: Run, empty_database_url: str
) -> None:
    first = run_before_release("release")
    assert first.exit_code == 0
    assert [line.split()[2] for line in first.stdout.splitlines()] == [
        f"{migration.version:04d}" for migration in migrations()
    ]
    second = run_before_release("release")
    assert (second.exit_code, second.stdout) == (0, "The database is up to date.\n")


def test_a_release_encrypts_what_an_older_backend_left(
    run_before_release: Run, empty_database_url: str
) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        conn.execute(
            "CREATE TABLE rdstation_tokens"
            " (account_id text, access_token text, refresh_token text, expires_at timestamp)"
        )
        conn.execute("INSERT INTO rdstation_tokens VALUES ('default', 'planted-a', 'planted-r', now())")
        ended = run_before_release("release")
        assert ended.exit_code == 0
        assert "Encrypted the plain tokens of 1 account." in ended.stdout
        assert "planted" not in ended.output
        assert "planted" not in str(conn.execute("SELECT t::text FROM rdstation_tokens t").fetchall())
    assert "up to date" in run_before_release("release").stdout


def test_a_release_names_columns_that_may_hold_further_tokens_and_the_sql_that_empties_them(
    run_before_release: Run, empty_database_url: str
) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        conn.execute(
            "CREATE TABLE rdstation_tokens (account_id text, refresh_token text, old_token text, note text)"
        )
        conn.execute(
            "INSERT INTO rdstation_tokens VALUES ('a', 'planted-r', 'planted-old-token-of-before', '')"
        )
        for _ in range(2):
            ended = run_before_release("release")
            assert ended.exit_code == 0
            assert "seem to hold tokens in plain text: old_token." in ended.stderr
            assert "planted" not in ended.output
        _, *statements = ended.stderr.splitlines()
        assert statements == ['UPDATE rdstation_tokens SET "old_token" = NULL;', "ANALYZE rdstation_tokens;"]
        conn.execute("".join(statements).encode())
    assert run_before_release("release").stderr == ""


def test_without_database_a_release_ends_with_75_and_names_the_setting(run_without_database: Run) -> None:
    ended = run_without_database("release")
    assert ended.exit_code == os.EX_TEMPFAIL == 75
    assert "DATABASE_URL" in ended.stderr
    assert "planted" not in ended.output
    assert "Traceback" not in ended.output


def test_two_releases_of_real_processes_at_once_both_succeed(
    variables: dict[str, str], empty_database_url: str, tmp_path: Path
) -> None:
    environment = variables | {
        "DATABASE_URL": empty_database_url,
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "RDSERVICE_DATA_DIR": str(tmp_path),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "flask", "release"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    told = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    applied = re.findall(r"Applied migration (\d+)", "".join(out for out, _ in told))
    assert sorted(map(int, applied)) == [migration.version for migration in migrations()]


def test_in_production_a_release_without_metrics_token_says_that_nobody_can_read_the_metrics(
    run_with: MakeRun, make_services: Callable[[Settings], Services], variables: dict[str, str]
) -> None:
    production = {
        "RDSERVICE_ENV": "production",
        "RDSTATION_REDIRECT_URI": "https://app.example.com/rd/callback",
    }
    for token, warned in (("", True), ("a-token,another", False)):
        settings = Settings.from_mapping(variables | production | {"METRICS_TOKEN": token})
        ended = run_with(make_services(settings))("release")
        assert (ended.exit_code, ended.stdout) == (0, "The database is up to date.\n")
        assert ("METRICS_TOKEN is not set, so nobody can read /metrics" in ended.stderr) is warned
    assert "METRICS_TOKEN" not in run_with(make_services(Settings.from_mapping(variables)))("release").stderr
