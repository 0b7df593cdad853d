"""`flask release`."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from rdservice.config.settings import ROOT, Settings
from rdservice.database import migrate
from rdservice.database.migrate import migrations
from rdservice.services import Services
from tests.integration.cli.conftest import MakeRun, Run
from tests.support.older_table import NO_KEY, Conn, picture


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


def test_a_release_says_what_it_renamed_and_guessed(run_before_release: Run, older: Conn) -> None:
    older.execute(f"{NO_KEY[:-1]}, status integer)".encode())
    for account, number in [
        ("acme", 1),
        ("acme", 2),
        (None, 3),
        ("ana@example.com", 4),
        ("ana@example.com", 5),
    ]:
        older.execute(
            "INSERT INTO rdstation_tokens VALUES (%s, %s, %s, now() - %s * interval '1 hour', 1)",
            [account, f"planted-a{number}", f"planted-r{number}", number],
        )
    ended = run_before_release("release")
    assert ended.exit_code == 0
    assert "status → legacy_status" in ended.stdout
    assert "'acme' → 'acme~2'" in ended.stdout
    assert "became the account 'default'" in ended.stdout
    assert "planted" not in ended.output
    # Logs of a release are no place for an address.
    assert "ana@" not in ended.output
    assert "became" not in run_before_release("release").stdout


def test_a_release_that_refuses_an_older_table_prints_the_sql_that_makes_it_adoptable(
    run_before_release: Run, older: Conn
) -> None:
    older.execute(
        """CREATE TABLE rdstation_tokens ("accountId" text PRIMARY KEY, "accessToken" text, "refreshToken" text,
                                          "expiresAt" timestamptz)"""
    )
    older.execute(
        "INSERT INTO rdstation_tokens VALUES ('1', 'planted-a', 'planted-r', now()), ('2', 'a2', 'r2', now())"
    )
    before = picture(older)
    ended = run_before_release("release")
    assert ended.exit_code == 1
    assert picture(older) == before
    assert "nothing was changed" in ended.stderr
    assert "planted" not in ended.output
    statements = [line for line in ended.stderr.splitlines() if line.startswith("ALTER TABLE")]
    older.execute("".join(statements).encode())
    assert run_before_release("release").exit_code == 0
    assert older.execute("SELECT array_agg(account_id ORDER BY 1) FROM rdstation_tokens").fetchone() == (
        ["1", "2"],
    )


def test_values_that_no_release_understands_stay_and_each_release_names_their_number(
    run_before_release: Run, older: Conn
) -> None:
    run_before_release("release")
    older.execute(
        "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token) VALUES"
        " ('1', 'gAAAAABplanted', 'gAAAAABplanted'), ('2', 'plain-a', '$2b$planted'), ('3', 'plain-a', 'plain-r')"
    )
    before = picture(older)
    for encrypted in ("1 account.", "up to date"):
        ended = run_before_release("release")
        assert ended.exit_code == 0
        assert encrypted in ended.stdout
        assert "2 accounts have values that are not plain tokens" in ended.stderr
        assert "planted" not in ended.output
    assert [row for row in picture(older) if row in before][-2:] == before[-3:-1]


def test_a_release_on_a_server_that_is_too_old_names_its_version_and_changes_nothing(
    run_before_release: Run, older: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "OLDEST_SERVER", 990_000)
    version = str(older.execute("SHOW server_version").fetchone()[0])  # type: ignore[index]
    ended = run_before_release("release")
    assert ended.exit_code == 1
    assert f"PostgreSQL {version}" in ended.stderr
    assert "drop" not in ended.stderr
    assert older.execute("SELECT to_regclass('schema_migrations')").fetchone() == (None,)


@pytest.mark.parametrize("lacking", ["the schema", "the older table", "temporary functions", "all"])
def test_a_release_without_rights_prints_the_sql_that_grants_them(
    run_before_release: Run, older: Conn, lacking: str
) -> None:
    older.execute(NO_KEY.encode())
    older.execute("INSERT INTO rdstation_tokens VALUES ('acme', 'planted-a', 'planted-r', now())")
    before = picture(older)
    older.execute('CREATE ROLE "the app"')
    try:
        older.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        if lacking not in ("the schema", "all"):
            older.execute('GRANT CREATE ON SCHEMA public TO "the app"')
        if lacking not in ("the older table", "all"):
            older.execute('ALTER TABLE rdstation_tokens OWNER TO "the app"')
        if lacking in ("temporary functions", "all"):
            older.execute("REVOKE TEMPORARY ON DATABASE empty FROM PUBLIC")
        older.execute("ALTER DATABASE empty SET role = 'the app'")
        ended = run_before_release("release")
        assert ended.exit_code == 1
        assert picture(older) == before
        assert "lacks a right" in ended.stderr
        assert "drop" not in ended.stderr
        statements = [line for line in ended.stderr.splitlines() if line.endswith(";")]
        assert statements
        for statement in statements:
            older.execute(statement.encode())
        assert run_before_release("release").exit_code == 0
    finally:
        older.execute("ALTER DATABASE empty RESET role")
        older.execute('DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP OWNED BY "the app"')
        older.execute('DROP ROLE "the app"')


def test_a_release_gives_up_with_75_when_others_use_the_tables_for_too_long(
    run_before_release: Run, older: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(migrate, "LOCK_PAUSE_S", 0.01)
    monkeypatch.setattr(migrate, "LOCK_PATIENCE_S", 0.2)
    older.execute(NO_KEY.encode())
    with older.transaction():
        older.execute("SELECT FROM rdstation_tokens")
        ended = run_before_release("release")
        assert ended.exit_code == os.EX_TEMPFAIL
        assert "Other sessions" in ended.stderr
    assert run_before_release("release").exit_code == 0


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
