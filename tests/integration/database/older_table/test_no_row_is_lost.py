"""Any older table: after a release each row is found again with its tokens, or the table is as it was."""

from collections import Counter
from typing import Any

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from rdservice.database import migrate
from rdservice.database.older_table.checks import CannotAdopt
from tests.support.older_table import Conn, picture

FURTHER_NAMES = [
    *(
        "accountId",
        "tenant_id",
        "user_id",
        "token",
        "refreshToken",
        "expires",
        "id",
        "status",
        "legacy_status",
    ),
    *(
        "name",
        "legacy_name",
        "due_at",
        "created_at",
        "legacy_expires_at",
        "ação",
        "100%",
        'a "quoted"',
        "SELECT",
    ),
]
ACCOUNTS = [None, "", " ", "1", "1~2", "1~3", "default", "default~2", "loja/centro", "ana@example.com", " 1"]
TOKENS = [None, "", "a1", "a2", "r1", "eyJ.eyJ.sig", "gAAAAABl", "q83v==", "None", "Bearer x", "ção", "%s"]
EXPIRIES = [None, "", "2030-06-01", "2030-06-01T12:00:00Z", "1900000000", "soon", "infinity", "-1"]
TYPES = ["text", "text", "text", "varchar(99)", "char(30)", "bytea", "jsonb"]
VALUES = {"account_id": ACCOUNTS, "access_token": TOKENS, "refresh_token": TOKENS, "expires_at": EXPIRIES}
PAIR = ("access_token", "refresh_token")


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, str], list[dict[str, str | None]]]:
    """Columns with their types, and rows."""
    names = draw(
        st.lists(st.sampled_from([*VALUES] * 8 + FURTHER_NAMES), min_size=1, max_size=8, unique=True)
    )
    columns = {name: draw(st.sampled_from(TYPES)) if draw(st.booleans()) else "text" for name in names}
    row = st.fixed_dictionaries({name: st.sampled_from(VALUES.get(name, TOKENS)) for name in names})
    return columns, draw(st.lists(row, max_size=5))


@pytest.fixture
def only_the_first_migration(monkeypatch: pytest.MonkeyPatch) -> None:
    first = migrate.migrations()[:1]
    monkeypatch.setattr(migrate, "migrations", lambda: first)


def make(conn: Conn, columns: dict[str, str], rows: list[dict[str, str | None]]) -> None:
    conn.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    definitions = [sql.SQL("{} {}").format(sql.Identifier(n), sql.SQL(t)) for n, t in columns.items()]
    conn.execute(sql.SQL("CREATE TABLE rdstation_tokens ({})").format(sql.SQL(", ").join(definitions)))
    for row in rows:
        values = [
            sql.SQL("to_jsonb({}::text)" if sql_type == "jsonb" else "{}").format(sql.Literal(row[name]))
            for name, sql_type in columns.items()
        ]
        conn.execute(sql.SQL("INSERT INTO rdstation_tokens VALUES ({})").format(sql.SQL(", ").join(values)))


def read(conn: Conn) -> list[dict[str, Any]]:
    return [row for (row,) in conn.execute("SELECT to_jsonb(t) FROM rdstation_tokens t").fetchall()]


def is_of(after: dict[str, Any], before: dict[str, Any]) -> bool:
    """Return whether a row is the same as one before, for all that a person could miss in it."""
    account = (before.get("account_id") or "").strip() or "default"
    return (
        all(after[name] == (before.get(name) or "").rstrip(" ") for name in PAIR)
        and (after["account_id"] == account or after["account_id"].startswith(f"{account}~"))
        and all(
            value in (after.get(name), after.get(f"legacy_{name}"), after.get(f"legacy_{name}_2"))
            for name, value in before.items()
            if name not in VALUES
        )
    )


def unmatched(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of before that have none of their own now."""
    left, missing = list(after), []
    for row in before:
        same = next((other for other in left if is_of(other, row)), None)
        if same is None:
            missing.append(row)
        else:
            left.remove(same)
    return missing


@settings(max_examples=60)
@given(table=tables())
@example(table=({"accountId": "text", "accessToken": "text"}, [{"accountId": "1", "accessToken": "a1"}] * 2))
@example(
    table=(
        dict.fromkeys(VALUES, "text"),
        [
            {"account_id": "1", "access_token": token, "refresh_token": "", "expires_at": None}
            for token in ("a1", "a2")
        ],
    )
)
@pytest.mark.usefixtures("only_the_first_migration")
def test_each_row_keeps_its_tokens_or_the_table_stays_as_it_is(
    older: Conn, table: tuple[dict[str, str], list[dict[str, str | None]]]
) -> None:
    make(older, *table)
    before, seen = read(older), picture(older)
    try:
        migrate.migrate(older)
    except (CannotAdopt, psycopg.Error):
        assert picture(older) == seen
        return
    after = read(older)
    assert len({row["account_id"] for row in after}) == len(after)
    # Only what is the same twice may be one row now.
    pairs = Counter(tuple((row.get(name) or "").rstrip(" ") for name in PAIR) for row in before)
    kept = Counter(tuple(row[name] for name in PAIR) for row in after)
    assert set(pairs) == set(kept)
    for row in unmatched(before, after):
        pair = tuple((row.get(name) or "").rstrip(" ") for name in PAIR)
        assert all(pair)
        assert any(is_of(other, {name: row.get(name) for name in VALUES}) for other in after)
    if before:
        for row in after:
            assert row["status"] == ("connected" if row["refresh_token"] else "reauthorization_required")
