"""Operators' sessions, stored as rows so that the server can end them. Owns `rdservice_sessions`.

The browser's cookie holds a random token; the row holds the token's SHA-256. 256 random bits need neither a salt nor a
slow hash.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

from rdservice.database.pool import write_if_possible

TOKEN_PATTERN = re.compile(r"[A-Za-z0-9_-]{43}")

# FOR SHARE waits for a concurrent password reset, then sees the new hash: no session survives a reset.
START = """
INSERT INTO rdservice_sessions (token_hash, operator_id)
SELECT %(token_hash)s, operator_id FROM rdservice_operators
 WHERE operator_id = %(operator_id)s AND password_hash = %(verified_hash)s
   FOR SHARE
"""

FIND = """
SELECT encode(s.token_hash, 'hex') AS session_id, o.operator_id::text, o.email,
       s.last_seen_at < rd_now() - interval '1 minute' AS seen_long_ago
  FROM rdservice_sessions s JOIN rdservice_operators o USING (operator_id)
 WHERE s.token_hash = %(token_hash)s
   AND s.last_seen_at > rd_now() - interval '12 hours'
   AND s.created_at > rd_now() - interval '7 days'
"""

TOUCH = "UPDATE rdservice_sessions SET last_seen_at = rd_now() WHERE token_hash = %(token_hash)s"

END = "DELETE FROM rdservice_sessions WHERE token_hash = %(token_hash)s"

END_ALL = "DELETE FROM rdservice_sessions WHERE operator_id = %(operator_id)s"

PRUNE = """
DELETE FROM rdservice_sessions WHERE token_hash = ANY (ARRAY(
    SELECT token_hash FROM rdservice_sessions
     WHERE last_seen_at <= rd_now() - interval '12 hours' OR created_at <= rd_now() - interval '7 days'
     LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A logged-in operator. `session_id` is the token's SHA-256 in hex; it identifies a session but cannot open one."""

    session_id: str = field(repr=False)
    operator_id: str
    email: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found(Session):
    seen_long_ago: bool


def start(conn: Connection[Any], operator_id: str, *, verified_hash: str) -> str | None:
    """Start a session and return the token for its cookie.

    None when the operator was removed or the password changed after `verified_hash` was verified.
    """
    token = secrets.token_urlsafe(32)
    values = {"token_hash": _hash(token), "operator_id": operator_id, "verified_hash": verified_hash}
    return token if conn.execute(START, values).rowcount else None


def find(conn: Connection[Any], token: str, *, in_use: bool = True) -> Session | None:
    """Return the session of `token`; None when the token is malformed, or the session has ended or expired.

    A session expires after 12 hours without use, and 7 days after its start. With `in_use`, this call counts as use;
    `last_seen_at` is updated at most once a minute.
    """
    if not TOKEN_PATTERN.fullmatch(token):
        return None
    values = {"token_hash": _hash(token)}
    with conn.cursor(row_factory=class_row(_Found)) as cursor:
        found = cursor.execute(FIND, values).fetchone()
    if found is not None and found.seen_long_ago and in_use:
        write_if_possible(conn, TOUCH, values)
    return found


def end(conn: Connection[Any], token: str) -> None:
    """End the session of `token`, if there is one."""
    conn.execute(END, {"token_hash": _hash(token)})


def end_all(conn: Connection[Any], operator_id: str) -> int:
    """End all sessions of an operator and return how many there were."""
    return conn.execute(END_ALL, {"operator_id": operator_id}).rowcount


def prune(conn: Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` expired sessions; return how many were deleted."""
    return conn.execute(PRUNE, {"batch": batch}).rowcount


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
