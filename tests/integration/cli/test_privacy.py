"""`flask privacy`: erasing a person, and again after a backup was restored."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rdservice.access import audit
from rdservice.cache import search
from rdservice.cache.search import Found
from rdservice.leads.parameters import Listing
from rdservice.leads.queries import list_leads
from rdservice.services import Services
from tests.integration.cli.conftest import Run
from tests.support.accounts import connect_account
from tests.support.backup import Backup
from tests.support.deliveries import ANA, add, event, open_address
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]


def count(conn: Conn) -> int:
    """Return how many events are stored."""
    row = conn.execute("SELECT count(*) FROM rdservice_events").fetchone()
    assert row is not None
    return int(row[0])


EMAIL = "ana@example.com"


@pytest.fixture
def email(connected: Services, sandbox: SandboxProcess) -> str:
    """The address of a lead that is cached."""
    connect_account(connected, sandbox, due=False)
    page = Listing(page=1, page_size=25, order=None)
    listed = json.loads(list_leads(connected, "default", "1", page).content.body)
    return str(listed["contacts"][0]["email"])


@pytest.mark.parametrize("way", ["argument", "standard input", "prompt"])
def test_a_person_is_erased_and_the_numbers_are_printed(run: Run, email: str, conn: Conn, way: str) -> None:
    arguments = {"argument": [email], "standard input": ["-"], "prompt": []}[way]
    result = run("privacy", "erase", "--yes", *arguments, stdin=None if way == "argument" else f"{email}\n")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["removed"], told["left"], told["accounts"]) == ({"cached_answers": 1, "events": 0}, 0, 1)
    assert email not in result.stdout
    assert conn.execute("SELECT count(*) FROM rdstation_cache").fetchone() == (0,)
    done, begun = audit.newest(conn, limit=2)
    assert (begun.action, done.action) == ("erasure_begun", "person_erased")
    assert (done.origin, told["audit_entry"]) == ("flask privacy erase", done.entry_id)


def test_what_is_no_address_is_a_usage_error_that_does_not_repeat_it(run: Run, conn: Conn) -> None:
    for arguments, typed in ((["nobody-at-all"], None), (["-"], "nobody-at-all\n"), (["-"], "")):
        result = run("privacy", "erase", "--yes", *arguments, stdin=typed)
        assert result.exit_code == 2
        assert "email" in result.output
        assert "nobody-at-all" not in result.output
    assert audit.newest(conn, limit=1) == []


def test_what_cannot_be_proven_is_said_with_status_1(
    run: Run, email: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Found(left=1, fetched_again=0, unreadable=0)
    monkeypatch.setattr(search, "search", lambda *_, **__: found)
    result = run("privacy", "erase", email, "--yes")
    assert (result.exit_code, json.loads(result.stdout)["left"]) == (1, 1)


def test_nobody_is_erased_without_database(run_without_database: Run) -> None:
    assert run_without_database("privacy", "erase", EMAIL, "--yes").exit_code == 75


def test_an_export_of_the_audit_is_repeated_and_what_could_not_be_is_said(
    run: Run, connected: Services, conn: Conn, tmp_path: Path
) -> None:
    connect_account(connected, due=False)
    add(connected, open_address(connected), event())
    backup = Backup(conn)
    run("privacy", "erase", EMAIL, "--yes")
    file = tmp_path / "audit.json"
    file.write_text(run("audit", "list", "--json").stdout, encoding="utf-8")
    backup.restore()
    asked = run("privacy", "reapply", str(file))
    assert (asked.exit_code, count(conn)) == (2, 1)
    told = run("privacy", "reapply", str(file), "--yes")
    assert told.exit_code == 0, told.output
    report = json.loads(told.stdout)
    assert (report["erasures"], report["not_repeated"], report["removed"]["events"]) == (1, [], 1)
    assert EMAIL not in told.output
    lines = '{"entry": 7, "happened_at": "2026-03-13T14:00:00Z", "action": "person_erased", "details": {}}\n'
    old = run("privacy", "reapply", "-", "--yes", stdin=lines)
    assert (old.exit_code, json.loads(old.stdout)["not_repeated"]) == (1, [7])
    wrong = run("privacy", "reapply", "-", "--yes", stdin=lines + "ana@example.com\n")
    assert wrong.exit_code == 1
    assert "Line 2 " in wrong.output
    assert EMAIL not in wrong.output
    file.write_bytes(b"\xff\xfe")
    assert "UTF-8" in run("privacy", "reapply", str(file), "--yes").output


def test_a_lead_is_erased_by_its_uuid_here_and_at_rd_station(
    run: Run, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    add(connected, open_address(connected), event(email="former@example.com"))
    told = run("privacy", "erase", "-", "--at-rd-station", "--yes", stdin=f" {ANA.upper()} \n")
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["at_rd_station"] == {"leads": 0, "accounts": 1, "failed": []}
    assert count(conn) == 0
    sandbox.patch(faults=[{"operation": "contact_get", "kind": "status", "status": 503}])
    failed = run("privacy", "erase", ANA, "--at-rd-station", "--yes")
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["at_rd_station"]["failed"] == [
        {"account_id": "default", "code": "rdstation_failed"}
    ]
