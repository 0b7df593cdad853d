"""Finds a person in the stored events by decrypting each, and deletes the events of and about the person."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from rdservice.cache.person import Person, decoded, identifiers, own_addresses, own_uuid
from rdservice.cache.search import Found
from rdservice.database.pool import transaction
from rdservice.database.progress import OnRows, ignore
from rdservice.encryption import KeyMissing, KeyRing, ValueDamaged
from rdservice.events import encrypted
from rdservice.events.encrypted import Value

BATCH = 200
MISSING, DAMAGED = object(), object()
"""In place of payloads that cannot be decrypted: their key is missing, or they are damaged."""

Pool = ConnectionPool[psycopg.Connection[Any]]


def named(
    pool: Pool, keys: KeyRing, until: Callable[[str], datetime | None], *, on_rows: OnRows = ignore
) -> Person:
    """Return the person, or people, of all identifiers in events received before the time that `until` tells of each.

    `until` returns None for the identifier of somebody else. `on_rows`, here and below, gets the size of each batch.
    """
    person = Person()
    for values in _pages(pool, on_rows):
        for value in values:
            for one in set(identifiers(_told(keys, value))):
                end = until(one)
                if end is not None and end > value.received_at:
                    person |= Person(addresses={one: end}) if "@" in one else Person(uuids={one: end})
    return person


def known_by(pool: Pool, keys: KeyRing, person: Person, *, on_rows: OnRows = ignore) -> Person:
    """Return the person with the UUIDs of all leads that had one of the person's addresses in an event.

    And with all other addresses that the events of these leads have.
    """
    for values in _pages(pool, on_rows):
        for value in values:
            person = person.known_by(_lead(_told(keys, value)), value.received_at)
    if not person.uuids:
        return person
    further: dict[str, datetime] = {}
    for values in _pages(pool, ignore):
        for value in values:
            lead = _lead(_told(keys, value))
            until = person.uuids.get(own_uuid(lead) or "", value.received_at)
            if until > value.received_at:
                further |= dict.fromkeys(own_addresses(lead), until)
    return person | Person(further=further)


def erase(pool: Pool, keys: KeyRing, person: Person, *, on_rows: OnRows = ignore) -> int:
    """Delete all events of the person's leads, all that mention the person, and all damaged ones; return their number.

    Events whose encryption key is missing stay; `search` counts them.
    """
    deleted = 0
    for values in _pages(pool, on_rows):
        gone = []
        for value in values:
            told = _told(keys, value)
            if told is DAMAGED or _is_owned(person, told, value) or _mentions(person, told, value):
                gone.append(value.identity)
        if gone:
            with transaction(pool) as conn:
                deleted += encrypted.delete(conn, gone)
    return deleted


def search(pool: Pool, keys: KeyRing, person: Person, *, since: datetime, on_rows: OnRows = ignore) -> Found:
    """Search every event. `since`: when the erasure began, by the database's clock."""
    left = delivered_again = mentioned = unreadable = 0
    for values in _pages(pool, on_rows):
        for value in values:
            told = _told(keys, value)
            owned = _is_owned(person, told, value)
            if told is MISSING or told is DAMAGED:
                unreadable += 1
            elif owned or _mentions(person, told, value):
                again = value.received_at >= since
                left += not again
                delivered_again += again and owned
                mentioned += again and not owned
    return Found(left=left, fetched_again=delivered_again, mentioned=mentioned, unreadable=unreadable)


def _pages(pool: Pool, on_rows: OnRows) -> Iterator[list[Value]]:
    after = b""
    while True:
        with transaction(pool) as conn:
            values = encrypted.next_values(conn, after=after, limit=BATCH)
        if not values:
            return
        yield values
        on_rows(len(values))
        after = values[-1].identity


def _told(keys: KeyRing, value: Value) -> Any:
    """Return an event's decoded payload, or MISSING or DAMAGED."""
    try:
        return decoded(encrypted.decrypt(keys, value.identity, value.account_id, value.payload))
    except KeyMissing:
        return MISSING
    except ValueDamaged:
        return DAMAGED


def _lead(told: Any) -> dict[str, Any]:
    """Return the lead of a payload; an empty one if the payload is missing, damaged or has another form."""
    lead = told.get("contact") if isinstance(told, dict) else None
    return lead if isinstance(lead, dict) else {}


def _is_owned(person: Person, told: Any, value: Value) -> bool:
    return person.owns(_lead(told), value.received_at)


def _mentions(person: Person, told: Any, value: Value) -> bool:
    return person.is_mentioned(told, value.received_at)
