"""Encrypts plain tokens that an older backend left in `rdstation_tokens`; migration 1 adopted the table itself."""

import re
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from rdservice import audit, database
from rdservice.audit import Author
from rdservice.encryption import ENCRYPTED, KeyRing

BATCH = 500

PLAIN_ROWS = """
SELECT account_id, access_token, refresh_token FROM rdstation_tokens
 WHERE account_id > %(after)s AND (access_token !~ %(encrypted)s OR refresh_token !~ %(encrypted)s)
 ORDER BY account_id LIMIT %(batch)s
   FOR UPDATE
"""
# A plain token is a new authorization by the older backend, whatever became of the one before.
WRITE = """
UPDATE rdstation_tokens
   SET access_token = %(access_token)s, refresh_token = %(refresh_token)s,
       status = CASE WHEN %(renewable)s THEN 'connected' ELSE 'reauthorization_required' END,
       last_error = CASE WHEN %(renewable)s THEN NULL ELSE 'no_refresh_token' END,
       issued_at = LEAST(issued_at, expires_at - interval '1 day'), authorization_id = gen_random_uuid(),
       retry_at = NULL, failures = 0, refusals = 0, refused_since = NULL, updated_at = rd_now()
 WHERE account_id = %(account_id)s
"""


def encrypt_plain_rows(pool: ConnectionPool[psycopg.Connection[Any]], keys: KeyRing, *, by: Author) -> int:
    """Encrypt for `by` what is still plain, in batches of their own transactions; return the number of rows.

    Safe to repeat, to run twice at once and to interrupt: each row is encrypted once, by whoever comes first.
    """
    total, after = 0, ""
    while True:
        with database.transaction(pool) as conn:
            rows = conn.execute(
                PLAIN_ROWS, {"after": after, "encrypted": ENCRYPTED, "batch": BATCH}
            ).fetchall()
            for account_id, access_token, refresh_token in rows:
                conn.execute(
                    WRITE,
                    {
                        "account_id": account_id,
                        "access_token": _encrypted(keys, "access_token", account_id, access_token),
                        "refresh_token": _encrypted(keys, "refresh_token", account_id, refresh_token),
                        "renewable": refresh_token != "",
                    },
                )
            if rows:
                audit.record(conn, by, "values_encrypted", accounts=len(rows))
        if not rows:
            return total
        total += len(rows)
        after = rows[-1][0]


def _encrypted(keys: KeyRing, column: str, account_id: str, value: str) -> str:
    """Return `value` encrypted; the older backend may have replaced only one of two encrypted tokens."""
    return value if re.match(ENCRYPTED, value) else keys.encrypt(column, account_id, value)
