"""Sessions of operators, as rows, so that they can be ended. The only owner of `rdservice_sessions`.

The browser's cookie holds a random token; the row holds its SHA-256, which needs no salt and no slow hash because the
token has 256 random bits.
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

# FOR SHARE waits for a password reset that is under way, and then finds another hash: a reset leaves no session behind.
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
    """An operator who is logged in. `session_id`, the token's SHA-256 in hex, names the session but opens none."""

    session_id: str = field(repr=False)
    operator_id: str
    email: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found(Session):
    seen_long_ago: bool


def start(conn: Connection[Any], operator_id: str, *, verified_hash: str) -> str | None:
    """Start a session and return its token, for the cookie.

    None when the operator was removed, or the password changed, since `verified_hash` was verified.
    """
    token = secrets.token_urlsafe(32)
    values = {"token_hash": _hash(token), "operator_id": operator_id, "verified_hash": verified_hash}
    return token if conn.execute(START, values).rowcount else None


def find(conn: Connection[Any], token: str, *, in_use: bool = True) -> Session | None:
    """Return the live session of `token` and note, at most once a minute, that it was seen; only where it is `in_use`.

    None when it was ended, is idle for 12 hours or 7 days old, or `token` has not the form of one.
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
    """Delete up to `batch` sessions that are over; return how many."""
    return conn.execute(PRUNE, {"batch": batch}).rowcount


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
