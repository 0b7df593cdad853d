"""The secrets in the addresses to which RD Station may deliver. The only owner of `rdservice_subscriptions`.

A secret has 256 random bits. RD Station has it in the URL of its subscription; the table has its SHA-256 hash, for the
reasons that `rdservice.access.keys` gives. Deliveries do not name an account: the secret identifies it.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from rdservice.events.payloads import EventType
from rdservice.events.store import Stream

SECRET_FORM = re.compile(r"[A-Za-z0-9_-]{43}")
UNDER_WAY_MINUTES = 3
"""How long a process that creates subscriptions excludes others: it makes a few calls, of at most 20 s each."""

# The lock lets nobody replace the connection before the delivery is stored: its events go with the account's row.
FIND = """
SELECT s.secret_hash, t.account_id, t.connection_id, t.cache_epoch
  FROM rdservice_subscriptions s
  JOIN rdstation_tokens t ON t.account_id = s.account_id AND t.connection_id = s.connection_id
 WHERE s.secret_hash = %(secret_hash)s
   FOR KEY SHARE OF t
"""
GIVE_UP = """
UPDATE rdservice_subscriptions SET complete_at = rd_now()
 WHERE account_id = %(account_id)s AND complete_at IS NULL
   AND created_at < rd_now() - make_interval(mins => %(minutes)s)
"""
BEGIN = """
INSERT INTO rdservice_subscriptions (secret_hash, account_id, connection_id)
SELECT %(secret_hash)s, account_id, connection_id FROM rdstation_tokens WHERE account_id = %(account_id)s
ON CONFLICT DO NOTHING
RETURNING 1
"""
COMPLETE = """
UPDATE rdservice_subscriptions SET complete_at = rd_now(), subscribed = %(subscribed)s
 WHERE secret_hash = %(secret_hash)s
"""
DROP = "DELETE FROM rdservice_subscriptions WHERE secret_hash = %(secret_hash)s"
DROP_OTHERS = """
DELETE FROM rdservice_subscriptions
 WHERE account_id = %(account_id)s AND secret_hash <> %(secret_hash)s AND complete_at IS NOT NULL
"""
DROP_ALL = "DELETE FROM rdservice_subscriptions WHERE account_id = %(account_id)s"
OWNERS = """
SELECT secret_hash, account_id FROM rdservice_subscriptions WHERE secret_hash = ANY (%(secret_hashes)s)
"""
DELIVERS = """
SELECT EXISTS (SELECT FROM rdservice_subscriptions
                WHERE account_id = %(account_id)s AND connection_id = %(connection_id)s
                  AND secret_hash = ANY (%(secret_hashes)s))
"""
LIST = """
SELECT s.account_id, s.secret_hash, s.subscribed, s.created_at, s.complete_at,
       s.connection_id = t.connection_id AS current
  FROM rdservice_subscriptions s JOIN rdstation_tokens t USING (account_id)
 WHERE %(account_id)s::text IS NULL OR s.account_id = %(account_id)s
 ORDER BY s.account_id, s.created_at
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A row of `rdservice_subscriptions`.

    `subscribed`: RD Station's IDs by event type. `complete_at`: None while the subscriptions are being created.
    `current`: it belongs to the account's present connection.
    """

    account_id: str
    secret_hash: bytes = field(repr=False)
    subscribed: Mapping[EventType, str]
    created_at: datetime
    complete_at: datetime | None
    current: bool


def hash_of(secret: str) -> bytes:
    """Return the SHA-256 hash of a secret, as the table has it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def find(conn: psycopg.Connection[Any], secret: str) -> Stream | None:
    """Return the account whose events arrive at the address with this secret, or None if the secret is not valid."""
    wanted = hash_of(secret)
    row = conn.execute(FIND, {"secret_hash": wanted}).fetchone()
    if row is None or not hmac.compare_digest(bytes(row[0]), wanted):
        return None
    return Stream(account_id=row[1], connection_id=row[2], cache_epoch=row[3])


def begin(conn: psycopg.Connection[Any], account_id: str) -> str | None:
    """Create and return a new secret, which is valid immediately.

    None if the account has no row, or another process is creating its subscriptions.
    """
    conn.execute(GIVE_UP, {"account_id": account_id, "minutes": UNDER_WAY_MINUTES})
    secret = secrets.token_urlsafe(32)
    row = conn.execute(BEGIN, {"account_id": account_id, "secret_hash": hash_of(secret)}).fetchone()
    return None if row is None else secret


def complete(
    conn: psycopg.Connection[Any], account_id: str, secret_hash: bytes, subscribed: Mapping[EventType, str]
) -> bool:
    """Record that RD Station delivers to the address with this secret, and delete all other secrets of the account.

    Returns False if the secret has been deleted meanwhile.
    """
    values = {"account_id": account_id, "secret_hash": secret_hash}
    completed = conn.execute(COMPLETE, {**values, "subscribed": Jsonb(dict(subscribed))}).rowcount > 0
    if completed:
        conn.execute(DROP_OTHERS, values)
    return completed


def drop(conn: psycopg.Connection[Any], secret: str) -> None:
    """Delete a secret whose subscriptions were not created."""
    conn.execute(DROP, {"secret_hash": hash_of(secret)})


def drop_all(conn: psycopg.Connection[Any], account_id: str) -> int:
    """Delete all secrets of the account, so that its deliveries are refused; return the number deleted."""
    return conn.execute(DROP_ALL, {"account_id": account_id}).rowcount


def owners(conn: psycopg.Connection[Any], secret_hashes: Sequence[bytes]) -> dict[bytes, str]:
    """Return the account ID of each of these hashes that belongs to an account."""
    rows = conn.execute(OWNERS, {"secret_hashes": list(secret_hashes)})
    return {bytes(secret_hash): account_id for secret_hash, account_id in rows}


def delivers(
    conn: psycopg.Connection[Any], account_id: str, connection_id: UUID, secret_hashes: Collection[bytes]
) -> bool:
    """Return whether one of these secrets was made for exactly this connection of the account."""
    values = {"account_id": account_id, "connection_id": connection_id, "secret_hashes": list(secret_hashes)}
    return conn.execute(DELIVERS, values).fetchone() == (True,)


def list_all(conn: psycopg.Connection[Any], account_id: str | None = None) -> list[Subscription]:
    """Return the subscriptions of one account or of all, oldest first."""
    with conn.cursor(row_factory=class_row(Subscription)) as cur:
        return cur.execute(LIST, {"account_id": account_id}).fetchall()
