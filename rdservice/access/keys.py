"""API keys of programs. Owns `rdservice_api_keys`.

A key has the form `rdk_<id>_<secret>`. The id (8 characters of base32) finds the row and may be shown; the secret (256
random bits, urlsafe base64) is shown once. The table stores the secret's SHA-256. A slow hash would protect guessable
passwords; 256 random bits cannot be guessed, and every request computes this hash.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

from rdservice.database.pool import write_if_possible
from rdservice.errors import InvalidField
from rdservice.names import is_readable
from rdservice.text.catalogue import message

SCOPES = {
    "tokens:write": "connect, upload, renew and remove tokens",
    "tokens:status": "see which accounts are connected and until when",
    "tokens:read": "take live access tokens",
    "leads:read": "read leads, segmentations and lead events",
    "api:call": "call any RD Station route through the service",
    "privacy:erase": "erase a person from all that the service keeps",
}
"""All scopes, with what each allows."""

COMMAND_LINE = "command line"
"""`created_by` of keys that a command created. For other keys it is the operator's e-mail."""
KEY_ID = re.compile(r"[a-z2-7]{8}")
KEY_PATTERN = re.compile(r"rdk_([a-z2-7]{8})_([A-Za-z0-9_-]{43})")
MAX_NAME_LENGTH = 100

CREATE = """
INSERT INTO rdservice_api_keys (key_id, name, secret_hash, scopes, created_by)
VALUES (%(key_id)s, %(name)s, %(secret_hash)s, %(scopes)s, %(created_by)s)
"""

FIND = """
SELECT name, scopes, secret_hash,
       COALESCE(last_used_at < rd_now() - interval '1 minute', true) AS used_long_ago
  FROM rdservice_api_keys
 WHERE key_id = %(key_id)s AND revoked_at IS NULL
"""

# Skips a row that another request is updating: one update is enough, and no request waits for the lock.
TOUCH = """
UPDATE rdservice_api_keys
   SET last_used_at = rd_now()
 WHERE key_id = (SELECT key_id FROM rdservice_api_keys WHERE key_id = %(key_id)s FOR UPDATE SKIP LOCKED)
"""

LIST = """
SELECT key_id, name, scopes, created_at, created_by, last_used_at, revoked_at, rd_now() AS now
  FROM rdservice_api_keys
 WHERE key_id = COALESCE(%(key_id)s, key_id)
 ORDER BY revoked_at IS NOT NULL, created_at, key_id
"""

REVOKE = """
UPDATE rdservice_api_keys SET revoked_at = COALESCE(revoked_at, rd_now()) WHERE key_id = %(key_id)s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A valid key, without its secret."""

    key_id: str
    name: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A stored key, valid or revoked. All times, `now` included, come from the database's clock."""

    key_id: str
    name: str
    scopes: list[str]
    created_at: datetime
    created_by: str
    last_used_at: datetime | None
    revoked_at: datetime | None
    now: datetime


def create(conn: Connection[Any], name: str, scopes: Sequence[str], *, created_by: str) -> str:
    """Create a key and return its full text, which cannot be recovered later.

    Raises InvalidField when the name is empty, too long or not printable, and when `scopes` is empty or has an unknown
    scope.
    """
    name = name.strip()
    if not name or len(name) > MAX_NAME_LENGTH or not is_readable(name):
        raise InvalidField(
            message("The name must have 1 to %(most)s printable characters."),
            values={"most": MAX_NAME_LENGTH},
            extra={"field": "name"},
        )
    if not scopes or not set(scopes) <= SCOPES.keys():
        raise InvalidField(
            message("The scopes must be one or more of: %(scopes)s."),
            values={"scopes": ", ".join(SCOPES)},
            extra={"field": "scopes"},
        )
    key_id = base64.b32encode(secrets.token_bytes(5)).decode("ascii").lower()
    secret = secrets.token_urlsafe(32)
    values = {
        "key_id": key_id,
        "name": name,
        "secret_hash": _hash(secret),
        "scopes": [scope for scope in SCOPES if scope in scopes],
        "created_by": created_by,
    }
    conn.execute(CREATE, values)
    return f"rdk_{key_id}_{secret}"


def find(conn: Connection[Any], text: str) -> ApiKey | None:
    """Return the valid key with this full text; None when it is malformed, unknown or revoked.

    Updates `last_used_at` at most once a minute.
    """
    match = KEY_PATTERN.fullmatch(text)
    if match is None:
        return None
    key_id, secret = match.groups()
    row = conn.execute(FIND, {"key_id": key_id}).fetchone()
    if row is None:
        return None
    name, scopes, secret_hash, used_long_ago = row
    if not hmac.compare_digest(bytes(secret_hash), _hash(secret)):
        return None
    if used_long_ago:
        write_if_possible(conn, TOUCH, {"key_id": key_id})
    return ApiKey(key_id=key_id, name=name, scopes=frozenset(scopes))


def key_id(text: str) -> str:
    """Return the id part of a key's full text. The id is not secret."""
    return text.split("_")[1]


def list_all(conn: Connection[Any]) -> list[KeyRecord]:
    """Return all keys: valid ones first, then revoked ones, each oldest first."""
    with conn.cursor(row_factory=class_row(KeyRecord)) as cursor:
        return cursor.execute(LIST, {"key_id": None}).fetchall()


def record(conn: Connection[Any], key_id: str) -> KeyRecord | None:
    """Return the key with this id, valid or revoked; None when there is none."""
    if not KEY_ID.fullmatch(key_id):
        return None
    with conn.cursor(row_factory=class_row(KeyRecord)) as cursor:
        return cursor.execute(LIST, {"key_id": key_id}).fetchone()


def revoke(conn: Connection[Any], key_id: str) -> bool:
    """Revoke the key permanently; return whether a key with this id exists. Idempotent.

    Every process refuses the key within a second (`key_memory.MAX_AGE_S`).
    """
    return bool(KEY_ID.fullmatch(key_id)) and conn.execute(REVOKE, {"key_id": key_id}).rowcount > 0


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("ascii")).digest()
