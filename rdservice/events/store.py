"""Events in the database: added in order, read in order, pruned. Owns, with `encrypted`, the tables of events.

An account's events are numbered under the lock of its stream's row, in the transaction that inserts them. So they
become visible in the order of their numbers: who reads on from a number skips none, however many are inserted at once.
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
from rdservice.events.encrypted import sealed
from rdservice.events.payloads import Event, EventType

KEPT_DAYS = 30
MOST_BYTES = 64 * 1024 * 1024
"""Of an account's events; the oldest go first. Whoever has the address cannot fill the disk."""
MOST_A_MINUTE = 1_200
"""Events of an account."""
ROW_BYTES = 300
"""What an event takes beside its payload, roughly."""

OPEN = "INSERT INTO rdservice_event_streams (account_id) VALUES (%(account_id)s) ON CONFLICT DO NOTHING"
# A stream that has counted nothing yet does so since -infinity, which PostgreSQL before 17 does not subtract from.
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
# An event of the future would make all that follow late.
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
# What another RD Station account's name will show to be foreign, or the same after all, is neither shown nor passed by.
POSITION = """
SELECT t.connection_id, COALESCE(s.last_number, 0) AS last_number,
       CASE WHEN t.name IS NULL THEN (
           SELECT min(number) - 1 FROM rdservice_events e
            WHERE e.account_id = t.account_id AND e.number > %(after)s AND e.connection_id <> t.connection_id)
       END AS before_unsettled
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
# A connection that goes on has another id for the moment between the authorization and its name.
PRUNE_FOREIGN = """
DELETE FROM rdservice_events WHERE identity = ANY (ARRAY(
    SELECT e.identity
      FROM rdservice_event_streams s JOIN rdstation_tokens t USING (account_id)
      JOIN LATERAL (
           SELECT identity FROM rdservice_events
            WHERE account_id = s.account_id AND connection_id < t.connection_id
           UNION ALL
           SELECT identity FROM rdservice_events
            WHERE account_id = s.account_id AND connection_id > t.connection_id) f ON true
      JOIN rdservice_events e ON e.identity = f.identity
     WHERE t.name IS NOT NULL OR t.updated_at < rd_now() - interval '1 hour'
     LIMIT %(batch)s FOR UPDATE OF e SKIP LOCKED))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Where events go: an account, with the connection and epoch of now."""

    account_id: str
    connection_id: UUID
    cache_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What came of events: how many of them are new in order, new but late, and known. `new`: the new ones."""

    stored: int
    late: int
    duplicates: int
    new: list[Event] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far an account's events may be read. `until`: the last number that may be passed by."""

    connection_id: UUID
    last_number: int
    until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """A row. `more`: there are further ones after the page that it is on."""

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
    """Keyed hashes of what may be guessed: a dump of the table tells nobody whether it is about a certain person."""

    def __init__(self, secret_key: str) -> None:
        self._key = secret_key.encode()

    def identity(self, stream: Stream, event: Event) -> bytes:
        """Return the same for all deliveries of one event."""
        return self._of("event", stream, *event.marks)

    def lead(self, stream: Stream, event: Event) -> bytes:
        """Return the same for all events of one lead."""
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
    """Insert those events that are not there yet, each with a number. Raises TooManyRequests in a flood."""
    by_identity = {hashes.identity(stream, event): event for event in events}
    # A storm of repetitions locks and writes nothing.
    unknown = _without_known(conn, by_identity)
    if unknown:
        lock = _lock(conn, stream.account_id)
        unknown = _without_known(conn, unknown)
    if not unknown:
        return Added(stored=0, late=0, duplicates=len(events), new=[])
    last_number, total_bytes, counted = lock.last_number, lock.total_bytes, lock.counted
    if counted + len(unknown) > MOST_A_MINUTE:
        raise TooManyRequests(
            f"More than {MOST_A_MINUTE} events within a minute: deliver these again later.",
            retry_after_s=lock.wait_s,
        )
    new = _in_order(conn, hashes, stream, unknown)
    payloads = [sealed(keys, item.identity, stream.account_id, item.event) for item in new]
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
    """Return the events with the moments by which late ones are told, as they came."""
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


def position(conn: psycopg.Connection[Any], account_id: str, *, after: int) -> Position | None:
    """Return how far the account's events may be read now; None for an account that is not connected."""
    row = conn.execute(POSITION, {"account_id": account_id, "after": after}).fetchone()
    if row is None:
        return None
    connection_id, last_number, before_unsettled = row
    until = last_number if before_unsettled is None else before_unsettled
    return Position(connection_id=connection_id, last_number=last_number, until=max(until, after))


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
    """Return the next events after a number, in order, up to `limit` of them and about `most_bytes`."""
    values = _range(account_id, place, after, place.until)
    with conn.cursor(row_factory=class_row(StoredEvent)) as cur:
        return cur.execute(
            PAGE, {**values, "limit": limit, "bytes": most_bytes, "event_type": event_type}
        ).fetchall()


def count_between(
    conn: psycopg.Connection[Any], account_id: str, place: Position, *, after: int, until: int
) -> int:
    """Return how many of the events with these numbers are there."""
    row = conn.execute(COUNT_BETWEEN, _range(account_id, place, after, until)).fetchone()
    return 0 if row is None else int(row[0])


def latest(conn: psycopg.Connection[Any], account_id: str) -> datetime | None:
    """Return when the newest event that is kept was received, None without one."""
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
    """Delete up to `batch` events that are too old or of an RD Station account that is not connected any more."""
    old = conn.execute(PRUNE_OLD, {"days": KEPT_DAYS, "batch": batch}).rowcount
    return old + conn.execute(PRUNE_FOREIGN, {"batch": batch - old}).rowcount
