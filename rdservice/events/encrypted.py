"""The encrypted payloads of events: encrypts and decrypts one, and lists, replaces and deletes them in the table."""

import base64
import binascii
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from rdservice.encryption import EncryptedRow, KeyRing, Place, Replacement, ValueDamaged
from rdservice.events.payloads import Event

COLUMN = "events/"

NEXT_VALUES = """
SELECT account_id, identity, payload, received_at
  FROM rdservice_events WHERE identity > %(after)s ORDER BY identity LIMIT %(limit)s
"""
DELETE = "DELETE FROM rdservice_events WHERE identity = ANY (%(identities)s)"
COUNT = "SELECT count(*) FROM rdservice_events"
PAGE = """
SELECT identity, account_id, CASE WHEN left(payload, 9) IS DISTINCT FROM %(leave_out)s::text || '.' THEN payload END
  FROM rdservice_events WHERE identity > %(after)s ORDER BY identity LIMIT %(limit)s
"""
REPLACE = """
WITH given AS (
    SELECT * FROM unnest(%(identities)s::bytea[], %(old)s::text[], %(new)s::text[]) AS g (identity, old, new)),
free AS (
    SELECT e.identity FROM rdservice_events e JOIN given ON e.identity = given.identity AND e.payload = given.old
       FOR NO KEY UPDATE OF e SKIP LOCKED)
UPDATE rdservice_events e SET payload = given.new
  FROM given JOIN free USING (identity)
 WHERE e.identity = given.identity AND e.payload = given.old
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """An encrypted payload with its event's key."""

    account_id: str
    identity: bytes
    payload: str = field(repr=False)
    received_at: datetime


def encrypt(keys: KeyRing, identity: bytes, account_id: str, event: Event) -> str:
    """Return an event's payload compressed and encrypted, bound to the account and to the row with this identity."""
    told = f'{{"identifier": {json.dumps(event.identifier)}, "form": "{event.form}", "contact": {event.contact}}}'
    text = base64.b64encode(zlib.compress(told.encode(), 6)).decode()
    return keys.encrypt(_bound_column(identity), account_id, text)


def decrypt(keys: KeyRing, identity: bytes, account_id: str, payload: str) -> bytes:
    """Return the JSON (UTF-8) from which `encrypt` made the payload. Raises KeyMissing or ValueDamaged."""
    text = keys.decrypt(_bound_column(identity), account_id, payload)
    try:
        return zlib.decompress(base64.b64decode(text))
    except (binascii.Error, zlib.error, ValueError):
        raise ValueDamaged(f"an event of account {account_id!r} is damaged") from None


def _bound_column(identity: bytes) -> str:
    return f"{COLUMN}{identity.hex()}"


def next_values(conn: psycopg.Connection[Any], *, after: bytes, limit: int) -> list[Value]:
    """Return the next payloads after the identity `after`, in the order of their identities."""
    with conn.cursor(row_factory=class_row(Value)) as cur:
        return cur.execute(NEXT_VALUES, {"after": after, "limit": limit}).fetchall()


def delete(conn: psycopg.Connection[Any], identities: Iterable[bytes]) -> int:
    """Delete events; return the number deleted."""
    return conn.execute(DELETE, {"identities": list(identities)}).rowcount


@dataclass(frozen=True, slots=True)
class EventTable:
    """The table's encrypted values. RD Station delivers an event only once, so an unreadable value is lost."""

    name: str = "rdservice_events"
    disposable: bool = False

    def count(self, conn: psycopg.Connection[Any]) -> int:
        """See EncryptedTable."""
        row = conn.execute(COUNT).fetchone()
        return 0 if row is None else int(row[0])

    def page(
        self, conn: psycopg.Connection[Any], *, after: Place | None, limit: int, leave_out: str | None
    ) -> list[EncryptedRow]:
        """See EncryptedTable."""
        found = conn.execute(PAGE, {"after": after or b"", "limit": limit, "leave_out": leave_out})
        return [
            EncryptedRow(
                place=identity,
                account_id=account_id,
                values={} if payload is None else {_bound_column(identity): payload},
                left_out=int(payload is None),
            )
            for identity, account_id, payload in found
        ]

    def replace(self, conn: psycopg.Connection[Any], replacements: Sequence[Replacement]) -> int:
        """See EncryptedTable."""
        changes = [
            (given.row.place, given.row.values[column], new)
            for given in replacements
            for column, new in given.values.items()
        ]
        identities, old, new = zip(*changes, strict=True)
        values = {"identities": list(identities), "old": list(old), "new": list(new)}
        return conn.execute(REPLACE, values).rowcount


EVENTS = EventTable()
