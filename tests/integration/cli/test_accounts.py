"""`flask accounts`."""

import json
import re
from typing import Any

import psycopg
import pytest

from rdservice.services import Services
from tests.integration.cli.conftest import Run
from tests.support.accounts import connect_account, row, stored_pair
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]


def test_accounts_are_listed_for_people_and_for_scripts(run: Run, connected: Services, conn: Conn) -> None:
    assert "No account is connected yet." in run("accounts", "list").stderr
    assert json.loads(run("accounts", "list", "--json").stdout) == []
    connect_account(connected)
    connect_account(connected, account_id="acme")
    conn.execute("UPDATE rdstation_tokens SET name = 'Ação' WHERE account_id = 'acme'")
    told = run("accounts", "list").stdout
    assert "acme  Ação  connected  valid until" in told
    assert "default  -  connected" in told
    found = json.loads(run("accounts", "list", "--json").stdout)
    assert [(account["account_id"], account["name"]) for account in found] == [
        ("acme", "Ação"),
        ("default", None),
    ]
    assert "access-of" not in told


def test_an_account_is_shown_with_its_attempts_and_without_tokens(
    run: Run, connected: Services, sandbox: SandboxProcess
) -> None:
    pair = connect_account(connected, sandbox)
    assert run("accounts", "refresh").exit_code == 0
    ended = run("accounts", "show", "--json")
    shown = json.loads(ended.stdout)
    assert (shown["account_id"], shown["status"], shown["failures"]) == ("default", "connected", 0)
    (attempt,) = shown["attempts"]
    assert (attempt["reason"], attempt["outcome"], attempt["http_status"]) == ("operator", "stored", 200)
    told = run("accounts", "show")
    assert re.search(r"Status +connected\n", told.stdout)
    assert re.search(
        r"\n  20\d\d-\d\d-\d\d \d\d:\d\d UTC  lease \d+  operator  stored HTTP 200\n", told.stdout
    )
    assert pair["refresh_token"] not in ended.output + told.output


def test_a_refresh_renews_the_tokens_now(
    run: Run, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    before = connect_account(connected, sandbox, due=False)
    ended = run("accounts", "refresh", "default")
    assert (ended.exit_code, ended.stdout) == (0, "default: stored\n")
    assert stored_pair(connected, conn)[0] != before["access_token"]


def test_a_refresh_that_did_not_work_ends_with_1(
    run: Run, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    sandbox.revoke()
    ended = run("accounts", "refresh")
    assert ended.exit_code == 1
    assert "refused" in ended.output
    assert row(conn)["status"] == "reauthorization_required"


def test_a_disconnected_account_is_gone_and_revoked(
    run: Run, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox)
    ended = run("accounts", "disconnect", "default", "--yes")
    assert ended.exit_code == 0
    assert "revoked at RD Station" in ended.stdout
    assert conn.execute("SELECT count(*) FROM rdstation_tokens").fetchone() == (0,)
    assert sandbox.calls()["revoke"] == {"200": 1}


def test_what_cannot_be_revoked_is_a_warning(run: Run, connected: Services, sandbox: SandboxProcess) -> None:
    connect_account(connected)
    ended = run("accounts", "disconnect", "default", "--yes")
    assert ended.exit_code == 0
    assert "Warning: The tokens were removed here, but RD Station did not confirm" in ended.stderr


@pytest.mark.parametrize("command", ["show", "refresh", "disconnect"])
def test_an_unknown_account_is_an_error_with_its_name(run: Run, command: str) -> None:
    ended = run("accounts", command, "nobody", *(["--yes"] if command == "disconnect" else []))
    assert ended.exit_code == 1
    assert "'nobody'" in ended.stderr
    assert "Traceback" not in ended.output


COMMANDS = [
    ("accounts", "list"),
    ("accounts", "show"),
    ("accounts", "refresh"),
    ("accounts", "disconnect", "default", "--yes"),
]


def test_before_the_release_each_command_asks_for_it(run_before_release: Run) -> None:
    for command in COMMANDS:
        ended = run_before_release(*command)
        assert ended.exit_code == 1, command
        assert "flask release" in ended.stderr, command


def test_without_database_each_command_ends_with_75_and_names_the_setting(run_without_database: Run) -> None:
    for command in COMMANDS:
        ended = run_without_database(*command)
        assert ended.exit_code == 75, command
        assert "DATABASE_URL" in ended.stderr
        assert "planted" not in ended.output


def test_an_account_gets_another_name(run: Run, connected: Services, conn: Conn) -> None:
    connect_account(connected, account_id="loja/centro")
    ended = run("accounts", "rename", "loja/centro", "loja-centro")
    assert (ended.exit_code, ended.stdout) == (0, "loja/centro is called loja-centro from now on.\n")
    assert row(conn, "loja-centro")["status"] == "connected"
    for old, new, told in (
        ("loja/centro", "x", "No account 'loja/centro' is connected."),
        ("loja-centro", "a/b", "no slash"),
        ("loja-centro", "loja-centro", "exists already"),
    ):
        ended = run("accounts", "rename", old, new)
        assert ended.exit_code == 1
        assert told in ended.stderr
