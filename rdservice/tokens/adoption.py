"""Encrypts plain tokens that an older backend left in `rdstation_tokens`, or goes on writing there.

`rdservice.database.older_table` adopted the table itself. Values that cannot be plain tokens stay as they are.

The older backend may have stored the tokens a second time, for example in a column with RD Station's whole response.
This module finds such columns, and does not change them.
"""

import re
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from rdservice.access import audit
from rdservice.access.audit import Author
from rdservice.database.older_table.checks import NOT_PLAIN, not_plain
from rdservice.database.pool import transaction
from rdservice.database.progress import OnRows, ignore
from rdservice.encryption import ENCRYPTED, KeyRing

BATCH = 500
TOKENS = r"""eyJ[A-Za-z0-9_-]+[.]eyJ|_token["']?\s*[:=]>?\s*["']?[A-Za-z0-9._~+/-]{8}"""
"""Regular expression of a JWT, or of a token of any form in a text such as RD Station's whole response."""
NAMED_LIKE_TOKENS = re.compile("token|secret|credential|password", re.IGNORECASE)
SHORTEST_FOUND_BY_NAME = 20
"""Shorter texts in a column named like tokens are no tokens, but "Bearer" or a date."""

# Columns that can hold text, except those of this service.
OTHER_COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod)
  FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
 WHERE attrelid = 'rdstation_tokens'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
   AND typcategory IN ('S', 'U', 'A') AND typname <> 'uuid'
   AND attname <> ALL ('{account_id,access_token,refresh_token,status,name,last_error}')
"""
PATTERNS: dict[str, Any] = {"encrypted": ENCRYPTED, "not_plain": NOT_PLAIN}
PLAIN = "(access_token !~ %(encrypted)s OR refresh_token !~ %(encrypted)s)"
UNDERSTOOD = f"NOT ({not_plain('access_token')} OR {not_plain('refresh_token')})"
PLAIN_ROWS = f"""
SELECT account_id, access_token, refresh_token FROM rdstation_tokens
 WHERE account_id > %(after)s AND {PLAIN} AND {UNDERSTOOD}
 ORDER BY account_id LIMIT %(batch)s
   FOR UPDATE
"""  # noqa: S608 - only texts of this module
COUNT_PLAIN_ROWS = f"""
SELECT count(*) FILTER (WHERE {UNDERSTOOD}), count(*) FILTER (WHERE NOT {UNDERSTOOD})
  FROM rdstation_tokens WHERE {PLAIN}
"""  # noqa: S608 - only texts of this module
# A plain token is a new authorization, made by the older backend: it replaces the state of the one before.
WRITE = """
UPDATE rdstation_tokens
   SET access_token = %(access_token)s, refresh_token = %(refresh_token)s,
       status = CASE WHEN %(renewable)s THEN 'connected' ELSE 'reauthorization_required' END,
       last_error = CASE WHEN %(renewable)s THEN NULL ELSE 'no_refresh_token' END,
       issued_at = LEAST(issued_at, expires_at - interval '1 day'), authorization_id = gen_random_uuid(),
       retry_at = NULL, failures = 0, refusals = 0, refused_since = NULL, updated_at = rd_now()
 WHERE account_id = %(account_id)s
"""
LOOKS_LIKE_TOKENS: LiteralString = """
SELECT EXISTS (SELECT FROM rdstation_tokens
                WHERE {text} ~ %(tokens)s OR (%(named_so)s AND length({text}) >= %(shortest)s))
"""


def count_plain_rows(conn: psycopg.Connection[Any]) -> tuple[int, int]:
    """Return how many rows `encrypt_plain_rows` would encrypt, and how many have values that it does not understand."""
    row = conn.execute(COUNT_PLAIN_ROWS.encode(), PATTERNS).fetchone()
    return (0, 0) if row is None else (row[0], row[1])


def encrypt_plain_rows(
    pool: ConnectionPool[psycopg.Connection[Any]],
    keys: KeyRing,
    *,
    by: Author,
    on_rows: OnRows = ignore,
) -> int:
    """Encrypt all plain tokens, in batches with a transaction each; return the number of rows.

    The audit names `by` as the author. `on_rows` gets the number of rows of each batch. You may repeat, interrupt and
    run this twice at once: each row is encrypted once.
    """
    total, after = 0, ""
    while True:
        with transaction(pool) as conn:
            rows = _plain_rows(conn, after)
            for row in rows:
                _encrypt(conn, keys, row)
            if rows:
                audit.record(conn, by, "values_encrypted", accounts=len(rows))
        if not rows:
            return total
        total += len(rows)
        on_rows(len(rows))
        after = rows[-1]["account_id"]


def columns_with_tokens(conn: psycopg.Connection[Any]) -> list[str]:
    """Return the older backend's columns whose name or content suggests that they hold tokens in plain text."""
    return [
        name
        for name, sql_type in conn.execute(OTHER_COLUMNS).fetchall()
        if conn.execute(
            sql.SQL(LOOKS_LIKE_TOKENS).format(text=_text(name, sql_type)),
            {
                "tokens": TOKENS,
                "named_so": NAMED_LIKE_TOKENS.search(name) is not None,
                "shortest": SHORTEST_FOUND_BY_NAME,
            },
        ).fetchone()
        == (True,)
    ]


def blanking(columns: list[str]) -> str:
    """Return the SQL that empties these columns, one statement a line."""
    changes = sql.SQL(", ").join(sql.SQL("{} = NULL").format(sql.Identifier(name)) for name in columns)
    # The planner's samples keep values until the next ANALYZE, and a dump may contain them.
    return sql.SQL("UPDATE rdstation_tokens SET {};\nANALYZE rdstation_tokens;").format(changes).as_string()


def _plain_rows(conn: psycopg.Connection[Any], after: str) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cur:
        return cur.execute(PLAIN_ROWS.encode(), PATTERNS | {"after": after, "batch": BATCH}).fetchall()


def _encrypt(conn: psycopg.Connection[Any], keys: KeyRing, row: dict[str, Any]) -> None:
    account_id = row["account_id"]
    conn.execute(
        WRITE,
        {
            "account_id": account_id,
            "access_token": _encrypted(keys, "access_token", account_id, row["access_token"]),
            "refresh_token": _encrypted(keys, "refresh_token", account_id, row["refresh_token"]),
            "renewable": row["refresh_token"] != "",
        },
    )


def _text(name: str, sql_type: str) -> sql.Composable:
    """Return SQL for the column's value as text, in which a token appears unchanged."""
    form = "encode({}, 'escape')" if sql_type == "bytea" else "{}::text"
    # psycopg gives % a meaning in a statement with parameters.
    return sql.SQL(form).format(sql.Identifier(name.replace("%", "%%")))


def _encrypted(keys: KeyRing, column: str, account_id: str, value: str) -> str:
    """Return `value` encrypted. It may be so already: the older backend may have replaced only one of the tokens."""
    return value if re.match(ENCRYPTED, value) else keys.encrypt(column, account_id, value)
