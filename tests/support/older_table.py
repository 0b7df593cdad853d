"""Tables `rdstation_tokens` as older backends left them, and what became of them."""

from typing import Any

import psycopg
from cryptography.fernet import Fernet
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from rdservice.database import migrate
from rdservice.database.older_table.checks import Sentence
from rdservice.encryption import KeyRing
from rdservice.tokens import adoption
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
NO_KEY = "CREATE TABLE rdstation_tokens (account_id text, access_token text, refresh_token text, expires_at timestamp)"


class Release:
    """Does what `flask release` does. `said` is what the last one told of renamed and guessed things."""

    def __init__(self, conn: Conn, pool: Pool) -> None:
        self.conn, self.pool = conn, pool
        self.said: list[str] = []

    def __call__(self) -> int:
        """Return the number of rows whose tokens were encrypted."""
        self.said = []
        migrate.migrate(self.conn, self._hear)
        return adoption.encrypt_plain_rows(self.pool, KEYS, by=BY)

    def _hear(self, sentences: list[Sentence]) -> None:
        self.said = [sentence.text % sentence.values for sentence in sentences]


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


def picture(conn: Conn) -> list[Any]:
    """Return all that can be seen of the table: columns, constraints, indexes and each row, with its place."""
    described = conn.execute(
        "SELECT attname, atttypid, attnotnull, pg_get_expr(adbin, adrelid) FROM pg_attribute LEFT JOIN pg_attrdef"
        " ON adrelid = attrelid AND adnum = attnum WHERE attrelid = 'rdstation_tokens'::regclass AND attnum > 0"
        " ORDER BY attnum"
    ).fetchall()
    described += conn.execute(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'rdstation_tokens'::regclass"
        " UNION ALL SELECT indexdef FROM pg_indexes WHERE tablename = 'rdstation_tokens' ORDER BY 1"
    ).fetchall()
    content = conn.execute(
        "SELECT ctid, xmin::text, t::text FROM rdstation_tokens t ORDER BY ctid"
    ).fetchall()
    return described + content
