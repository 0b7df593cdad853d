"""Older tables that are refused: they stay as they are, and the SQL that is proposed makes them adoptable."""

from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from rdservice.database.older_table.checks import CannotAdopt
from tests.support.older_table import NO_KEY, Conn, Release, picture, tokens

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjF9.c2lnbmF0dXJl"


def refused(older: Conn, release: Release) -> CannotAdopt:
    """Return the refusal, after which the table is as it was."""
    before = picture(older)
    with pytest.raises(CannotAdopt) as caught:
        release()
    assert picture(older) == before
    assert older.execute("SELECT to_regclass('schema_migrations')").fetchone() == (None,)
    return caught.value


OTHER_NAMES: dict[str, tuple[LiteralString, list[str]]] = {
    "in camel case": (
        """CREATE TABLE rdstation_tokens ("accountId" text PRIMARY KEY, "accessToken" text, "refreshToken" text,
                                          "expiresAt" timestamptz)""",
        ["accountId", "accessToken", "refreshToken", "expiresAt"],
    ),
    "short": (
        "CREATE TABLE rdstation_tokens (id serial, user_id integer, token text, refresh text, expires_at timestamptz)",
        ["user_id", "token", "refresh", "expires_at"],
    ),
    "with a tenant": (
        "CREATE TABLE rdstation_tokens (tenant_id text, access_token text, refresh_token text, expires_at timestamptz)",
        ["tenant_id", "access_token", "refresh_token", "expires_at"],
    ),
    "in Portuguese": (
        "CREATE TABLE rdstation_tokens (id_cliente bigint, token_acesso text, token_renovacao text, expira_em bigint)",
        ["id_cliente", "token_acesso", "token_renovacao", "expira_em"],
    ),
    "in capitals": (
        """CREATE TABLE rdstation_tokens ("COMPANY" varchar(9), "ACCESS_TOKEN" text, "REFRESH_TOKEN" text,
                                          "EXPIRY" text)""",
        ["COMPANY", "ACCESS_TOKEN", "REFRESH_TOKEN", "EXPIRY"],
    ),
    "only one of them": (
        """CREATE TABLE rdstation_tokens (account_id text, access_token text, "refreshToken" text, expires_at text)""",
        ["account_id", "access_token", "refreshToken", "expires_at"],
    ),
}


@pytest.mark.parametrize("kind", OTHER_NAMES)
def test_columns_of_other_names_are_refused_with_the_sql_that_renames_them(
    older: Conn, release: Release, kind: str
) -> None:
    create, columns = OTHER_NAMES[kind]
    older.execute(create)
    for number in (1, 2, 3):
        older.execute(
            sql.SQL("INSERT INTO rdstation_tokens ({}) VALUES (%s, %s, %s, %s)").format(
                sql.SQL(", ").join(map(sql.Identifier, columns))
            ),
            [number, f"a{number}", f"r{number}", 1900000000 if "expira_em" in columns else "2030-06-01Z"],
        )
    for statement in refused(older, release).statements:
        older.execute(statement.encode())
    assert release() == 3
    assert tokens(older) == {str(number): (f"a{number}", f"r{number}") for number in (1, 2, 3)}


def test_where_two_columns_may_be_meant_the_second_is_proposed_as_a_comment(
    older: Conn, release: Release
) -> None:
    older.execute(
        "CREATE TABLE rdstation_tokens (user_id text, tenant text, access_token text, refresh_token text)"
    )
    older.execute("INSERT INTO rdstation_tokens VALUES ('u', 't', 'a', 'r')")
    assert refused(older, release).statements == [
        'ALTER TABLE rdstation_tokens RENAME COLUMN "user_id" TO account_id;',
        '-- ALTER TABLE rdstation_tokens RENAME COLUMN "tenant" TO account_id;',
    ]


def test_columns_whose_meaning_nothing_tells_are_refused(older: Conn, release: Release) -> None:
    older.execute("CREATE TABLE rdstation_tokens (a text, b text, c text)")
    older.execute("INSERT INTO rdstation_tokens VALUES ('acme', %s, 'r')", [JWT])
    refusal = refused(older, release)
    assert "a, b, c" in str(refusal)
    assert all(statement.startswith("-- ") for statement in refusal.statements)


@pytest.mark.parametrize(
    ("column", "sql_type", "value"),
    [
        ("access_token", "bytea", b"plain-a"),
        ("refresh_token", "bytea", b"plain-r"),
        ("access_token", "jsonb", '"plain-a"'),
        ("refresh_token", "json", '"plain-r"'),
        ("refresh_token", "text[]", "{plain-r}"),
        ("access_token", "uuid", "6f9619ff-8b86-d011-b42d-00cf4fc964ff"),
        ("account_id", "jsonb", '"acme"'),
        ("account_id", "boolean", "true"),
    ],
)
def test_a_column_of_a_type_that_is_no_text_is_refused(
    older: Conn, release: Release, column: str, sql_type: str, value: str | bytes
) -> None:
    older.execute(NO_KEY)
    values = {"account_id": "acme", "access_token": "plain-a", "refresh_token": "plain-r"} | {column: value}
    older.execute(f"ALTER TABLE rdstation_tokens ALTER {column} TYPE {sql_type} USING NULL".encode())
    older.execute(
        "INSERT INTO rdstation_tokens VALUES (%(account_id)s, %(access_token)s, %(refresh_token)s, now())",
        values,
    )
    refusal = refused(older, release)
    assert f"{column} has the type {sql_type}" in str(refusal)
    if sql_type != "text[]":
        for statement in refusal.statements:
            older.execute(statement.encode())
        assert release() == 1


NOT_PLAIN = {
    "Fernet": "gAAAAABlZmFrZS1mZXJuZXQtdG9rZW4tb2YtYW5vdGhlci1zeXN0ZW0",
    "Fernet with padding": "gAAAAABlZmFrZS1mZXJuZXQtdG9rZW4tb2YtYW5vdGhlci1zeXN0ZW0tMQ==",
    "base64 with padding": "3q2+78r+ur7erb7vyv66vt6tvu/K/rq+3q2+78r+ur4=",
    "base64 without": "3q2+78r+ur7erb7vyv66vt6tvu/K/rq+3q2+78r+ur4a",
    "base64url of a whole JWT": "Zm9vYmFy_" * 40,
    "hexadecimal of a whole JWT": "deadbeef" * 100,
    "OpenSSL": "U2FsdGVkX18x0ZAmKp0PZbq7DbTqDVzYWJ0",
    "Laravel": "eyJpdiI6IjEyMzQiLCJ2YWx1ZSI6IjU2NzgifQ",
    "a hash": "$argon2id$v=19$m=65536$c2FsdA$aGFzaA",
    "an initialization vector before it": "00112233445566778899aabbccddeeff:deadbeefdeadbeef",
    "Vault": "vault:v1:8SDd3WHDOjf7mq69CyCqYjBXAiQQAVZRkFM13ok481zoCmHnSeDX9vyf7w",
    "bytes as text": "\\xdeadbeefdeadbeef",
    "JSON": '{"token": "plain"}',
    "PGP": "-----BEGIN PGP MESSAGE-----\n\nabc\n-----END PGP MESSAGE-----",
    "a scheme before it": f"Bearer {JWT}",
    "white space after it": f"{JWT}\n",
    "a mask": "********",
    "the word None": "None",
    "letters outside ASCII": "plain-ção",
}


@pytest.mark.parametrize("column", ["access_token", "refresh_token"])
@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_values_that_are_no_plain_tokens_are_refused(
    older: Conn, release: Release, column: str, kind: str
) -> None:
    older.execute(NO_KEY)
    older.execute("INSERT INTO rdstation_tokens VALUES ('good', %s, 'plain-r', now())", [JWT])
    older.execute("INSERT INTO rdstation_tokens VALUES ('other', 'plain-a', 'plain-r', now())")
    older.execute(
        sql.SQL("UPDATE rdstation_tokens SET {} = %s WHERE account_id = 'other'").format(
            sql.Identifier(column)
        ),
        [NOT_PLAIN[kind]],
    )
    refusal = refused(older, release)
    assert f"column {column} that are not plain tokens of RD Station: 1." in str(refusal)
    assert NOT_PLAIN[kind] not in str(refusal)


@pytest.mark.parametrize(
    "value",
    [
        JWT,
        "1//0gAbC-dEf_Gh",
        "0123456789abcdef0123456789abcdef",
        "6f9619ff-8b86-d011-b42d-00cf4fc964ff",
        "rIxTsqIc7Kd1nqp_2AzMYcnFnPlmy2z~",
        "x." + "y" * 3000,
        f"eyJ{'x' * 400}.eyJ{'y' * 900}.{'z' * 342}",
    ],
)
def test_plain_tokens_of_any_usual_form_are_understood(older: Conn, release: Release, value: str) -> None:
    older.execute(NO_KEY)
    older.execute("INSERT INTO rdstation_tokens VALUES ('acme', %s, %s, now())", [value, value])
    assert release() == 1
    assert tokens(older) == {"acme": (value, value)}


@pytest.mark.parametrize(
    ("create", "statements"),
    [
        ("CREATE TABLE rdstation_tokens (access_token text, refresh_token text)", 2),
        ("CREATE TABLE rdstation_tokens (access_token text, refresh_token text, account_id integer)", 2),
        ("CREATE TABLE rdstation_tokens (access_token text, refresh_token text, account_id varchar(9))", 1),
        (
            "CREATE TABLE rdstation_tokens (access_token text, refresh_token text, account_id text, tenant text)",
            1,
        ),
    ],
)
def test_several_rows_without_account_are_refused_until_they_have_one(
    older: Conn, release: Release, create: LiteralString, statements: int
) -> None:
    older.execute(create)
    older.execute("INSERT INTO rdstation_tokens VALUES ('a1', 'r1'), ('a2', 'r2')")
    if "tenant" in create:
        older.execute("UPDATE rdstation_tokens SET tenant = access_token")
    refusal = refused(older, release)
    assert "Rows without an account_id: 2." in str(refusal)
    assert len(refusal.statements) == statements
    for statement in refusal.statements:
        older.execute(statement.encode())
    assert release() == 2
    assert set(tokens(older).values()) == {("a1", "r1"), ("a2", "r2")}
    assert "default" not in tokens(older)


@pytest.mark.parametrize(
    "dependent",
    [
        "CREATE VIEW dashboard AS SELECT account_id, access_token FROM rdstation_tokens",
        "CREATE MATERIALIZED VIEW dashboard AS SELECT expires_at FROM rdstation_tokens",
        "CREATE TABLE leads (account text REFERENCES rdstation_tokens)",
    ],
)
def test_what_uses_the_table_is_named_with_the_sql_that_sets_it_aside(
    older: Conn, release: Release, dependent: LiteralString
) -> None:
    older.execute(
        "CREATE TABLE rdstation_tokens (account_id text PRIMARY KEY, access_token varchar(4000), refresh_token text,"
        " expires_at timestamptz)"
    )
    older.execute("INSERT INTO rdstation_tokens VALUES ('acme', 'plain-a', 'plain-r', now())")
    older.execute(dependent)
    refusal = refused(older, release)
    assert ("dashboard" if "VIEW" in dependent else "leads") in str(refusal)
    for statement in refusal.statements:
        older.execute(statement.encode())
    assert release() == 1


@pytest.mark.parametrize(
    "create",
    [
        "CREATE VIEW rdstation_tokens AS SELECT 'acme' AS account_id, 'a' AS access_token, 'r' AS refresh_token",
        "CREATE TABLE rdstation_tokens (account_id text) PARTITION BY LIST (account_id)",
        "CREATE TABLE parent (account_id text); CREATE TABLE rdstation_tokens () INHERITS (parent)",
        "CREATE TABLE rdstation_tokens (a text); CREATE RULE r AS ON DELETE TO rdstation_tokens DO INSTEAD NOTHING",
    ],
)
def test_what_is_no_ordinary_table_is_refused(older: Conn, release: Release, create: LiteralString) -> None:
    older.execute(create)
    with pytest.raises(CannotAdopt, match="not an ordinary table"):
        release()
    assert older.execute("SELECT to_regclass('schema_migrations')").fetchone() == (None,)


def test_a_table_without_rows_is_adopted_whatever_its_columns(older: Conn, release: Release) -> None:
    older.execute(
        "CREATE TABLE rdstation_tokens (id serial PRIMARY KEY, token bytea NOT NULL, access_token jsonb)"
    )
    assert release() == 0
    with pytest.raises(psycopg.errors.UndefinedColumn):
        older.execute("SELECT tenant_id FROM rdstation_tokens")
