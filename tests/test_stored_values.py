"""What a starting process says of values that it cannot read: which key, which rows, and how bad it is."""

import logging
import re
from typing import Any

import psycopg
import pytest

from rdservice import database, stored_values
from rdservice.services import Services
from tests.key_changes import Keys, connect_accounts, upload

Conn = psycopg.Connection[Any]


def said_at_start(services: Services, caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return level and text of what a process with these settings logs at its start."""
    caplog.clear()
    caplog.set_level(logging.INFO, stored_values.log.name)
    stored_values.check_in_background(services.pool, services.keys).join(30)
    return [
        (found.levelname, found.getMessage())
        for found in caplog.records
        if found.name == stored_values.log.name
    ]


def test_when_all_keys_are_there_one_line_says_so(change: Keys, caplog: pytest.LogCaptureFixture) -> None:
    connect_accounts(change.before, "a")
    connect_accounts(change.after, "b")
    upload(change.after, "b")
    assert said_at_start(change.both, caplog) == [
        ("INFO", "all 4 values of rdstation_tokens are under keys of this process"),
        ("INFO", "all 2 values of rdstation_replaced_tokens are under keys of this process"),
    ]


def test_an_empty_database_is_no_news(change: Keys, caplog: pytest.LogCaptureFixture) -> None:
    assert said_at_start(change.both, caplog) == []


def test_a_missing_key_is_named_with_those_who_need_it(
    change: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    connect_accounts(change.before, "acme")
    upload(change.before, "acme")
    connect_accounts(change.after, "fine")
    assert said_at_start(change.after, caplog) == [
        (
            "CRITICAL",
            (
                f"2 values of {table} need the key {change.old_id}, which TOKEN_ENCRYPTION_KEYS lacks (accounts acme):"
                " put the key back and restart; nothing is lost"
            ),
        )
        for table in ("rdstation_tokens", "rdstation_replaced_tokens")
    ]


def test_of_many_accounts_a_few_are_named(change: Keys, caplog: pytest.LogCaptureFixture) -> None:
    connect_accounts(change.before, *"abcdefg")
    ((_, text),) = said_at_start(change.after, caplog)
    assert text.startswith("14 values of rdstation_tokens need")
    assert re.search(r"\(accounts ([a-g], ){4}[a-g] and more\)", text)


def test_damaged_values_are_told_apart_by_row_and_column(
    change: Keys, conn: Conn, caplog: pytest.LogCaptureFixture
) -> None:
    connect_accounts(change.before, "cut-off", "good", "moved")
    conn.execute(
        "UPDATE rdstation_tokens SET refresh_token = left(refresh_token, -8) WHERE account_id = 'cut-off'"
    )
    conn.execute(
        "UPDATE rdstation_tokens SET access_token ="
        " (SELECT access_token FROM rdstation_tokens WHERE account_id = 'good') WHERE account_id = 'moved'"
    )
    said = said_at_start(change.both, caplog)
    assert said == [
        ("INFO", "all 6 values of rdstation_tokens are under keys of this process"),
        (
            "ERROR",
            (
                "refresh_token of account 'cut-off' is damaged (rdstation_tokens):"
                " restore it from a backup or connect again"
            ),
        ),
        (
            "ERROR",
            (
                "access_token of account 'moved' belongs to another row or column (rdstation_tokens):"
                " restore it from a backup or connect again"
            ),
        ),
    ]


def test_plain_values_are_no_damage_but_a_release_that_was_not_run(
    change: Keys, conn: Conn, caplog: pytest.LogCaptureFixture
) -> None:
    connect_accounts(change.before, "plain")
    conn.execute("UPDATE rdstation_tokens SET access_token = 'planted-plain-token'")
    assert said_at_start(change.before, caplog) == [
        ("ERROR", "1 values of rdstation_tokens are not encrypted (accounts plain): run 'flask release'")
    ]
    assert "planted" not in caplog.text


def test_only_so_many_rows_are_decrypted(
    change: Keys, conn: Conn, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_values, "OPENED_AT_START", 2)
    connect_accounts(change.before, "a", "b", "c", "d")
    conn.execute(
        "UPDATE rdstation_tokens SET access_token = left(access_token, -8) WHERE account_id IN ('b', 'c')"
    )
    said = [text for level, text in said_at_start(change.before, caplog) if level == "ERROR"]
    assert [text.split(" is ")[0] for text in said] == ["access_token of account 'b'"]


def test_a_question_that_takes_too_long_is_given_up_and_the_process_goes_on(
    change: Keys, conn: Conn, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_accounts(change.before, "a")
    monkeypatch.setattr(
        database, "BEGIN", database.BEGIN.replace("lock_timeout = '5s'", "lock_timeout = '50ms'")
    )
    with conn.transaction():
        conn.execute("LOCK TABLE rdstation_tokens IN ACCESS EXCLUSIVE MODE")
        ((level, text),) = said_at_start(change.before, caplog)
    assert level == "WARNING"
    assert "LockNotAvailable" in text
    assert "'flask encryption status' tells" in text


def test_no_start_waits_for_the_answer(change: Keys, conn: Conn) -> None:
    connect_accounts(change.before, "a")
    with conn.transaction():
        conn.execute("LOCK TABLE rdstation_tokens IN ACCESS EXCLUSIVE MODE")
        running = stored_values.check_in_background(change.before.pool, change.before.keys)
        assert running.is_alive()
    running.join(30)
