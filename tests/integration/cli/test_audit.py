"""What commands leave in the audit, and `flask audit list`."""

import json
from typing import Any

import click
import psycopg
import pytest
from argon2 import PasswordHasher

from rdservice.access import audit, passwords
from rdservice.services import Services
from tests.integration.cli.conftest import Run
from tests.support.accounts import BY, connect_account
from tests.support.command_line import app_with_commands
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
PASSWORD = "correct horse battery\n"

DEEDS: dict[str, str | None] = {
    "release": "values_encrypted",
    "operators create": "operator_created",
    "operators reset-password": "password_reset",
    "operators remove": "operator_removed",
    "operators list": None,
    "keys create": "key_created",
    "keys revoke": "key_revoked",
    "keys list": None,
    "accounts refresh": "tokens_refreshed",
    "accounts rename": "account_renamed",
    "accounts disconnect": "account_disconnected",
    "accounts list": None,
    "accounts show": None,
    "webhooks subscribe": "events_subscribed",
    "webhooks unsubscribe": "events_unsubscribed",
    "webhooks list": None,
    "leads export": "leads_exported",
    "audit list": None,
    "encryption rotate": "values_encrypted",
    "encryption status": None,
    "notifications list": None,
    "notifications test": "notification_tested",
    "privacy erase": "person_erased",
    "privacy reapply": "person_erased",
    "settings check": None,
}
"""What each command leaves behind; None: it only looks."""


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


def test_every_command_says_what_it_leaves_in_the_audit(connected: Services) -> None:
    offered = set()
    for command in app_with_commands(connected).cli.commands.values():
        if isinstance(command, click.Group):
            offered |= {f"{command.name} {sub}" for sub in command.commands}
        else:
            offered.add(str(command.name))
    assert DEEDS.keys() == offered - {"run", "shell", "routes"}


def test_what_commands_do_is_known_by_command_and_user(
    run: Run, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    def entry_of(*arguments: str, stdin: str | None = None) -> audit.Entry:
        result = run(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.output
        entry = audit.newest(conn, limit=1)[0]
        command = " ".join(arguments[: 1 if arguments[0] == "release" else 2])
        assert (entry.origin, entry.action) == (f"flask {command}", DEEDS[command])
        assert (entry.actor_kind, entry.actor_name, entry.request_id) == (
            "command",
            audit.command_line("").name,
            None,
        )
        return entry

    email = "ana@example.com"
    assert (
        entry_of("operators", "create", "Ana@example.com", "--password-stdin", stdin=PASSWORD).subject
        == email
    )
    assert entry_of("operators", "reset-password", "ANA@example.com", "--password-stdin", stdin=PASSWORD)
    assert entry_of("operators", "remove", email, "--yes").subject == email
    created = entry_of("keys", "create", "shop", "--scope", "leads:read")
    assert created.details == {"name": "shop", "scopes": ["leads:read"]}
    assert created.subject is not None
    assert entry_of("keys", "revoke", created.subject, "--yes").subject == created.subject
    numbers = {"accounts": 0, "removed": 0, "left": 0}
    erased = entry_of("privacy", "erase", email, "--yes").details
    assert len(erased.pop("person")) == 1
    assert erased == numbers
    reapplied = entry_of("privacy", "reapply", "-", "--yes", stdin="[]").details
    assert reapplied == {**numbers, "reapplied": 0}
    connect_account(connected, sandbox, due=False)
    assert entry_of("accounts", "refresh").account_id == "default"
    assert entry_of("webhooks", "subscribe").account_id == "default"
    assert entry_of("webhooks", "unsubscribe").account_id == "default"
    assert entry_of("leads", "export", "-").details["full"] is False
    conn.execute("UPDATE rdstation_tokens SET access_token = 'plain'")
    assert entry_of("release").details == {"accounts": 1}
    assert entry_of("accounts", "rename", "default", "shop").details == {"previous": "default"}
    assert entry_of("accounts", "disconnect", "shop", "--yes").account_id == "shop"
    everything = str(conn.execute("SELECT a::text FROM rdservice_audit a").fetchall())
    assert PASSWORD.strip() not in everything


def test_commands_that_do_nothing_leave_nothing(run: Run, conn: Conn) -> None:
    assert run("operators", "remove", "nobody@example.com", "--yes").exit_code == 1
    assert run(
        "operators", "reset-password", "nobody@example.com", "--password-stdin", stdin=PASSWORD
    ).exit_code
    assert run("keys", "revoke", "aaaaaaaa").exit_code == 1
    assert run("accounts", "disconnect", "nobody", "--yes").exit_code == 1
    assert run("release").exit_code == 0
    for command, action in DEEDS.items():
        if action is None and command != "accounts show":
            assert run(*command.split()).exit_code == 0
    assert audit.newest(conn, limit=10) == []


def test_the_audit_is_listed_newest_first_for_people_and_as_json(run: Run, conn: Conn) -> None:
    audit.record(conn, BY, "key_created", subject="abcdefgh", name="shop")
    audit.record(conn, BY, "account_disconnected", account_id="branch")
    lines = run("audit", "list").output.splitlines()
    assert len(lines) == 2
    assert lines[0].endswith(" UTC  command tester  account_disconnected branch  (pytest)")
    assert "key_created abcdefgh" in lines[1]
    newer, older = json.loads(run("audit", "list", "--json").output)
    assert (newer["account_id"], newer["entry"] > older["entry"]) == ("branch", True)
    assert older["actor"] == {"kind": "command", "id": None, "name": "tester"}
    assert (older["action"], older["subject"], older["details"]) == (
        "key_created",
        "abcdefgh",
        {"name": "shop"},
    )


def test_the_audit_cannot_be_listed_without_database(run_without_database: Run) -> None:
    assert run_without_database("audit", "list").exit_code == 75
