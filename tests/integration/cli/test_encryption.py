"""`flask encryption status` and `flask encryption rotate`."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet

from rdservice.access import audit
from rdservice.cli import progress
from rdservice.config.settings import ROOT
from rdservice.data_protection import key_inventory, key_rotation
from rdservice.encryption import KeyRing, key_id
from rdservice.services import Services
from tests.integration.cli.conftest import MakeRun, Run
from tests.support.accounts import row, stored_pair
from tests.support.key_changes import Keys, connect_accounts, upload

Conn = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_rotation, "PAUSE_S", 0.01)


def assert_shows_no_secret(output: str, change: Keys) -> None:
    assert "gAAAA" not in output
    for secret in (change.old.decode(), change.new.decode(), "access-of-", "refresh-of-"):
        assert secret not in output


def test_the_status_before_and_after_says_which_keys_are_needed(run_with: MakeRun, change: Keys) -> None:
    connect_accounts(change.before, "a", "b")
    upload(change.before, "a")
    run = run_with(change.both)
    before = run("encryption", "status")
    assert before.exit_code == 1
    assert before.stdout.splitlines() == [
        f"{change.new_id}  encrypts  no value",
        f"{change.old_id}  is needed  4 of rdstation_tokens, 2 of rdstation_replaced_tokens",
        "Do not drop any key yet.",
    ]
    rotated = run("encryption", "rotate")
    assert rotated.exit_code == 0
    after = [
        f"{change.new_id}  encrypts  4 of rdstation_tokens, 2 of rdstation_replaced_tokens",
        f"{change.old_id}  may be dropped  no value",
        "Every stored value can be read with the first key. All other keys may be dropped.",
    ]
    assert rotated.stdout.splitlines() == ["Re-encrypted 3 rows.", *after]
    status = run("encryption", "status")
    assert (status.exit_code, status.stdout.splitlines()) == (0, after)
    assert_shows_no_secret(before.output + rotated.output + status.output, change)


def test_a_run_that_changes_something_is_one_entry_in_the_audit(
    run_with: MakeRun, change: Keys, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_inventory, "PAGE_ROWS", 1)
    connect_accounts(change.before, "a", "b", "c")
    for _ in range(2):
        assert run_with(change.both)("encryption", "rotate").exit_code == 0
    (entry,) = audit.newest(conn, limit=10)
    assert (entry.action, entry.origin) == ("values_encrypted", "flask encryption rotate")
    assert entry.details == {"key_id": change.new_id}


def test_programs_get_the_same_as_json(run_with: MakeRun, change: Keys) -> None:
    connect_accounts(change.before, "a")
    run = run_with(change.both)
    status = run("encryption", "status", "--json")
    assert status.exit_code == 1
    assert json.loads(status.stdout) == {
        "first_key_is_enough": False,
        "keys": [
            {"key_id": change.new_id, "in_settings": True, "encrypts": True, "values": {}},
            {
                "key_id": change.old_id,
                "in_settings": True,
                "encrypts": False,
                "values": {"rdstation_tokens": 2},
            },
        ],
        "missing": [],
        "damaged": {"values": [], "total": 0},
        "not_encrypted": {"values": [], "total": 0},
    }
    rotated = json.loads(run("encryption", "rotate", "--json").stdout)
    assert (rotated["reencrypted_rows"], rotated["first_key_is_enough"]) == (1, True)


def test_a_missing_key_and_who_needs_it_are_named(run_with: MakeRun, change: Keys) -> None:
    connect_accounts(change.before, "needs-old")
    connect_accounts(change.after, "fine")
    run = run_with(change.after)
    for command in ("status", "rotate"):
        ended = run("encryption", command)
        assert ended.exit_code == 1
        assert f"{change.old_id}  is MISSING  2 of rdstation_tokens" in ended.stdout
        assert f"lacks the key {change.old_id}. It is needed by needs-old. Put it back" in ended.stdout
        assert "fine" not in ended.stdout
        assert_shows_no_secret(ended.output, change)
    found = json.loads(run("encryption", "status", "--json").stdout)
    assert found["missing"] == [{"key_id": change.old_id, "accounts": ["needs-old"], "total": 1}]


def test_many_rows_in_trouble_are_counted_and_the_first_are_named(
    run_with: MakeRun, change: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_inventory, "MOST_NAMED", 2)
    connect_accounts(change.before, "a", "b", "c", "d")
    ended = run_with(change.after)("encryption", "status")
    assert "It is needed by a, b and 2 more." in ended.stdout


def test_damaged_and_plain_values_are_told_apart_from_a_missing_key(
    run_with: MakeRun, change: Keys, conn: Conn
) -> None:
    connect_accounts(change.before, "damaged", "plain")
    conn.execute(
        "UPDATE rdstation_tokens SET refresh_token = left(refresh_token, -8) WHERE account_id = 'damaged'"
    )
    conn.execute("UPDATE rdstation_tokens SET access_token = 'planted-plain' WHERE account_id = 'plain'")
    for command in ("status", "rotate"):
        ended = run_with(change.both)("encryption", command)
        assert ended.exit_code == 1
        assert (
            "Damaged although the key is there: rdstation_tokens.refresh_token of damaged. Restore"
            in ended.stdout
        )
        assert "Not encrypted: rdstation_tokens.access_token of plain. Run 'flask release'." in ended.stdout
        assert "MISSING" not in ended.stdout
        assert "planted-plain" not in ended.output
        assert_shows_no_secret(ended.output, change)


def test_a_damaged_value_under_the_first_key_shows_in_the_status(
    run_with: MakeRun, change: Keys, conn: Conn
) -> None:
    connect_accounts(change.after, "default")
    conn.execute("UPDATE rdstation_tokens SET access_token = left(access_token, -8)")
    ended = run_with(change.after)("encryption", "status")
    assert ended.exit_code == 1
    assert "rdstation_tokens.access_token of default" in ended.stdout


def test_an_interruption_says_how_far_it_came_and_the_next_run_finishes(
    run_with: MakeRun, change: Keys, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_accounts(change.before, "a", "b")
    monkeypatch.setattr(key_inventory, "PAGE_ROWS", 1)
    encrypt = KeyRing.encrypt

    def interrupt(ring: KeyRing, column: str, account_id: str, value: str) -> str:
        if account_id == "b":
            raise KeyboardInterrupt
        return encrypt(ring, column, account_id, value)

    monkeypatch.setattr(KeyRing, "encrypt", interrupt)
    ended = run_with(change.both)("encryption", "rotate")
    assert ended.exit_code == 130
    assert "Interrupted: 1 row was re-encrypted. Run it again for the others." in ended.stderr
    monkeypatch.setattr(KeyRing, "encrypt", encrypt)
    assert run_with(change.both)("encryption", "rotate").exit_code == 0
    assert stored_pair(change.after, conn, "b") == ("access-of-b", "refresh-of-b")


def test_without_a_terminal_the_progress_is_told_in_lines_beside_the_result(
    run_with: MakeRun, change: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_accounts(change.before, "a", "b", "c")
    monkeypatch.setattr(key_inventory, "PAGE_ROWS", 2)
    monkeypatch.setattr(progress, "SAY_EVERY_S", 0.0)
    ended = run_with(change.both)("encryption", "rotate")
    assert "Re-encrypting: 2 of 3 rows\nRe-encrypting: 3 of 3 rows\n" in ended.stderr
    assert "of 3 rows" not in ended.stdout


def test_an_empty_database_needs_no_key_but_the_first(run_with: MakeRun, change: Keys) -> None:
    ended = run_with(change.both)("encryption", "rotate", "--json")
    assert ended.exit_code == 0
    assert json.loads(ended.stdout)["first_key_is_enough"]


def test_without_database_both_commands_end_with_75(run_without_database: Run) -> None:
    for command in ("status", "rotate"):
        ended = run_without_database("encryption", command)
        assert ended.exit_code == os.EX_TEMPFAIL
        assert "DATABASE_URL" in ended.stderr
        assert "Traceback" not in ended.output


def test_before_the_release_both_commands_say_so(run_before_release: Run) -> None:
    for command in ("status", "rotate"):
        ended = run_before_release("encryption", command)
        assert ended.exit_code == 1
        assert "flask release" in ended.stderr


def real(variables: dict[str, str], folder: Path, *keys: bytes) -> dict[str, str]:
    """Return the environment of a real `flask` process."""
    return variables | {
        "TOKEN_ENCRYPTION_KEYS": b",".join(keys).decode(),
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "RDSERVICE_DATA_DIR": str(folder),
    }


def test_on_a_terminal_there_is_a_bar(variables: dict[str, str], change: Keys, tmp_path: Path) -> None:
    connect_accounts(change.before, "a", "b")
    terminal, side = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "flask", "encryption", "rotate"],
            cwd=ROOT,
            env=real(variables, tmp_path, change.new, change.old) | {"TERM": "xterm"},
            stdin=side,
            stderr=side,
            stdout=subprocess.PIPE,
            timeout=60,
            check=False,
        )
        shown = os.read(terminal, 100_000).decode()
    finally:
        os.close(terminal)
        os.close(side)
    assert done.returncode == 0, shown
    assert "Re-encrypting" in shown
    assert "100%" in shown
    assert done.stdout.startswith(b"Re-encrypted 2 rows.")


def test_killed_in_the_middle_it_loses_nothing_and_the_next_run_finishes(
    variables: dict[str, str], change: Keys, conn: Conn, tmp_path: Path, run_with: MakeRun
) -> None:
    accounts = ["a", "b", "c", "d"]
    connect_accounts(change.before, *accounts)
    program = (
        "import sys\n"
        "from rdservice.access import audit\n"
        "from rdservice.data_protection import key_inventory, key_rotation\n"
        "from rdservice.encryption import KeyRing\n"
        "from rdservice.services import Services\n"
        "from rdservice.config.settings import Settings\n"
        "key_inventory.PAGE_ROWS = 2\n"
        "encrypt = KeyRing.encrypt\n"
        "def slow(ring, column, account_id, value):\n"
        "    if account_id == 'd':\n"
        "        print('half way', flush=True)\n"
        "        sys.stdin.read()\n"
        "    return encrypt(ring, column, account_id, value)\n"
        "KeyRing.encrypt = slow\n"
        "services = Services.start(Settings.load(), name='test')\n"
        "by = audit.command_line('test')\n"
        "key_rotation.run(services.pool, services.keys, key_rotation.Progress(), by=by)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=real(variables, tmp_path, change.new, change.old),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "half way\n"
    finally:
        process.kill()
        process.communicate(timeout=20)
    assert {row(conn, account)["refresh_token"][:8] for account in "ab"} == {change.new_id}
    assert {row(conn, account)["refresh_token"][:8] for account in "cd"} == {change.old_id}
    ended = run_with(change.both)("encryption", "rotate")
    assert (ended.exit_code, ended.stdout.splitlines()[0]) == (0, "Re-encrypted 2 rows.")
    for account in accounts:
        assert stored_pair(change.after, conn, account) == (f"access-of-{account}", f"refresh-of-{account}")


def test_leads_under_a_key_that_is_gone_keep_no_key_needed(
    run_with: MakeRun, services: Services, change: Keys, conn: Conn
) -> None:
    connect_accounts(change.after, "default")
    gone = KeyRing([Fernet.generate_key()])
    conn.execute(
        "INSERT INTO rdstation_cache (key, account_id, connection_id, epoch, value, fetched_at, expires_at)"
        " SELECT '\\x01', account_id, connection_id, 0, %s, rd_now(), rd_now() + interval '1 day'"
        "   FROM rdstation_tokens",
        [gone.encrypt("cache/01", "default", "leads")],
    )
    ended = run_with(change.after)("encryption", "status")
    assert ended.exit_code == 0
    assert f"{gone.key_ids[0]}  is MISSING  1 of rdstation_cache" in ended.stdout
    assert key_id(change.new) in ended.stdout
