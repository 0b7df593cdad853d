"""Encrypts plain tokens that an older backend left in `rdstation_tokens`; migration 1 adopted the table itself.

The older backend may have kept the tokens a second time, say in a column with RD Station's whole answer: such copies of
a row's own tokens are blotted out with the encryption. What else its columns hold is not touched.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, LiteralString
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from rdservice.access import audit
from rdservice.access.audit import Author
from rdservice.database.pool import transaction
from rdservice.database.progress import OnRows, ignore
from rdservice.encryption import ENCRYPTED, KeyMissing, KeyRing, ValueDamaged

BATCH = 500
BLOT = "***"
SHORTEST_COPY = 8
"""A shorter token may stand in another column by chance."""
NAMED_LIKE_TOKENS = re.compile("token|secret|credential|password", re.IGNORECASE)
SHORTEST_FOUND_BY_NAME = 20
"""Below that it is no token, but "Bearer" or a date."""

# Columns that can hold a text; ours that are never the older backend's are left out.
OTHER_COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod)
  FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
 WHERE attrelid = 'rdstation_tokens'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
   AND typcategory IN ('S', 'U', 'A') AND typname <> 'uuid'
   AND attname <> ALL ('{account_id,access_token,refresh_token,status,name,last_error}')
"""
PLAIN_ROWS: LiteralString = """
SELECT account_id, access_token, refresh_token {others} FROM rdstation_tokens
 WHERE account_id > %(after)s AND (access_token !~ %(encrypted)s OR refresh_token !~ %(encrypted)s)
 ORDER BY account_id LIMIT %(batch)s
   FOR UPDATE
"""
COUNT_PLAIN_ROWS = """
SELECT count(*) FROM rdstation_tokens WHERE access_token !~ %(encrypted)s OR refresh_token !~ %(encrypted)s
"""
# A plain token is a new authorization by the older backend, whatever became of the one before.
WRITE: LiteralString = """
UPDATE rdstation_tokens
   SET access_token = %(access_token)s, refresh_token = %(refresh_token)s,
       status = CASE WHEN %(renewable)s THEN 'connected' ELSE 'reauthorization_required' END,
       last_error = CASE WHEN %(renewable)s THEN NULL ELSE 'no_refresh_token' END,
       issued_at = LEAST(issued_at, expires_at - interval '1 day'), authorization_id = gen_random_uuid(),
       retry_at = NULL, failures = 0, refusals = 0, refused_since = NULL, updated_at = rd_now() {others}
 WHERE account_id = %(account_id)s
"""
LOOKS_LIKE_TOKENS: LiteralString = """
SELECT EXISTS (SELECT FROM rdstation_tokens
                WHERE {text} ~ 'eyJ[A-Za-z0-9_-]+[.]eyJ' OR (%(named_so)s AND length({text}) >= %(shortest)s))
"""


def count_plain_rows(conn: psycopg.Connection[Any]) -> int:
    """Return how many rows `encrypt_plain_rows` would encrypt."""
    row = conn.execute(COUNT_PLAIN_ROWS, {"encrypted": ENCRYPTED}).fetchone()
    return 0 if row is None else int(row[0])


def encrypt_plain_rows(
    pool: ConnectionPool[psycopg.Connection[Any]],
    keys: KeyRing,
    *,
    by: Author,
    on_rows: OnRows = ignore,
) -> int:
    """Encrypt for `by` what is still plain, in batches of their own transactions; return the number of rows.

    `on_rows` is told how many more were encrypted.
    Safe to repeat, to run twice at once and to interrupt: each row is encrypted once, by whoever comes first.
    """
    total, after = 0, ""
    while True:
        with transaction(pool) as conn:
            others = dict(conn.execute(OTHER_COLUMNS).fetchall())
            rows = _plain_rows(conn, others, after)
            for row in rows:
                _encrypt(conn, keys, row, others)
            if rows:
                audit.record(conn, by, "values_encrypted", accounts=len(rows))
        if not rows:
            break
        total += len(rows)
        on_rows(len(rows))
        after = rows[-1]["account_id"]
    if total:
        with transaction(pool) as conn:
            # The planner's samples of other columns still show what was blotted out, and a dump may contain them.
            conn.execute("ANALYZE rdstation_tokens")
    return total


def columns_with_tokens(conn: psycopg.Connection[Any]) -> list[str]:
    """Return the older backend's columns that by their name or content seem to hold further tokens, in plain text."""
    return [
        name
        for name, sql_type in conn.execute(OTHER_COLUMNS).fetchall()
        if conn.execute(
            sql.SQL(LOOKS_LIKE_TOKENS).format(text=_text(name, sql_type)),
            {"named_so": NAMED_LIKE_TOKENS.search(name) is not None, "shortest": SHORTEST_FOUND_BY_NAME},
        ).fetchone()
        == (True,)
    ]


def _plain_rows(conn: psycopg.Connection[Any], others: dict[str, str], after: str) -> list[dict[str, Any]]:
    texts = [
        sql.SQL(", {} AS {}").format(_text(name, sql_type), _identifier(name))
        for name, sql_type in others.items()
    ]
    with conn.cursor(row_factory=dict_row) as cur:
        return cur.execute(
            sql.SQL(PLAIN_ROWS).format(others=sql.SQL("").join(texts)),
            {"after": after, "encrypted": ENCRYPTED, "batch": BATCH},
        ).fetchall()


def _encrypt(
    conn: psycopg.Connection[Any], keys: KeyRing, row: dict[str, Any], others: dict[str, str]
) -> None:
    """Encrypt the tokens of a row, and blot out their copies in the columns `others` (names to types)."""
    account_id = row["account_id"]
    copies = _copies(keys, row)
    blotted = {name: _blot(row[name], copies) for name in others if row[name] is not None}
    changed = [name for name, text in blotted.items() if text != row[name]]
    changes = [
        sql.SQL(", {} = {}").format(
            _identifier(name), _from_text(sql.Placeholder(f"other_{number}"), others[name])
        )
        for number, name in enumerate(changed)
    ]
    conn.execute(
        sql.SQL(WRITE).format(others=sql.SQL("").join(changes)),
        {
            **{f"other_{number}": blotted[name] for number, name in enumerate(changed)},
            "account_id": account_id,
            "access_token": _encrypted(keys, "access_token", account_id, row["access_token"]),
            "refresh_token": _encrypted(keys, "refresh_token", account_id, row["refresh_token"]),
            "renewable": row["refresh_token"] != "",
        },
    )


def _copies(keys: KeyRing, row: dict[str, Any]) -> list[str]:
    """Return the spellings of the row's tokens that are to be blotted out, longest first."""
    spellings = set()
    for column in ("access_token", "refresh_token"):
        value = row[column]
        if re.match(ENCRYPTED, value):
            try:
                value = keys.decrypt(column, row["account_id"], value)
            except (KeyMissing, ValueDamaged):
                continue
        if len(value) >= SHORTEST_COPY:
            in_json = json.dumps(value)[1:-1]
            spellings |= {value, in_json, in_json.replace("/", "\\/"), quote(value, safe="")}
    return sorted(spellings, key=len, reverse=True)


def _blot(text: str, copies: Iterable[str]) -> str:
    for copy in copies:
        text = text.replace(copy, BLOT)
    return text


def _identifier(name: str) -> sql.Identifier:
    """Return a column's name for a statement with parameters, in which psycopg gives % a meaning."""
    return sql.Identifier(name.replace("%", "%%"))


def _text(name: str, sql_type: str) -> sql.Composable:
    """Return the column's value as a text in which a token reads as it is."""
    form = "encode({}, 'escape')" if sql_type == "bytea" else "{}::text"
    return sql.SQL(form).format(_identifier(name))


def _from_text(text: sql.Placeholder, sql_type: str) -> sql.Composable:
    """Return a column's new text as a value of its type, which is written as PostgreSQL itself does."""
    if sql_type == "bytea":
        return sql.SQL("decode({}, 'escape')").format(text)
    return sql.SQL("{}::{}").format(text, sql.SQL(sql_type))


def _encrypted(keys: KeyRing, column: str, account_id: str, value: str) -> str:
    """Return `value` encrypted; the older backend may have replaced only one of two encrypted tokens."""
    return value if re.match(ENCRYPTED, value) else keys.encrypt(column, account_id, value)
