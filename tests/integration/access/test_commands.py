"""`flask operators` and `flask keys`."""

import json
import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from click.testing import Result
from flask import Flask

from rdservice.access import keys, operators, passwords, sessions
from rdservice.config.settings import Settings
from rdservice.services import Services
from tests.support.command_line import app_with_commands

Conn = psycopg.Connection[Any]
PASSWORD = "correct horse battery"


@pytest.fixture
def app(services: Services) -> Flask:
    return app_with_commands(services)


@pytest.fixture
def flask(app: Flask) -> Callable[..., Result]:
    def run(*arguments: str, stdin: str = "") -> Result:
        return app.test_cli_runner().invoke(args=list(arguments), input=stdin)

    return run


Run = Callable[..., Result]


def test_an_operator_is_created_with_a_password_from_stdin(flask: Run, conn: Conn) -> None:
    result = flask("operators", "create", "Ana@Example.com", "--password-stdin", stdin=PASSWORD + "\n")
    assert result.exit_code == 0
    assert PASSWORD not in result.output
    found = operators.find_credentials(conn, "ana@example.com")
    assert found is not None
    assert passwords.verify(found.password_hash, PASSWORD)


def test_an_operator_is_created_with_a_password_typed_twice(flask: Run, conn: Conn) -> None:
    result = flask("operators", "create", "ana@example.com", stdin=f"{PASSWORD}\n{PASSWORD}\n")
    assert result.exit_code == 0
    assert PASSWORD not in result.output
    assert operators.find_credentials(conn, "ana@example.com") is not None


def test_two_different_passwords_create_nobody(flask: Run, conn: Conn) -> None:
    assert flask("operators", "create", "ana@example.com", stdin=f"{PASSWORD}\nanother one\n").exit_code == 1
    assert operators.list_all(conn) == []


def test_a_second_operator_of_that_e_mail_is_refused_with_what_to_do(flask: Run, conn: Conn) -> None:
    flask("operators", "create", "ana@example.com", "--password-stdin", stdin=PASSWORD)
    again = flask("operators", "create", "ANA@example.com", "--password-stdin", stdin="another password")
    assert again.exit_code == 1
    assert "reset-password" in again.stderr
    found = operators.find_credentials(conn, "ana@example.com")
    assert found is not None
    assert passwords.verify(found.password_hash, PASSWORD)


@pytest.mark.parametrize(
    ("email", "password", "says"),
    [("ana@example.com", "short", "12"), ("ana@example.com", "", "12"), ("nobody", PASSWORD, "address")],
)
def test_a_bad_password_or_e_mail_is_refused_in_one_line(
    flask: Run, email: str, password: str, says: str
) -> None:
    result = flask("operators", "create", email, "--password-stdin", stdin=password)
    assert result.exit_code == 1
    assert says in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_a_reset_changes_the_password_and_ends_the_sessions(flask: Run, conn: Conn) -> None:
    flask("operators", "create", "ana@example.com", "--password-stdin", stdin=PASSWORD)
    found = operators.find_credentials(conn, "ana@example.com")
    assert found is not None
    token = sessions.start(conn, found.operator_id, verified_hash=found.password_hash)
    assert token is not None
    result = flask(
        "operators", "reset-password", "ana@example.com", "--password-stdin", stdin="another password"
    )
    assert result.exit_code == 0
    assert "sessions ended: 1" in result.output
    assert sessions.find(conn, token) is None
    changed = operators.find_credentials(conn, "ana@example.com")
    assert changed is not None
    assert passwords.verify(changed.password_hash, "another password")


def test_operators_are_listed_and_removed(flask: Run) -> None:
    assert "no operator yet" in flask("operators", "list").stderr
    for email in ("bia@example.com", "ana@example.com"):
        flask("operators", "create", email, "--password-stdin", stdin=PASSWORD)
    assert flask("operators", "list").stdout.startswith("ana@example.com")
    listed = json.loads(flask("operators", "list", "--json").stdout)
    assert [set(row) for row in listed] == [{"email", "created_at", "password_changed_at"}] * 2
    assert flask("operators", "remove", "ana@example.com", "--yes").exit_code == 0
    assert [row["email"] for row in json.loads(flask("operators", "list", "--json").stdout)] == [
        "bia@example.com"
    ]


@pytest.mark.parametrize("command", [["remove", "--yes"], ["reset-password", "--password-stdin"]])
def test_an_unknown_operator_is_said_to_be_unknown(flask: Run, command: list[str]) -> None:
    result = flask("operators", *command, "nobody@example.com", stdin=PASSWORD)
    assert result.exit_code == 1
    assert "is no operator" in result.stderr


def test_a_new_key_stands_alone_on_stdout(flask: Run, conn: Conn) -> None:
    result = flask("keys", "create", "a program", "--scope", "leads:read", "--scope", "tokens:read")
    assert result.exit_code == 0
    assert re.fullmatch(r"rdk_[a-z2-7]{8}_[A-Za-z0-9_-]{43}\n", result.stdout)
    assert "cannot be shown again" in result.stderr
    found = keys.find(conn, result.stdout.strip())
    assert found is not None
    assert found.scopes == {"leads:read", "tokens:read"}


@pytest.mark.parametrize("arguments", [[], ["--scope", "everything"]])
def test_a_key_needs_known_scopes(flask: Run, arguments: list[str]) -> None:
    result = flask("keys", "create", "a program", *arguments)
    assert result.exit_code == 2
    assert "--scope" in result.stderr


def test_keys_are_listed_without_their_secrets_and_revoked(flask: Run, conn: Conn) -> None:
    assert "no key yet" in flask("keys", "list").stderr
    key = flask("keys", "create", "a program", "--scope", "leads:read").stdout.strip()
    listed = flask("keys", "list").stdout
    assert key[4:12] in listed
    assert "never used" in listed
    assert key[13:] not in listed
    (row,) = json.loads(flask("keys", "list", "--json").stdout)
    assert row["id"] == key[4:12]
    assert (row["scopes"], row["revoked_at"], row["created_by"]) == (["leads:read"], None, "command line")
    assert flask("keys", "revoke", row["id"], "--yes").exit_code == 0
    assert keys.find(conn, key) is None
    assert "revoked" in flask("keys", "list").stdout


def test_a_key_can_be_revoked_by_its_whole_text_which_is_not_repeated(flask: Run, conn: Conn) -> None:
    key = flask("keys", "create", "a program", "--scope", "leads:read").stdout.strip()
    result = flask("keys", "revoke", key, "--yes")
    assert result.exit_code == 0
    assert key[13:] not in result.output
    assert keys.find(conn, key) is None


def test_an_unknown_key_is_said_to_be_unknown(flask: Run) -> None:
    result = flask("keys", "revoke", "aaaaaaaa")
    assert result.exit_code == 1
    assert "flask keys list" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["operators", "list"], ["keys", "list"], ["operators", "remove", "a@b", "--yes"]]
)
def test_without_a_database_there_is_one_line_and_status_75(
    variables: dict[str, str], make_services: Callable[[Settings], Services], arguments: list[str]
) -> None:
    values = variables | {"DATABASE_URL": "postgresql://someone:hidden@127.0.0.1:1/none"}
    app = app_with_commands(make_services(Settings.from_mapping(values)))
    result = app.test_cli_runner().invoke(args=arguments)
    assert result.exit_code == 75
    assert result.stderr.startswith("Error: The database cannot be reached")
    assert result.stderr.count("\n") == 1
    assert "hidden" not in result.output


def test_without_tables_the_commands_name_the_release(
    variables: dict[str, str], empty_database_url: str, make_services: Callable[[Settings], Services]
) -> None:
    services = make_services(Settings.from_mapping(variables | {"DATABASE_URL": empty_database_url}))
    result = app_with_commands(services).test_cli_runner().invoke(args=["keys", "list"])
    assert result.exit_code == 1
    assert "flask release" in result.stderr
    services.pool.close()


def test_help_names_every_scope(flask: Run) -> None:
    text = flask("keys", "create", "--help").output
    for scope in keys.SCOPES:
        assert scope in text
