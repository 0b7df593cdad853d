"""Adds, reads and prunes events. This module and `encrypted` own the tables of events.

The transaction that inserts an account's events locks the row of the account's stream and numbers them under that lock.
So events become visible in the order of their numbers, and a reader that continues from a number skips none.
"""

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from rdservice.encryption import KeyRing
from rdservice.errors import TooManyRequests
from rdservice.events.encrypted import encrypt
from rdservice.events.payloads import Event, EventType

KEPT_DAYS = 30
MOST_BYTES = 64 * 1024 * 1024
"""Storage for an account's events; the oldest are deleted first. So nobody with the address can fill the disk."""
MOST_A_MINUTE = 1_200
"""Largest number of new events of an account per minute."""
ROW_BYTES = 300
"""Approximate storage of an event without its payload."""

OPEN = "INSERT INTO rdservice_event_streams (account_id) VALUES (%(account_id)s) ON CONFLICT DO NOTHING"
# For a new stream counted_from is -infinity, from which PostgreSQL before 17 cannot subtract: hence GREATEST.
LOCK = """
SELECT last_number, total_bytes,
       CASE WHEN counted_from > rd_now() - interval '1 minute' THEN counted ELSE 0 END AS counted,
       GREATEST(60 - EXTRACT(epoch FROM rd_now() - GREATEST(counted_from, rd_now() - interval '1 minute')), 1)::float8
           AS wait_s
  FROM rdservice_event_streams WHERE account_id = %(account_id)s
   FOR UPDATE
"""
KNOWN = "SELECT identity FROM rdservice_events WHERE identity = ANY (%(identities)s)"
NEWEST = """
SELECT lead, max(event_at) FROM rdservice_events
 WHERE account_id = %(account_id)s AND lead = ANY (%(leads)s) GROUP BY lead
"""
# The database's clock bounds the times of events: an event in the future would make all later ones late.
CLOCK = "SELECT rd_now()"
INSERT = """
INSERT INTO rdservice_events (account_id, number, connection_id, event_type, event_at, late, identity, lead, payload,
                              ends_at)
SELECT %(account_id)s, n.number, %(connection_id)s, n.event_type, n.event_at, n.late, n.identity, n.lead, n.payload,
       n.ends_at
  FROM unnest(%(numbers)s::bigint[], %(types)s::text[], %(moments)s::timestamptz[], %(late)s::boolean[],
              %(identities)s::bytea[], %(leads)s::bytea[], %(payloads)s::text[], %(ends)s::bigint[])
    AS n (number, event_type, event_at, late, identity, lead, payload, ends_at)
"""
ADVANCE = """
UPDATE rdservice_event_streams
   SET last_number = %(last_number)s, total_bytes = %(total_bytes)s,
       counted = %(counted)s, counted_from = CASE WHEN %(begin)s THEN rd_now() ELSE counted_from END
 WHERE account_id = %(account_id)s
"""
TRIM = """
DELETE FROM rdservice_events WHERE account_id = %(account_id)s AND number = ANY (ARRAY(
    SELECT number FROM (
        SELECT number, ends_at FROM rdservice_events
         WHERE account_id = %(account_id)s ORDER BY number LIMIT %(batch)s) oldest
     WHERE ends_at <= %(total_bytes)s - %(most)s))
"""
POSITION = """
SELECT t.connection_id, COALESCE(s.last_number, 0) AS last_number
  FROM rdstation_tokens t LEFT JOIN rdservice_event_streams s USING (account_id)
 WHERE t.account_id = %(account_id)s
"""
PAGE = """
SELECT number, event_type, event_at, received_at, late, identity, payload, found > %(limit)s OR cut AS more
  FROM (SELECT *, count(*) OVER () AS found, row_number() OVER w AS place,
               bool_or(too_much) OVER () AS cut
          FROM (SELECT *, sum(length(payload)) OVER v - length(payload) > %(bytes)s AS too_much
                  FROM (SELECT * FROM rdservice_events
                         WHERE account_id = %(account_id)s AND connection_id = %(connection_id)s
                           AND number > %(after)s AND number <= %(until)s
                           AND (%(event_type)s::text IS NULL OR event_type = %(event_type)s)
                         ORDER BY number LIMIT %(limit)s + 1) matching
                WINDOW v AS (ORDER BY number)) measured
        WINDOW w AS (ORDER BY number)) counted
 WHERE place <= %(limit)s AND NOT too_much
 ORDER BY number
"""
COUNT_BETWEEN = """
SELECT count(*) FROM rdservice_events
 WHERE account_id = %(account_id)s AND connection_id = %(connection_id)s
   AND number > %(after)s AND number <= %(until)s
"""
LATEST = """
SELECT received_at FROM rdservice_events WHERE account_id = %(account_id)s ORDER BY number DESC LIMIT 1
"""
PRUNE_OLD = """
DELETE FROM rdservice_events WHERE identity = ANY (ARRAY(
    SELECT identity FROM rdservice_events
     WHERE received_at < rd_now() - make_interval(days => %(days)s)
     ORDER BY received_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """The account to which events belong, with its present connection and cache epoch."""

    account_id: str
    connection_id: UUID
    cache_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """The result of `add`: the number of new events in order, of new but late ones, and of known ones.

    `new`: all new events.
    """

    stored: int
    late: int
    duplicates: int
    new: list[Event] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where reading an account's events ends for now: its connection, and the number of its newest event."""

    connection_id: UUID
    last_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """A row of `rdservice_events`. `more`: further events follow its page."""

    number: int
    event_type: EventType
    event_at: datetime
    received_at: datetime
    late: bool
    identity: bytes
    payload: str = field(repr=False)
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Locked:
    last_number: int
    total_bytes: int
    counted: int
    wait_s: float


@dataclass(slots=True)
class _New:
    event: Event
    identity: bytes
    lead: bytes
    moment: datetime
    late: bool = False


class Hashes:
    """Keyed hashes, so that a dump of the table does not reveal whether it has events of a given person."""

    def __init__(self, secret_key: str) -> None:
        self._key = secret_key.encode()

    def identity(self, stream: Stream, event: Event) -> bytes:
        """Return a hash that is the same for all deliveries of one event."""
        return self._of("event", stream, *event.marks)

    def lead(self, stream: Stream, event: Event) -> bytes:
        """Return a hash that is the same for all events of one lead."""
        return self._of("lead", stream, event.whom)

    def _of(self, kind: str, stream: Stream, *parts: str | None) -> bytes:
        text = json.dumps([stream.account_id, str(stream.connection_id), *parts])
        return hmac.digest(self._key, f"rdservice {kind}\0{text}".encode(), hashlib.sha256)


def add(
    conn: psycopg.Connection[Any],
    keys: KeyRing,
    hashes: Hashes,
    stream: Stream,
    events: Sequence[Event],
) -> Added:
    """Insert the events that are new, each with a number. Raises TooManyRequests above `MOST_A_MINUTE`."""
    by_identity = {hashes.identity(stream, event): event for event in events}
    # Checked before locking: a storm of duplicates then locks and writes nothing.
    unknown = _without_known(conn, by_identity)
    if unknown:
        lock = _lock(conn, stream.account_id)
        unknown = _without_known(conn, unknown)
    if not unknown:
        return Added(stored=0, late=0, duplicates=len(events), new=[])
    last_number, total_bytes, counted = lock.last_number, lock.total_bytes, lock.counted
    if counted + len(unknown) > MOST_A_MINUTE:
        raise TooManyRequests(
            f"More than {MOST_A_MINUTE} events within a minute. Deliver these again later.",
            retry_after_s=lock.wait_s,
        )
    new = _in_order(conn, hashes, stream, unknown)
    payloads = [encrypt(keys, item.identity, stream.account_id, item.event) for item in new]
    ends, end = [], total_bytes
    for payload in payloads:
        end += len(payload) + ROW_BYTES
        ends.append(end)
    conn.execute(
        INSERT,
        {
            "account_id": stream.account_id,
            "connection_id": stream.connection_id,
            "numbers": list(range(last_number + 1, last_number + 1 + len(new))),
            "types": [item.event.event_type for item in new],
            "moments": [item.moment for item in new],
            "late": [item.late for item in new],
            "identities": [item.identity for item in new],
            "leads": [item.lead for item in new],
            "payloads": payloads,
            "ends": ends,
        },
    )
    conn.execute(
        ADVANCE,
        {
            "account_id": stream.account_id,
            "last_number": last_number + len(new),
            "total_bytes": end,
            "counted": counted + len(new),
            "begin": counted == 0,
        },
    )
    conn.execute(
        TRIM,
        {
            "account_id": stream.account_id,
            "total_bytes": end,
            "most": MOST_BYTES,
            "batch": 50 + 2 * len(new),
        },
    )
    late = sum(item.late for item in new)
    return Added(
        stored=len(new) - late,
        late=late,
        duplicates=len(events) - len(new),
        new=[item.event for item in new],
    )


def _lock(conn: psycopg.Connection[Any], account_id: str) -> _Locked:
    conn.execute(OPEN, {"account_id": account_id})
    with conn.cursor(row_factory=class_row(_Locked)) as cur:
        locked = cur.execute(LOCK, {"account_id": account_id}).fetchone()
    if locked is None:
        raise RuntimeError("the stream that was just made is not there")
    return locked


def _without_known(conn: psycopg.Connection[Any], by_identity: dict[bytes, Event]) -> dict[bytes, Event]:
    known = {bytes(row[0]) for row in conn.execute(KNOWN, {"identities": list(by_identity)})}
    return {identity: event for identity, event in by_identity.items() if identity not in known}


def _in_order(
    conn: psycopg.Connection[Any], hashes: Hashes, stream: Stream, unknown: dict[bytes, Event]
) -> list[_New]:
    """Return the events in the order of their arrival, with their times, and marked as late if a newer one exists."""
    clock = conn.execute(CLOCK).fetchone()
    if clock is None:
        raise RuntimeError("SELECT without FROM returned no row")
    now: datetime = clock[0]
    new = [
        _New(event, identity, hashes.lead(stream, event), min(event.happened_at or now, now))
        for identity, event in unknown.items()
    ]
    values = {"account_id": stream.account_id, "leads": list({item.lead for item in new})}
    newest = {bytes(lead): moment for lead, moment in conn.execute(NEWEST, values)}
    for item in new:
        item.late = item.lead in newest and item.moment < newest[item.lead]
        newest[item.lead] = max(item.moment, newest.get(item.lead, item.moment))
    return new


def position(conn: psycopg.Connection[Any], account_id: str) -> Position | None:
    """Return how far the account's events may be read now, or None if the account is not connected."""
    with conn.cursor(row_factory=class_row(Position)) as cur:
        return cur.execute(POSITION, {"account_id": account_id}).fetchone()


def page(
    conn: psycopg.Connection[Any],
    account_id: str,
    place: Position,
    *,
    after: int,
    limit: int,
    most_bytes: int,
    event_type: EventType | None,
) -> list[StoredEvent]:
    """Return the next events after the number `after`, in order: up to `limit` events and about `most_bytes`."""
    values = _range(account_id, place, after, place.last_number)
    with conn.cursor(row_factory=class_row(StoredEvent)) as cur:
        return cur.execute(
            PAGE, {**values, "limit": limit, "bytes": most_bytes, "event_type": event_type}
        ).fetchall()


def count_between(
    conn: psycopg.Connection[Any], account_id: str, place: Position, *, after: int, until: int
) -> int:
    """Return the number of stored events with numbers above `after`, up to `until`."""
    row = conn.execute(COUNT_BETWEEN, _range(account_id, place, after, until)).fetchone()
    return 0 if row is None else int(row[0])


def latest(conn: psycopg.Connection[Any], account_id: str) -> datetime | None:
    """Return when the newest stored event was received, or None without one."""
    row = conn.execute(LATEST, {"account_id": account_id}).fetchone()
    return None if row is None else row[0]


def _range(account_id: str, place: Position, after: int, until: int) -> dict[str, Any]:
    return {
        "account_id": account_id,
        "connection_id": place.connection_id,
        "after": after,
        "until": until,
    }


def prune(conn: psycopg.Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` events that are too old; return how many were deleted.

    Events of an account that is disconnected or replaced are deleted with its row.
    """
    return conn.execute(PRUNE_OLD, {"days": KEPT_DAYS, "batch": batch}).rowcount
