"""Commands that destroy something ask first; nothing is destroyed unless somebody said so."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from rdservice.access import audit, keys, operators
from rdservice.services import Services
from tests.integration.cli.conftest import Run
from tests.support.accounts import connect_account

Conn = psycopg.Connection[Any]
Destroys = Callable[[], tuple[tuple[str, ...], Callable[[], bool]]]
EMAIL = "ana@example.com"


@pytest.fixture(params=["operator", "key", "account", "person"])
def destroys(
    request: pytest.FixtureRequest, connected: Services, conn: Conn
) -> tuple[tuple[str, ...], Callable[[], bool]]:
    """A command, and whether what it destroys is still there."""
    if request.param == "operator":
        assert operators.create(conn, EMAIL, "hash")
        return ("operators", "remove", EMAIL), lambda: bool(operators.list_all(conn))
    if request.param == "key":
        key = keys.create(conn, "shop", ["leads:read"], created_by="test")
        key_id = keys.key_id(key)
        return ("keys", "revoke", key_id), lambda: keys.find(conn, key) is not None
    if request.param == "account":
        connect_account(connected)
        return ("accounts", "disconnect", "default"), lambda: bool(
            conn.execute("SELECT FROM rdstation_tokens").fetchall()
        )
    return ("privacy", "erase", EMAIL), lambda: audit.newest(conn, limit=1) == []


def test_without_a_terminal_it_is_refused_and_says_what_to_give(
    run: Run, destroys: tuple[tuple[str, ...], Callable[[], bool]]
) -> None:
    command, is_there = destroys
    ended = run(*command, stdin="y\n")
    assert ended.exit_code == 2
    assert "--yes" in ended.stderr
    assert is_there()


def test_with_yes_it_is_done_without_a_question(
    run: Run, destroys: tuple[tuple[str, ...], Callable[[], bool]]
) -> None:
    command, is_there = destroys
    ended = run(*command, "--yes")
    assert ended.exit_code == 0, ended.output
    assert "[y/N]" not in ended.output
    assert not is_there()


@pytest.mark.parametrize(("typed", "status"), [("n\n", 1), ("\n", 1), ("", 1), ("y\n", 0)])
def test_on_a_terminal_it_is_done_after_a_yes_only(
    run: Run,
    destroys: tuple[tuple[str, ...], Callable[[], bool]],
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    status: int,
) -> None:
    command, is_there = destroys
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True)
    ended = run(*command, stdin=typed)
    assert ended.exit_code == status, ended.output
    assert "[y/N]" in ended.stderr
    assert "[y/N]" not in ended.stdout, "answers for programs stay clean"
    assert is_there() == (status != 0)
