"""The secrets in the addresses at which RD Station may deliver. The only owner of `rdservice_subscriptions`.

A secret is 256 random bits and stands in RD Station's subscription; stored is its SHA-256, for the reasons that
`rdservice.access.keys` gives. Deliveries name no account: the secret is what tells it.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
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
"""How long the making of subscriptions keeps others from it: some calls to RD Station, 20 s each at the most."""

FIND = """
SELECT s.secret_hash, t.account_id, t.connection_id, t.cache_epoch
  FROM rdservice_subscriptions s
  JOIN rdstation_tokens t ON t.account_id = s.account_id AND t.connection_id = s.connection_id
 WHERE s.secret_hash = %(secret_hash)s
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
RETURNING connection_id
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
LIST = """
SELECT s.account_id, s.secret_hash, s.subscribed, s.created_at, s.complete_at,
       s.connection_id = t.connection_id AS current
  FROM rdservice_subscriptions s JOIN rdstation_tokens t USING (account_id)
 WHERE %(account_id)s::text IS NULL OR s.account_id = %(account_id)s
 ORDER BY s.account_id, s.created_at
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A row. `subscribed`: RD Station's ids by event type. `current`: of the RD Station account connected now.

    `complete_at` is None while RD Station is being asked for the subscriptions.
    """

    account_id: str
    secret_hash: bytes = field(repr=False)
    subscribed: Mapping[EventType, str]
    created_at: datetime
    complete_at: datetime | None
    current: bool


def hash_of(secret: str) -> bytes:
    """Return what is stored of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def find(conn: psycopg.Connection[Any], secret: str) -> Stream | None:
    """Return the account whose events come to the address with this secret; None when it is not in force."""
    wanted = hash_of(secret)
    row = conn.execute(FIND, {"secret_hash": wanted}).fetchone()
    if row is None or not hmac.compare_digest(bytes(row[0]), wanted):
        return None
    return Stream(account_id=row[1], connection_id=row[2], cache_epoch=row[3])


def begin(conn: psycopg.Connection[Any], account_id: str) -> tuple[str, UUID] | None:
    """Make a new secret, in force at once; return it with the connection that it is for.

    None without a row of the account, or while another process is at it.
    """
    conn.execute(GIVE_UP, {"account_id": account_id, "minutes": UNDER_WAY_MINUTES})
    secret = secrets.token_urlsafe(32)
    row = conn.execute(BEGIN, {"account_id": account_id, "secret_hash": hash_of(secret)}).fetchone()
    return None if row is None else (secret, row[0])


def complete(
    conn: psycopg.Connection[Any], account_id: str, secret: str, subscribed: Mapping[EventType, str]
) -> None:
    """Note that RD Station delivers to the address with this secret, and end all others of the account."""
    values = {"account_id": account_id, "secret_hash": hash_of(secret)}
    conn.execute(COMPLETE, {**values, "subscribed": Jsonb(dict(subscribed))})
    conn.execute(DROP_OTHERS, values)


def drop(conn: psycopg.Connection[Any], secret: str) -> None:
    """Forget a secret that RD Station was not given."""
    conn.execute(DROP, {"secret_hash": hash_of(secret)})


def drop_all(conn: psycopg.Connection[Any], account_id: str) -> int:
    """Take no more events of the account; return how many secrets ended."""
    return conn.execute(DROP_ALL, {"account_id": account_id}).rowcount


def owners(conn: psycopg.Connection[Any], found: Mapping[str, bytes]) -> dict[str, str]:
    """Return the accounts to which hashes belong, by the names under which `found` has them; strangers left out."""
    rows = conn.execute(OWNERS, {"secret_hashes": list(found.values())})
    by_hash = {bytes(secret_hash): account_id for secret_hash, account_id in rows}
    return {name: by_hash[value] for name, value in found.items() if value in by_hash}


def list_all(conn: psycopg.Connection[Any], account_id: str | None = None) -> list[Subscription]:
    """Return the subscriptions of one account or of all, oldest first."""
    with conn.cursor(row_factory=class_row(Subscription)) as cur:
        return cur.execute(LIST, {"account_id": account_id}).fetchall()
