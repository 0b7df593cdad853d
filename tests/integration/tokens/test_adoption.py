"""Adoption of the table that an older backend left: no row is lost, no token stays plain."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from rdservice.config.settings import ROOT
from rdservice.database import migrate
from rdservice.database.pool import create_pool, transaction
from rdservice.encryption import ENCRYPTED, KeyRing
from rdservice.tokens import adoption, store
from tests.support.accounts import BY

Conn = psycopg.Connection[Any]
Pool = ConnectionPool[Conn]
KEY = Fernet.generate_key()
KEYS = KeyRing([KEY])

USUAL = (
    "CREATE TABLE rdstation_tokens ("
    " id serial PRIMARY KEY, account_id varchar(64) NOT NULL UNIQUE, access_token varchar(4000) NOT NULL,"
    " refresh_token varchar(255) NOT NULL, expires_at timestamp NOT NULL,"
    " created_at timestamp NOT NULL DEFAULT now(), updated_at timestamp NOT NULL DEFAULT now())"
)
INSERT_USUAL = (
    "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, expires_at)"
    " VALUES (%s, %s, %s, now() AT TIME ZONE 'UTC' + interval '5 hours')"
)


@pytest.fixture
def conn(empty_database_url: str) -> Iterator[Conn]:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def pool(empty_database_url: str) -> Iterator[Pool]:
    with create_pool(empty_database_url, max_size=3, name="test") as pool:
        yield pool


@pytest.fixture
def release(conn: Conn, pool: Pool) -> Callable[[], int]:
    """Does what `flask release` does; returns the number of rows whose tokens were encrypted."""

    def run() -> int:
        migrate.migrate(conn)
        return adoption.encrypt_plain_rows(pool, KEYS, by=BY)

    return run


def rows(conn: Conn) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cur:
        return cur.execute("SELECT * FROM rdstation_tokens ORDER BY account_id").fetchall()


def tokens(conn: Conn) -> dict[str, tuple[str, str]]:
    """Return the decrypted access and refresh token of each account."""
    return {
        row["account_id"]: (
            KEYS.decrypt("access_token", row["account_id"], row["access_token"]),
            KEYS.decrypt("refresh_token", row["account_id"], row["refresh_token"]),
        )
        for row in rows(conn)
    }


def text_of(conn: Conn) -> str:
    return str(conn.execute("SELECT string_agg(t::text, '|') FROM rdstation_tokens t").fetchone())


def test_a_table_as_older_backends_keep_it_is_adopted(conn: Conn, release: Callable[[], int]) -> None:
    conn.execute(USUAL)
    for account in ("default", "acme", "ção"):
        conn.execute(INSERT_USUAL, [account, f"plain-access-{account}", f"plain-refresh-{account}"])
    assert release() == 3
    assert tokens(conn) == {
        account: (f"plain-access-{account}", f"plain-refresh-{account}")
        for account in ("default", "acme", "ção")
    }
    assert "plain" not in text_of(conn)
    for row in rows(conn):
        assert row["status"] == "connected"
        left = row["expires_at"] - datetime.now(UTC)
        assert timedelta(hours=4) < left < timedelta(hours=5, minutes=1)
        assert row["issued_at"] < row["expires_at"]
        assert row["refresh_after"] <= datetime.now(UTC)
        assert row["legacy_created_at"] is not None
    assert len({row["connection_id"] for row in rows(conn)}) == 3
    assert len({row["authorization_id"] for row in rows(conn)}) == 3


def test_an_adopted_row_is_read_and_claimed_like_any_other(
    conn: Conn, pool: Pool, release: Callable[[], int]
) -> None:
    conn.execute(USUAL)
    conn.execute(INSERT_USUAL, ["default", "plain-access", "plain-refresh"])
    release()
    with transaction(pool) as inside:
        token = store.read_token(inside, KEYS, "default")
        (state,) = store.list_accounts(inside)
    assert token is not None
    assert token.access_token == "plain-access"
    assert token.life_left_s > 4 * 3600
    assert state.due_at <= state.now


NOON = "2030-06-01 12:00:00"
EPOCH = int(datetime(2030, 6, 1, 12, tzinfo=UTC).timestamp())
EXPIRY_TYPES: dict[str, tuple[str, object]] = {
    "timestamptz": ("timestamptz", f"{NOON}+00"),
    "timestamp without time zone": ("timestamp", NOON),
    "epoch as integer": ("integer", EPOCH),
    "epoch as bigint": ("bigint", EPOCH),
    "epoch in milliseconds": ("bigint", EPOCH * 1000),
    "epoch as numeric": ("numeric(20,3)", EPOCH),
    "epoch as double": ("double precision", float(EPOCH)),
    "text": ("text", "2030-06-01T12:00:00"),
    "varchar in UTC": ("varchar(40)", "2030-06-01T12:00:00Z"),
    "varchar with an offset": ("varchar(40)", "2030-06-01T09:00:00-03:00"),
    "varchar with microseconds": ("varchar(40)", "2030-06-01 12:00:00.000000"),
    "varchar with epoch": ("varchar(40)", f"{EPOCH}"),
    "varchar with fractions of an epoch": ("varchar(40)", f"{EPOCH}.0"),
    "varchar with milliseconds": ("varchar(40)", f"{EPOCH}000"),
}


@pytest.mark.parametrize("kind", EXPIRY_TYPES)
def test_an_expiry_of_any_type_keeps_its_moment(conn: Conn, release: Callable[[], int], kind: str) -> None:
    sql_type, value = EXPIRY_TYPES[kind]
    conn.execute(
        "CREATE TABLE rdstation_tokens (account_id varchar(50) PRIMARY KEY, access_token varchar(2000),"
        f" refresh_token varchar(200), expires_at {sql_type})".encode()
    )
    conn.execute("INSERT INTO rdstation_tokens VALUES ('default', 'plain-a', 'plain-r', %s)", [value])
    # Whatever the session that migrates is set to.
    conn.execute("SET TimeZone = 'America/Sao_Paulo'")
    assert release() == 1
    (row,) = rows(conn)
    assert row["expires_at"] == datetime(2030, 6, 1, 12, tzinfo=UTC)
    assert tokens(conn) == {"default": ("plain-a", "plain-r")}


@pytest.mark.parametrize("value", ["", "soon", "2030-13-45", "1e400", "99999999999999999999999999"])
def test_an_expiry_that_cannot_be_read_counts_as_passed(
    conn: Conn, release: Callable[[], int], value: str
) -> None:
    conn.execute(
        "CREATE TABLE rdstation_tokens (account_id text, access_token text, refresh_token text, expires_at text)"
    )
    conn.execute("INSERT INTO rdstation_tokens VALUES ('default', 'plain-a', 'plain-r', %s)", [value])
    assert release() == 1
    (row,) = rows(conn)
    assert datetime.now(UTC) - timedelta(minutes=1) < row["expires_at"] <= datetime.now(UTC)
    assert tokens(conn) == {"default": ("plain-a", "plain-r")}


COLUMNS = {
    "account_id": "varchar(40)",
    "access_token": "varchar(2000)",
    "refresh_token": "varchar(200)",
    "expires_at": "timestamp",
}


@pytest.mark.parametrize("missing", COLUMNS)
def test_a_missing_column_is_made_up_for(conn: Conn, release: Callable[[], int], missing: str) -> None:
    kept = {name: sql_type for name, sql_type in COLUMNS.items() if name != missing}
    values = {
        "account_id": "acme",
        "access_token": "plain-a",
        "refresh_token": "plain-r",
        "expires_at": "2030-06-01 12:00",
    }
    definition = ", ".join(f"{name} {sql_type} NOT NULL" for name, sql_type in kept.items())
    insert = sql.SQL("INSERT INTO rdstation_tokens ({}) VALUES ({})").format(
        sql.SQL(", ").join(map(sql.Identifier, kept)), sql.SQL(", ").join(map(sql.Placeholder, kept))
    )
    conn.execute(f"CREATE TABLE rdstation_tokens ({definition})".encode())
    conn.execute(insert, values)
    assert release() == 1
    account = "default" if missing == "account_id" else "acme"
    found = tokens(conn)[account]
    assert found[0] == ("" if missing == "access_token" else "plain-a")
    assert found[1] == ("" if missing == "refresh_token" else "plain-r")
    (row,) = rows(conn)
    if missing == "refresh_token":
        assert (row["status"], row["last_error"]) == ("reauthorization_required", "no_refresh_token")
    else:
        assert row["status"] == "connected"
    if missing in ("access_token", "expires_at"):
        assert row["expires_at"] <= datetime.now(UTC)
    assert "plain" not in text_of(conn)

    # The older backend may go on for as long as the deployment takes.
    conn.execute("DELETE FROM rdstation_tokens")
    conn.execute(insert, values)
    assert release() == 1
    assert list(tokens(conn)) == [account]
    (row,) = rows(conn)
    assert row["issued_at"] < row["expires_at"]
    assert (row["status"] == "reauthorization_required") is (missing == "refresh_token")


def test_columns_of_the_same_name_and_other_meaning_are_kept_aside(
    conn: Conn, release: Callable[[], int]
) -> None:
    conn.execute(
        "CREATE TABLE rdstation_tokens ("
        " id bigserial PRIMARY KEY, account_id text NOT NULL, access_token text NOT NULL, refresh_token text NOT NULL,"
        " expires_at timestamptz NOT NULL, status integer NOT NULL CHECK (status IN (0, 1)), name varchar(10) NOT NULL,"
        " last_error json, failures text, holder varchar(3) UNIQUE, due_at date,"
        " company_id integer NOT NULL CHECK (company_id > 0), note text NOT NULL)"
    )
    conn.execute("CREATE UNIQUE INDEX one_company ON rdstation_tokens (company_id)")
    conn.execute(
        "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, expires_at, status, name, last_error,"
        " failures, holder, due_at, company_id, note)"
        " VALUES ('default', 'plain-a', 'plain-r', '2030-06-01Z', 1, 'Acme', '{}', 'many', 'abc', '2026-01-01', 7,"
        " 'hi')"
    )
    assert release() == 1
    (row,) = rows(conn)
    kept = ("id", "legacy_status", "legacy_name", "legacy_failures", "legacy_holder", "company_id", "note")
    assert [row[name] for name in kept] == [1, 1, "Acme", "many", "abc", 7, "hi"]
    assert (row["status"], row["name"], row["failures"], row["holder"]) == ("connected", None, 0, None)
    # Our own statements do not name the older backend's columns.
    with conn.transaction():
        store.authorize(
            conn,
            KEYS,
            "another",
            access_token="a",
            refresh_token="r",
            expires_in_s=60,
            verified=True,
            proven=True,
        )
    assert [row["company_id"] for row in rows(conn)] == [None, 7]


def test_references_of_the_older_backend_do_not_stand_in_the_way(
    conn: Conn, release: Callable[[], int]
) -> None:
    conn.execute("CREATE TABLE companies (id integer PRIMARY KEY)")
    conn.execute("INSERT INTO companies VALUES (7)")
    conn.execute(
        "CREATE TABLE rdstation_tokens (account_id integer NOT NULL REFERENCES companies, access_token text,"
        " refresh_token text, expires_at timestamptz)"
    )
    conn.execute("INSERT INTO rdstation_tokens VALUES (7, 'plain-a', 'plain-r', now())")
    assert release() == 1
    assert tokens(conn) == {"7": ("plain-a", "plain-r")}
    assert conn.execute("SELECT id FROM companies").fetchall() == [(7,)]


NO_KEY = "CREATE TABLE rdstation_tokens (account_id text, access_token text, refresh_token text, expires_at timestamp)"


def test_an_account_that_stands_there_twice_keeps_all_its_refresh_tokens(
    conn: Conn, release: Callable[[], int]
) -> None:
    conn.execute(NO_KEY)
    for access, refresh, hours in [
        ("a1", "r1", 1),
        ("a2", "r2", 9),
        ("a3", "r3", 5),
        ("a4", "", 20),
        ("a2", "r2", 9),
    ]:
        conn.execute(
            "INSERT INTO rdstation_tokens VALUES ('acme', %s, %s, now() + %s * interval '1 hour')",
            [access, refresh, hours],
        )
    conn.execute("INSERT INTO rdstation_tokens VALUES ('other', 'a5', 'r5', now())")
    release()
    # The one that lasts longest, of those that can be renewed, is the account.
    assert tokens(conn) == {
        "acme": ("a2", "r2"),
        "acme~2": ("a3", "r3"),
        "acme~3": ("a1", "r1"),
        "acme~4": ("a4", ""),
        "other": ("a5", "r5"),
    }


def test_a_history_of_access_tokens_with_one_refresh_token_is_one_account(
    conn: Conn, release: Callable[[], int]
) -> None:
    conn.execute(NO_KEY)
    for number in (3, 9, 1):
        conn.execute(
            "INSERT INTO rdstation_tokens VALUES ('acme', %s, 'same', now() + %s * interval '1 hour')",
            [f"access-{number}", number],
        )
    release()
    assert tokens(conn) == {"acme": ("access-9", "same")}


def test_rows_without_account_are_the_default_account(conn: Conn, release: Callable[[], int]) -> None:
    conn.execute(NO_KEY)
    conn.execute("INSERT INTO rdstation_tokens VALUES (NULL, 'a1', 'r1', now() + interval '9 hours')")
    conn.execute("INSERT INTO rdstation_tokens VALUES (' ', 'a2', 'r2', now() + interval '1 hour')")
    release()
    assert tokens(conn) == {"default": ("a1", "r1"), "default~2": ("a2", "r2")}


def test_nulls_are_no_tokens_and_lose_no_row(conn: Conn, release: Callable[[], int]) -> None:
    conn.execute(NO_KEY)
    conn.execute("INSERT INTO rdstation_tokens VALUES ('no-access', NULL, 'r', now() + interval '9 hours')")
    conn.execute("INSERT INTO rdstation_tokens VALUES ('no-refresh', 'a', NULL, now() + interval '9 hours')")
    conn.execute("INSERT INTO rdstation_tokens VALUES ('no-expiry', 'a', 'r', NULL)")
    assert release() == 3
    by_account = {row["account_id"]: row for row in rows(conn)}
    now = datetime.now(UTC)
    assert by_account["no-access"]["expires_at"] <= now
    assert by_account["no-expiry"]["expires_at"] <= now
    assert by_account["no-refresh"]["expires_at"] > now
    assert by_account["no-refresh"]["status"] == "reauthorization_required"
    assert tokens(conn) == {"no-access": ("", "r"), "no-refresh": ("a", ""), "no-expiry": ("a", "r")}


def test_an_empty_table_is_adopted(conn: Conn, release: Callable[[], int]) -> None:
    conn.execute(USUAL)
    assert release() == 0
    assert rows(conn) == []


def test_a_second_release_changes_nothing(conn: Conn, release: Callable[[], int]) -> None:
    conn.execute(USUAL)
    conn.execute(INSERT_USUAL, ["default", "plain-a", "plain-r"])
    assert release() == 1
    before = rows(conn)
    assert release() == 0
    assert rows(conn) == before


def test_more_rows_than_one_batch_are_all_encrypted(
    conn: Conn, release: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "BATCH", 7)
    conn.execute(USUAL)
    for number in range(30):
        conn.execute(INSERT_USUAL, [f"account-{number}", f"plain-a{number}", f"plain-r{number}"])
    assert release() == 30
    assert "plain" not in text_of(conn)
    assert len(tokens(conn)) == 30


def test_two_releases_at_once_encrypt_each_row_once(
    conn: Conn, pool: Pool, release: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "BATCH", 5)
    conn.execute(USUAL)
    for number in range(60):
        conn.execute(INSERT_USUAL, [f"account-{number:02}", f"plain-a{number}", f"plain-r{number}"])
    migrate.migrate(conn)
    together = threading.Barrier(2)
    counts: list[int] = []

    def encrypt() -> None:
        together.wait(20)
        counts.append(adoption.encrypt_plain_rows(pool, KEYS, by=BY))

    threads = [threading.Thread(target=encrypt) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(counts) == 60
    assert len(counts) == 2
    assert tokens(conn) == {f"account-{n:02}": (f"plain-a{n}", f"plain-r{n}") for n in range(60)}


def test_a_release_killed_in_the_middle_is_finished_by_the_next(
    conn: Conn, release: Callable[[], int], empty_database_url: str
) -> None:
    conn.execute(USUAL)
    for number in range(4):
        conn.execute(INSERT_USUAL, [f"account-{number}", f"plain-a{number}", f"plain-r{number}"])
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
    assert text_of(conn).count("plain") == 4
    assert release() == 2
    assert tokens(conn) == {f"account-{n}": (f"plain-a{n}", f"plain-r{n}") for n in range(4)}


def test_the_older_backend_may_go_on_writing_and_the_next_release_adopts_it(
    conn: Conn, release: Callable[[], int]
) -> None:
    conn.execute(USUAL)
    conn.execute(INSERT_USUAL, ["default", "plain-a", "plain-r"])
    release()
    before = {row["account_id"]: row for row in rows(conn)}
    conn.execute(INSERT_USUAL, ["late", "plain-late-a", "plain-late-r"])
    conn.execute(
        "UPDATE rdstation_tokens SET access_token = 'plain-new-a', refresh_token = 'plain-new-r',"
        " expires_at = now() AT TIME ZONE 'UTC' + interval '1 day', updated_at = now() WHERE account_id = 'default'"
    )
    conn.execute(
        "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, expires_at) VALUES"
        " ('late', 'plain-later-a', 'plain-later-r', now())"
        " ON CONFLICT (account_id) DO UPDATE SET access_token = EXCLUDED.access_token,"
        " refresh_token = EXCLUDED.refresh_token, expires_at = EXCLUDED.expires_at"
    )
    assert release() == 2
    assert tokens(conn) == {
        "default": ("plain-new-a", "plain-new-r"),
        "late": ("plain-later-a", "plain-later-r"),
    }
    for row in rows(conn):
        assert row["status"] == "connected"
        assert row["due_at"] <= datetime.now(UTC)
        # Back-offs are shares of this: without a life they would be none.
        assert row["issued_at"] < row["expires_at"]
    assert rows(conn)[0]["connection_id"] == before["default"]["connection_id"]


def test_a_row_that_was_found_plain_before_its_adoption_is_usable_again(
    conn: Conn, release: Callable[[], int]
) -> None:
    conn.execute(USUAL)
    release()
    conn.execute(INSERT_USUAL, ["late", "plain-a", "plain-r"])
    # What the worker makes of a refresh token that it cannot decrypt.
    conn.execute(
        "UPDATE rdstation_tokens SET status = 'reauthorization_required', last_error = 'damaged', failures = 1"
    )
    assert release() == 1
    (row,) = rows(conn)
    assert (row["status"], row["last_error"], row["failures"]) == ("connected", None, 0)
    assert row["due_at"] <= datetime.now(UTC)


def test_only_the_plain_one_of_two_tokens_is_encrypted(conn: Conn, release: Callable[[], int]) -> None:
    conn.execute(USUAL)
    conn.execute(INSERT_USUAL, ["default", "plain-a", "plain-r"])
    release()
    conn.execute("UPDATE rdstation_tokens SET access_token = 'plain-new-a'")
    assert release() == 1
    assert tokens(conn) == {"default": ("plain-new-a", "plain-r")}


def test_no_plain_token_is_matched_by_what_finds_plain_rows(conn: Conn, release: Callable[[], int]) -> None:
    conn.execute(USUAL)
    odd = ["x\n00000000.gAAAA", "0000000g.gAAAA", " 01234567.gAAAA", "eyJ.eyJ.sig"]
    for number, token in enumerate(odd):
        conn.execute(INSERT_USUAL, [f"account-{number}", token, f"{token}-refresh"])
    assert release() == len(odd)
    assert [pair[0] for pair in tokens(conn).values()] == odd
    assert conn.execute(
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
    conn: Conn, release: Callable[[], int], name: str, value: str | None, suspicious: bool
) -> None:
    create = sql.SQL("{}, {} text)").format(sql.SQL(NO_KEY[:-1]), sql.Identifier(name))
    conn.execute(create)
    conn.execute(
        "INSERT INTO rdstation_tokens VALUES ('a', 'plain-access', 'plain-refresh', now(), %s)", [value]
    )
    release()
    assert adoption.columns_with_tokens(conn) == ([name] if suspicious else [])


@pytest.mark.parametrize("sql_type", ["text", "varchar(200)", "json", "jsonb", "bytea", "text[]"])
def test_copies_of_tokens_stay_until_the_sql_that_is_proposed_empties_them(
    conn: Conn, release: Callable[[], int], sql_type: str
) -> None:
    value = '{"access_token=plain-access"}' if sql_type == "text[]" else '{"access_token": "plain-access"}'
    conn.execute(f'{NO_KEY[:-1]}, "raw (100%) ""answer""" {sql_type} NOT NULL, note text)'.encode())
    conn.execute(
        "INSERT INTO rdstation_tokens VALUES ('a', 'plain-access', 'plain-refresh', now(), %s, 'kept')",
        [value],
    )
    conn.execute("ANALYZE rdstation_tokens")
    release()
    columns = adoption.columns_with_tokens(conn)
    assert columns == ['raw (100%) "answer"']
    assert rows(conn)[0][columns[0]] is not None

    conn.execute(adoption.blanking(columns).encode())
    assert adoption.columns_with_tokens(conn) == []
    assert (rows(conn)[0][columns[0]], rows(conn)[0]["note"]) == (None, "kept")
    assert tokens(conn) == {"a": ("plain-access", "plain-refresh")}
    samples = conn.execute("SELECT * FROM pg_stats WHERE tablename = 'rdstation_tokens'").fetchall()
    assert "plain" not in str(samples)


def test_a_table_of_ours_has_no_such_columns(conn: Conn, release: Callable[[], int]) -> None:
    release()
    assert adoption.columns_with_tokens(conn) == []
