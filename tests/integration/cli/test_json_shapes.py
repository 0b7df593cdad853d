"""What commands print for programs has the members that the page of commands lists, in both languages."""

import json
import re
from datetime import datetime
from typing import Any

import psycopg
import pytest
from argon2 import PasswordHasher

from rdservice.access import passwords
from rdservice.notifications import deliveries
from rdservice.notifications.targets import targets
from rdservice.services import Services
from tests.integration.cli.conftest import Run
from tests.support.accounts import connect_account
from tests.support.deliveries import open_address
from tests.support.documents import LANGUAGES, page, table_rows
from tests.support.sandbox_process import SandboxProcess

MORE_WORDS = {
    "operators create": ("bea@example.com", "--password-stdin"),
    "keys create": ("website", "--scope", "leads:read"),
    "privacy erase": ("ana@example.com", "--yes"),
    "privacy reapply": ("-", "--yes"),
}


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


@pytest.fixture
def filled(run: Run, connected: Services, sandbox: SandboxProcess, conn: psycopg.Connection[Any]) -> Run:
    """Runs commands where there is one of everything."""
    connect_account(connected, sandbox, due=False)
    assert run("accounts", "refresh").exit_code == 0
    open_address(connected)
    assert run("keys", "create", "shop", "--scope", "leads:read").exit_code == 0
    deliveries.begin_test(conn, targets(("json://127.0.0.1:9",), connected.settings.secret_key))
    created = run(
        "operators",
        "create",
        "ana@example.com",
        "--password-stdin",
        stdin="correct horse battery\n",
    )
    assert created.exit_code == 0
    return run


def documented(language: str) -> dict[str, tuple[str, list[str], list[str]]]:
    """Return by command: what is documented of the output: its form, its members, and those of the `attempts` in it."""
    found: dict[str, tuple[str, list[str], list[str]]] = {}
    members: list[str] = []
    for row in table_rows(page(language, "reference/commands").partition("\n## JSON\n")[2]):
        command = re.fullmatch(r"`flask ([a-z-]+ [a-z-]+)(?: --json)?`", row[0])
        if command is None:
            continue
        names = re.findall(r"`([a-z_]+)`", row[2])
        attempts: list[str] = []
        if not row[2].startswith("`"):
            if "attempts" in names:
                at = names.index("attempts") + 1
                names, attempts = names[:at], names[at:]
            # "The same, and …": as in the row above.
            names = members + names
        members = names
        found[command[1]] = (row[1], names, attempts)
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_answer_has_exactly_the_members_that_are_documented(filled: Run, language: str) -> None:
    listed = documented(language)
    assert len(listed) == 14
    for command, (shape, members, attempts) in listed.items():
        option = () if command.startswith("privacy ") else ("--json",)
        ended = filled(
            *command.split(),
            *MORE_WORDS.get(command, ()),
            *option,
            stdin="[]" if command == "privacy reapply" else "correct horse battery\n",
        )
        assert ended.exit_code == 0, ended.output
        response: Any = json.loads(ended.stdout)
        assert isinstance(response, list) == (shape.startswith(("an array", "uma lista"))), command
        first = response[0] if isinstance(response, list) else response
        assert list(first) == members, command
        if attempts:
            assert list(first["attempts"][0]) == attempts
        for member, value in first.items():
            if member.endswith("_at") and value is not None:
                assert str(datetime.fromisoformat(value).tzinfo) == "UTC", member


def test_the_key_in_the_answer_works(filled: Run, conn: psycopg.Connection[Any]) -> None:
    made = json.loads(filled("keys", "create", " x ", "--scope", "leads:read", "--json").stdout)
    assert (made["id"], made["name"], made["scopes"]) == (made["key"][4:12], "x", ["leads:read"])
