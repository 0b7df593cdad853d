"""Encryption of the plain tokens that an older backend left."""

import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest
from psycopg import sql

from rdservice.config.settings import ROOT
from rdservice.database import migrate
from rdservice.database.pool import transaction
from rdservice.encryption import ENCRYPTED
from rdservice.tokens import adoption, store
from tests.support.accounts import BY
from tests.support.older_table import (
    INSERT_USUAL,
    KEY,
    KEYS,
    NO_KEY,
    USUAL,
    Conn,
    Release,
    rows,
    text_of,
    tokens,
)


def test_an_adopted_row_is_read_and_claimed_like_any_other(older: Conn, release: Release) -> None:
    older.execute(USUAL)
    older.execute(INSERT_USUAL, ["default", "plain-access", "plain-refresh"])
    release()
    with transaction(release.pool) as inside:
        token = store.read_token(inside, KEYS, "default")
        (state,) = store.list_accounts(inside)
    assert token is not None
    assert token.access_token == "plain-access"
    assert token.life_left_s > 4 * 3600
    assert state.due_at <= state.now


def test_a_second_release_changes_nothing(older: Conn, release: Release) -> None:
    older.execute(USUAL)
    older.execute(INSERT_USUAL, ["default", "plain-a", "plain-r"])
    assert release() == 1
    before = rows(older)
    assert release() == 0
    assert rows(older) == before


def test_more_rows_than_one_batch_are_all_encrypted(
    older: Conn, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "BATCH", 7)
    older.execute(USUAL)
    for number in range(30):
        older.execute(INSERT_USUAL, [f"account-{number}", f"plain-a{number}", f"plain-r{number}"])
    assert release() == 30
    assert "plain" not in text_of(older)
    assert len(tokens(older)) == 30


def test_two_releases_at_once_encrypt_each_row_once(
    older: Conn, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "BATCH", 5)
    older.execute(USUAL)
    for number in range(60):
        older.execute(INSERT_USUAL, [f"account-{number:02}", f"plain-a{number}", f"plain-r{number}"])
    migrate.migrate(older)
    together = threading.Barrier(2)
    counts: list[int] = []

    def encrypt() -> None:
        together.wait(20)
        counts.append(adoption.encrypt_plain_rows(release.pool, KEYS, by=BY))

    threads = [threading.Thread(target=encrypt) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(counts) == 60
    assert len(counts) == 2
    assert tokens(older) == {f"account-{n:02}": (f"plain-a{n}", f"plain-r{n}") for n in range(60)}


def test_a_release_killed_in_the_middle_is_finished_by_the_next(
    older: Conn, release: Release, empty_database_url: str
) -> None:
    older.execute(USUAL)
    for number in range(4):
        older.execute(INSERT_USUAL, [f"account-{number}", f"plain-a{number}", f"plain-r{number}"])
    program = (
        "import sys, psycopg\n"
        "from rdservice.database import migrate\n"
        "from rdservice.database import pool as database\n"
        "from rdservice.encryption import KeyRing\n"
        "from rdservice.tokens import adoption\n"
        "from tests.support.accounts import BY\n"
        "url, key = sys.argv[1], sys.argv[2]\n"
        "migrate.migrate(psycopg.connect(url, autocommit=True))\n"
        "adoption.BATCH = 2\n"
        "class Ring(KeyRing):\n"
        "    def encrypt(self, column, account_id, value):\n"
        "        if account_id == 'account-3':\n"
        "            print('half way', flush=True)\n"
        "            sys.stdin.read()\n"
        "        return super().encrypt(column, account_id, value)\n"
        "pool = database.create_pool(url, max_size=2, name='release')\n"
        "adoption.encrypt_plain_rows(pool, Ring([key.encode()]), by=BY)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, empty_database_url, KEY.decode()],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "half way\n"
        process.kill()
        process.wait(20)
    finally:
        process.kill()
        process.communicate(timeout=20)
    assert text_of(older).count("plain") == 4
    assert release() == 2
    assert tokens(older) == {f"account-{n}": (f"plain-a{n}", f"plain-r{n}") for n in range(4)}


def test_the_older_backend_may_go_on_writing_and_the_next_release_adopts_it(
    older: Conn, release: Release
) -> None:
    older.execute(USUAL)
    older.execute(INSERT_USUAL, ["default", "plain-a", "plain-r"])
    release()
    before = {row["account_id"]: row for row in rows(older)}
    older.execute(INSERT_USUAL, ["late", "plain-late-a", "plain-late-r"])
    older.execute(
        "UPDATE rdstation_tokens SET access_token = 'plain-new-a', refresh_token = 'plain-new-r',"
        " expires_at = now() AT TIME ZONE 'UTC' + interval '1 day', updated_at = now() WHERE account_id = 'default'"
    )
    older.execute(
        "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, expires_at) VALUES"
        " ('late', 'plain-later-a', 'plain-later-r', now())"
        " ON CONFLICT (account_id) DO UPDATE SET access_token = EXCLUDED.access_token,"
        " refresh_token = EXCLUDED.refresh_token, expires_at = EXCLUDED.expires_at"
    )
    assert release() == 2
    assert tokens(older) == {
        "default": ("plain-new-a", "plain-new-r"),
        "late": ("plain-later-a", "plain-later-r"),
    }
    for row in rows(older):
        assert row["status"] == "connected"
        assert row["due_at"] <= datetime.now(UTC)
        # Back-offs are shares of this: without a life they would be none.
        assert row["issued_at"] < row["expires_at"]
    assert rows(older)[0]["connection_id"] == before["default"]["connection_id"]


def test_a_row_that_was_found_plain_before_its_adoption_is_usable_again(
    older: Conn, release: Release
) -> None:
    older.execute(USUAL)
    release()
    older.execute(INSERT_USUAL, ["late", "plain-a", "plain-r"])
    # What the worker makes of a refresh token that it cannot decrypt.
    older.execute(
        "UPDATE rdstation_tokens SET status = 'reauthorization_required', last_error = 'damaged', failures = 1"
    )
    assert release() == 1
    (row,) = rows(older)
    assert (row["status"], row["last_error"], row["failures"]) == ("connected", None, 0)
    assert row["due_at"] <= datetime.now(UTC)


def test_only_the_plain_one_of_two_tokens_is_encrypted(older: Conn, release: Release) -> None:
    older.execute(USUAL)
    older.execute(INSERT_USUAL, ["default", "plain-a", "plain-r"])
    release()
    older.execute("UPDATE rdstation_tokens SET access_token = 'plain-new-a'")
    assert release() == 1
    assert tokens(older) == {"default": ("plain-new-a", "plain-r")}


def test_no_plain_token_is_matched_by_what_finds_plain_rows(older: Conn, release: Release) -> None:
    older.execute(USUAL)
    odd = ["x.00000000.gAAAA", "0000000g.gAAAA", "01234567-gAAAA", "eyJ.eyJ.sig"]
    for number, token in enumerate(odd):
        older.execute(INSERT_USUAL, [f"account-{number}", token, f"{token}-refresh"])
    assert release() == len(odd)
    assert [pair[0] for pair in tokens(older).values()] == odd
    assert older.execute(
        "SELECT bool_and(access_token ~ %s) FROM rdstation_tokens", [ENCRYPTED]
    ).fetchone() == (True,)


@pytest.mark.parametrize(
    ("name", "value", "suspicious"),
    [
        ("previous_refresh_token", "0123456789abcdef0123456789abcdef", True),
        ("Client Secret", "0123456789abcdef0123456789abcdef", True),
        ("anything", '{"jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOjF9.c2ln"}', True),
        ("raw", '{"refresh_token": "0123456789abcdef", "token_type": "bearer"}', True),
        ("raw", "access_token=0123456789abcdef&expires_in=86400", True),
        ("raw", '{"refresh_token": "***", "token_type": "bearer"}', False),
        ("grant_type", "refresh_token", False),
        ("token_type", "Bearer", False),
        ("old_token", "***", False),
        ("old_token", None, False),
        ("note", "0123456789abcdef0123456789abcdef", False),
    ],
)
def test_columns_that_seem_to_hold_further_tokens_are_named(
    older: Conn, release: Release, name: str, value: str | None, suspicious: bool
) -> None:
    create = sql.SQL("{}, {} text)").format(sql.SQL(NO_KEY[:-1]), sql.Identifier(name))
    older.execute(create)
    older.execute(
        "INSERT INTO rdstation_tokens VALUES ('a', 'plain-access', 'plain-refresh', now(), %s)", [value]
    )
    release()
    assert adoption.columns_with_tokens(older) == ([name] if suspicious else [])


@pytest.mark.parametrize("sql_type", ["text", "varchar(200)", "json", "jsonb", "bytea", "text[]"])
def test_copies_of_tokens_stay_until_the_sql_that_is_proposed_empties_them(
    older: Conn, release: Release, sql_type: str
) -> None:
    value = '{"access_token=plain-access"}' if sql_type == "text[]" else '{"access_token": "plain-access"}'
    older.execute(f'{NO_KEY[:-1]}, "raw (100%) ""answer""" {sql_type} NOT NULL, note text)'.encode())
    older.execute(
        "INSERT INTO rdstation_tokens VALUES ('a', 'plain-access', 'plain-refresh', now(), %s, 'kept')",
        [value],
    )
    older.execute("ANALYZE rdstation_tokens")
    release()
    columns = adoption.columns_with_tokens(older)
    assert columns == ['raw (100%) "answer"']
    assert rows(older)[0][columns[0]] is not None

    older.execute(adoption.blanking(columns).encode())
    assert adoption.columns_with_tokens(older) == []
    assert (rows(older)[0][columns[0]], rows(older)[0]["note"]) == (None, "kept")
    assert tokens(older) == {"a": ("plain-access", "plain-refresh")}
    samples = older.execute("SELECT * FROM pg_stats WHERE tablename = 'rdstation_tokens'").fetchall()
    assert "plain" not in str(samples)


def test_a_table_of_ours_has_no_such_columns(older: Conn, release: Release) -> None:
    release()
    assert adoption.columns_with_tokens(older) == []
