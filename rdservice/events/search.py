"""Finds a person in the stored events by decrypting each, and deletes the events that contain the person."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from rdservice.cache.search import Found, Person
from rdservice.database.pool import transaction
from rdservice.database.progress import OnRows, ignore
from rdservice.encryption import KeyMissing, KeyRing, ValueDamaged
from rdservice.events import encrypted
from rdservice.events.encrypted import Value

BATCH = 200

Pool = ConnectionPool[psycopg.Connection[Any]]


def erase(pool: Pool, keys: KeyRing, person: Person, *, on_rows: OnRows = ignore) -> int:
    """Delete all events that contain the person, and all damaged ones; return the number deleted.

    Events whose encryption key is missing stay; `search` counts them. `on_rows` gets the size of each batch.
    """
    deleted = 0
    for values in _pages(pool, on_rows):
        gone = [value.identity for value in values if _must_go(keys, person, value)]
        if gone:
            with transaction(pool) as conn:
                deleted += encrypted.delete(conn, gone)
    return deleted


def search(pool: Pool, keys: KeyRing, person: Person, *, since: datetime, on_rows: OnRows = ignore) -> Found:
    """Search every event. `since`: when the erasure began, by the database's clock. `on_rows` as for `erase`."""
    left = delivered_again = unreadable = 0
    for values in _pages(pool, on_rows):
        for value in values:
            try:
                has = _has(keys, person, value)
            except KeyMissing:
                has = None
            if has is None:
                unreadable += 1
            elif has:
                again = value.received_at >= since
                left, delivered_again = left + (not again), delivered_again + again
    return Found(left=left, fetched_again=delivered_again, unreadable=unreadable)


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


def _must_go(keys: KeyRing, person: Person, value: Value) -> bool:
    try:
        return _has(keys, person, value) is not False
    except KeyMissing:
        return False


def _has(keys: KeyRing, person: Person, value: Value) -> bool | None:
    """Return whether an event contains the person, or None if the event is damaged. Raises KeyMissing."""
    try:
        told = encrypted.decrypt(keys, value.identity, value.account_id, value.payload)
    except ValueDamaged:
        return None
    return person.is_in(told)
