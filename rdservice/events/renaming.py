"""Moves an account's events to a new account ID: their hashes and their encryption include it."""

import json
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from rdservice.encryption import KeyRing, ValueDamaged
from rdservice.events.encrypted import decrypt, encrypt
from rdservice.events.payloads import Event, EventType, stored_event
from rdservice.events.store import Hashes, Stream

BATCH = 200

# The numbers of the old ID go on there, should it be connected again, and those of the new one never go back.
CONTINUE_STREAM = """
INSERT INTO rdservice_event_streams AS s
       (account_id, last_number, total_bytes, counted_from, counted, leads_changed_at)
SELECT %(new)s, last_number, total_bytes, counted_from, counted, leads_changed_at
  FROM rdservice_event_streams WHERE account_id = %(old)s
ON CONFLICT (account_id) DO UPDATE
   SET last_number = GREATEST(s.last_number, EXCLUDED.last_number), total_bytes = EXCLUDED.total_bytes,
       counted_from = EXCLUDED.counted_from, counted = EXCLUDED.counted,
       leads_changed_at = GREATEST(s.leads_changed_at, EXCLUDED.leads_changed_at)
"""
PAGE = """
SELECT number, identity, connection_id, event_type, event_at, received_at, payload
  FROM rdservice_events WHERE account_id = %(old)s AND number > %(after)s ORDER BY number LIMIT %(batch)s
"""
WRITE = """
UPDATE rdservice_events e SET identity = n.identity, lead = n.lead, payload = n.payload
  FROM unnest(%(before)s::bytea[], %(identities)s::bytea[], %(leads)s::bytea[], %(payloads)s::text[])
    AS n (before, identity, lead, payload)
 WHERE e.identity = n.before
"""


class _Row(NamedTuple):
    number: int
    identity: bytes
    connection_id: UUID
    event_type: EventType
    event_at: datetime
    received_at: datetime
    payload: str


def rewrite_events(conn: psycopg.Connection[Any], keys: KeyRing, hashes: Hashes, old: str, new: str) -> None:
    """Encrypt and hash the account's events as those of the ID `new`; the caller then changes their `account_id`.

    Damaged events stay as they are. Raises KeyMissing.
    """
    conn.execute(CONTINUE_STREAM, {"old": old, "new": new})
    after = 0
    while rows := [
        _Row(*row) for row in conn.execute(PAGE, {"old": old, "after": after, "batch": BATCH}).fetchall()
    ]:
        after = rows[-1].number
        written = [found for row in rows if (found := _rewritten(keys, hashes, row, old, new)) is not None]
        if written:
            before, identities, leads, payloads = (list(column) for column in zip(*written, strict=True))
            conn.execute(
                WRITE, {"before": before, "identities": identities, "leads": leads, "payloads": payloads}
            )


def _rewritten(
    keys: KeyRing, hashes: Hashes, row: _Row, old: str, new: str
) -> tuple[bytes, bytes, bytes, str] | None:
    """Return the identity before, and identity, lead and payload for the new ID; None for a damaged event."""
    try:
        told = json.loads(decrypt(keys, row.identity, old, row.payload))
    except ValueDamaged:
        return None
    event = _event(row, told)
    stream = Stream(account_id=new, connection_id=row.connection_id, cache_epoch=0)
    identity = hashes.identity(stream, event)
    return row.identity, identity, hashes.lead(stream, event), encrypt(keys, identity, new, event)


def _event(row: _Row, told: dict[str, Any]) -> Event:
    # An event whose delivery told no time has that of its arrival.
    happened_at = None if row.event_at == row.received_at else row.event_at.astimezone(UTC)
    return stored_event(row.event_type, told, happened_at)
