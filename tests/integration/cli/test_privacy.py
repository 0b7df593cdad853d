"""`flask privacy erase`."""

import json
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
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]

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
