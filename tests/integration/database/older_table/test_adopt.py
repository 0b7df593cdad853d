"""Adoption of the table that an older backend left: no row is lost."""

from datetime import UTC, datetime, timedelta

import pytest
from psycopg import sql

from rdservice.tokens import store
from tests.support.older_table import INSERT_USUAL, KEYS, NO_KEY, USUAL, Conn, Release, rows, text_of, tokens


def test_a_table_as_older_backends_keep_it_is_adopted(older: Conn, release: Release) -> None:
    older.execute(USUAL)
    for number, account in enumerate(("default", "acme", "ção")):
        older.execute(INSERT_USUAL, [account, f"plain-access-{number}", f"plain-refresh-{number}"])
    assert release() == 3
    assert tokens(older) == {
        account: (f"plain-access-{number}", f"plain-refresh-{number}")
        for number, account in enumerate(("default", "acme", "ção"))
    }
    assert "plain" not in text_of(older)
    for row in rows(older):
        assert row["status"] == "connected"
        left = row["expires_at"] - datetime.now(UTC)
        assert timedelta(hours=4) < left < timedelta(hours=5, minutes=1)
        assert row["issued_at"] < row["expires_at"]
        assert row["refresh_after"] <= datetime.now(UTC)
        assert row["legacy_created_at"] is not None
    assert len({row["connection_id"] for row in rows(older)}) == 3
    assert len({row["authorization_id"] for row in rows(older)}) == 3


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
def test_an_expiry_of_any_type_keeps_its_moment(older: Conn, release: Release, kind: str) -> None:
    sql_type, value = EXPIRY_TYPES[kind]
    older.execute(
        "CREATE TABLE rdstation_tokens (account_id varchar(50) PRIMARY KEY, access_token varchar(2000),"
        f" refresh_token varchar(200), expires_at {sql_type})".encode()
    )
    older.execute("INSERT INTO rdstation_tokens VALUES ('default', 'plain-a', 'plain-r', %s)", [value])
    # Whatever the session that migrates is set to.
    older.execute("SET TimeZone = 'America/Sao_Paulo'")
    assert release() == 1
    (row,) = rows(older)
    assert row["expires_at"] == datetime(2030, 6, 1, 12, tzinfo=UTC)
    assert tokens(older) == {"default": ("plain-a", "plain-r")}


@pytest.mark.parametrize("value", ["", "soon", "2030-13-45", "1e400", "99999999999999999999999999"])
def test_an_expiry_that_cannot_be_read_counts_as_passed_and_is_kept_aside(
    older: Conn, release: Release, value: str
) -> None:
    older.execute(
        "CREATE TABLE rdstation_tokens (account_id text, access_token text, refresh_token text, expires_at text)"
    )
    older.execute("INSERT INTO rdstation_tokens VALUES ('default', 'plain-a', 'plain-r', %s)", [value])
    assert release() == 1
    (row,) = rows(older)
    assert datetime.now(UTC) - timedelta(minutes=1) < row["expires_at"] <= datetime.now(UTC)
    assert tokens(older) == {"default": ("plain-a", "plain-r")}
    assert row.get("legacy_expires_at", "") == value


COLUMNS = {
    "account_id": "varchar(40)",
    "access_token": "varchar(2000)",
    "refresh_token": "varchar(200)",
    "expires_at": "timestamp",
}


@pytest.mark.parametrize("missing", COLUMNS)
def test_a_missing_column_is_made_up_for(older: Conn, release: Release, missing: str) -> None:
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
    older.execute(f"CREATE TABLE rdstation_tokens ({definition})".encode())
    older.execute(insert, values)
    assert release() == 1
    account = "default" if missing == "account_id" else "acme"
    found = tokens(older)[account]
    assert found[0] == ("" if missing == "access_token" else "plain-a")
    assert found[1] == ("" if missing == "refresh_token" else "plain-r")
    (row,) = rows(older)
    if missing == "refresh_token":
        assert (row["status"], row["last_error"]) == ("reauthorization_required", "no_refresh_token")
    else:
        assert row["status"] == "connected"
    if missing in ("access_token", "expires_at"):
        assert row["expires_at"] <= datetime.now(UTC)
    assert "plain" not in text_of(older)

    # The older backend may go on for as long as the deployment takes.
    older.execute("DELETE FROM rdstation_tokens")
    older.execute(insert, values)
    assert release() == 1
    assert list(tokens(older)) == [account]
    (row,) = rows(older)
    assert row["issued_at"] < row["expires_at"]
    assert (row["status"] == "reauthorization_required") is (missing == "refresh_token")


def test_columns_of_the_same_name_and_other_meaning_are_kept_aside(older: Conn, release: Release) -> None:
    older.execute(
        "CREATE TABLE rdstation_tokens ("
        " id bigserial PRIMARY KEY, account_id text NOT NULL, access_token text NOT NULL, refresh_token text NOT NULL,"
        " expires_at timestamptz NOT NULL, status integer NOT NULL CHECK (status IN (0, 1)), name varchar(10) NOT NULL,"
        " last_error json, failures text, holder varchar(3) UNIQUE, due_at date,"
        " company_id integer NOT NULL CHECK (company_id > 0), note text NOT NULL)"
    )
    older.execute("CREATE UNIQUE INDEX one_company ON rdstation_tokens (company_id)")
    older.execute(
        "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, expires_at, status, name, last_error,"
        " failures, holder, due_at, company_id, note)"
        " VALUES ('default', 'plain-a', 'plain-r', '2030-06-01Z', 1, 'Acme', '{}', 'many', 'abc', '2026-01-01', 7,"
        " 'hi')"
    )
    assert release() == 1
    (row,) = rows(older)
    kept = ("id", "legacy_status", "legacy_name", "legacy_failures", "legacy_holder", "company_id", "note")
    assert [row[name] for name in kept] == [1, 1, "Acme", "many", "abc", 7, "hi"]
    assert (row["status"], row["name"], row["failures"], row["holder"]) == ("connected", None, 0, None)
    # Our own statements do not name the older backend's columns.
    with older.transaction():
        store.authorize(
            older,
            KEYS,
            "another",
            access_token="a",
            refresh_token="r",
            expires_in_s=60,
            verified=True,
            proven=True,
        )
    assert [row["company_id"] for row in rows(older)] == [None, 7]


def test_references_of_the_older_backend_do_not_stand_in_the_way(older: Conn, release: Release) -> None:
    older.execute("CREATE TABLE companies (id integer PRIMARY KEY)")
    older.execute("INSERT INTO companies VALUES (7)")
    older.execute(
        "CREATE TABLE rdstation_tokens (account_id integer NOT NULL REFERENCES companies, access_token text,"
        " refresh_token text, expires_at timestamptz)"
    )
    older.execute("INSERT INTO rdstation_tokens VALUES (7, 'plain-a', 'plain-r', now())")
    assert release() == 1
    assert tokens(older) == {"7": ("plain-a", "plain-r")}
    assert older.execute("SELECT id FROM companies").fetchall() == [(7,)]


def test_an_account_that_stands_there_twice_keeps_all_its_refresh_tokens(
    older: Conn, release: Release
) -> None:
    older.execute(NO_KEY)
    for access, refresh, hours in [
        ("a1", "r1", 1),
        ("a2", "r2", 9),
        ("a3", "r3", 5),
        ("a4", "", 20),
        ("a2", "r2", 9),
    ]:
        older.execute(
            "INSERT INTO rdstation_tokens VALUES ('acme', %s, %s, now() + %s * interval '1 hour')",
            [access, refresh, hours],
        )
    older.execute("INSERT INTO rdstation_tokens VALUES ('other', 'a5', 'r5', now())")
    release()
    # The one that lasts longest, of those that can be renewed, is the account.
    assert tokens(older) == {
        "acme": ("a2", "r2"),
        "acme~2": ("a3", "r3"),
        "acme~3": ("a1", "r1"),
        "acme~4": ("a4", ""),
        "other": ("a5", "r5"),
    }


def test_rows_of_one_account_are_merged_only_where_both_tokens_are_the_same_and_not_empty(
    older: Conn, release: Release
) -> None:
    older.execute(NO_KEY)
    for access, refresh, hours in [
        ("a1", "same", 3),
        ("a2", "same", 9),
        ("a2", "same", 1),
        ("a3", "", 2),
        ("a3", "", 8),
        ("", "r4", 1),
        ("", "r4", 1),
    ]:
        older.execute(
            "INSERT INTO rdstation_tokens VALUES ('acme', %s, %s, now() + %s * interval '1 hour')",
            [access, refresh, hours],
        )
    assert release() == 6
    assert tokens(older)["acme"] == ("a2", "same")
    assert sorted(tokens(older).values()) == [
        ("", "r4"),
        ("", "r4"),
        ("a1", "same"),
        ("a2", "same"),
        ("a3", ""),
        ("a3", ""),
    ]
    merged, renamed = release.said
    assert merged.endswith("the same tokens: 1.")
    assert "'acme' → 'acme~2'" in renamed


def test_spaces_around_an_account_id_are_removed_and_told(older: Conn, release: Release) -> None:
    older.execute(NO_KEY)
    older.execute(
        "INSERT INTO rdstation_tokens VALUES (' acme', 'a', 'r', now()), ('other', 'a', 'r', now())"
    )
    release()
    assert set(tokens(older)) == {"acme", "other"}
    assert release.said == ["Removed spaces around values of account_id: 1."]


def test_names_of_further_rows_are_not_those_of_other_accounts(older: Conn, release: Release) -> None:
    older.execute(NO_KEY)
    for account, number in [("acme", 1), ("acme", 2), ("acme~2", 3), ("acme~2", 4)]:
        older.execute(
            "INSERT INTO rdstation_tokens VALUES (%s, %s, %s, now() - %s * interval '1 hour')",
            [account, f"a{number}", f"r{number}", number],
        )
    release()
    assert tokens(older) == {
        "acme": ("a1", "r1"),
        "acme~3": ("a2", "r2"),
        "acme~2": ("a3", "r3"),
        "acme~2~2": ("a4", "r4"),
    }


def test_one_row_without_account_becomes_default_and_takes_nobody_s_place(
    older: Conn, release: Release
) -> None:
    older.execute(NO_KEY)
    older.execute("INSERT INTO rdstation_tokens VALUES ('default', 'a1', 'r1', now() + interval '1 hour')")
    older.execute("INSERT INTO rdstation_tokens VALUES (' ', 'a2', 'r2', now() + interval '9 hours')")
    release()
    assert tokens(older) == {"default": ("a1", "r1"), "default~2": ("a2", "r2")}
    assert release.said == ["The one row without an account_id became the account 'default~2'."]


def test_a_trigger_of_the_older_backend_does_not_stand_in_the_way(older: Conn, release: Release) -> None:
    older.execute(USUAL)
    older.execute(INSERT_USUAL, ["acme", "plain-a", "plain-r"])
    older.execute(
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.updated_at := now(); RETURN NEW; END'"
    )
    older.execute(
        "CREATE TRIGGER touch BEFORE UPDATE ON rdstation_tokens FOR EACH ROW EXECUTE FUNCTION touch()"
    )
    assert release() == 1
    assert tokens(older) == {"acme": ("plain-a", "plain-r")}
    assert older.execute("SELECT tgenabled FROM pg_trigger WHERE tgname = 'touch'").fetchone() in (
        ("O",),
        (b"O",),
    )


def test_nulls_are_no_tokens_and_lose_no_row(older: Conn, release: Release) -> None:
    older.execute(NO_KEY)
    older.execute("INSERT INTO rdstation_tokens VALUES ('no-access', NULL, 'r', now() + interval '9 hours')")
    older.execute("INSERT INTO rdstation_tokens VALUES ('no-refresh', 'a', NULL, now() + interval '9 hours')")
    older.execute("INSERT INTO rdstation_tokens VALUES ('no-expiry', 'a', 'r', NULL)")
    assert release() == 3
    by_account = {row["account_id"]: row for row in rows(older)}
    now = datetime.now(UTC)
    assert by_account["no-access"]["expires_at"] <= now
    assert by_account["no-expiry"]["expires_at"] <= now
    assert by_account["no-refresh"]["expires_at"] > now
    assert by_account["no-refresh"]["status"] == "reauthorization_required"
    assert tokens(older) == {"no-access": ("", "r"), "no-refresh": ("a", ""), "no-expiry": ("a", "r")}


def test_an_empty_table_is_adopted(older: Conn, release: Release) -> None:
    older.execute(USUAL)
    assert release() == 0
    assert rows(older) == []
