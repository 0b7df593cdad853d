"""Searches all cached responses for a person by decrypting each."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

import psycopg
from psycopg_pool import ConnectionPool

from rdservice.cache import table
from rdservice.cache.entries import Content
from rdservice.cache.person import Person, decoded
from rdservice.cache.table import Value
from rdservice.database.pool import transaction
from rdservice.encryption import KeyMissing, KeyRing, ValueDamaged

BATCH = 100

Pool = ConnectionPool[psycopg.Connection[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The number of cached responses, or of events, that contain a person.

    `left`: from before the erasure. `fetched_again`: fetched or delivered since, because RD Station still has a lead of
    the person. `mentioned`: fetched or delivered since, about other leads. `unreadable`: not decryptable, so they may
    or may not contain the person.
    """

    left: int = 0
    fetched_again: int = 0
    mentioned: int = 0
    unreadable: int = 0

    def __add__(self, other: Self) -> Self:
        return replace(
            self,
            left=self.left + other.left,
            fetched_again=self.fetched_again + other.fetched_again,
            mentioned=self.mentioned + other.mentioned,
            unreadable=self.unreadable + other.unreadable,
        )


def known_by(pool: Pool, keys: KeyRing, person: Person) -> Person:
    """Return the person with the UUIDs of all cached leads that have one of the person's addresses."""
    for row, body in _bodies(pool, keys):
        for lead in _leads(body):
            person = person.known_by(lead, row.fetched_at)
    return person


def search(pool: Pool, keys: KeyRing, person: Person, *, since: datetime) -> Found:
    """Search every stored response. `since`: when the erasure began, by the database's clock."""
    left = fetched_again = mentioned = unreadable = 0
    for row, body in _bodies(pool, keys):
        owned = any(person.owns(lead, row.fetched_at) for lead in _leads(body))
        if body is None:
            unreadable += 1
        elif owned or person.is_mentioned(body, row.fetched_at):
            again = row.current and row.fetched_at >= since
            left += not again
            fetched_again += again and owned
            mentioned += again and not owned
    return Found(left=left, fetched_again=fetched_again, mentioned=mentioned, unreadable=unreadable)


def _bodies(pool: Pool, keys: KeyRing) -> Iterator[tuple[Value, Any]]:
    """Yield each stored response with its decoded body, None if it cannot be decrypted."""
    after = b""
    while True:
        with transaction(pool) as conn:
            rows = table.next_values(conn, after=after, limit=BATCH)
        if not rows:
            return
        for row in rows:
            try:
                yield row, decoded(Content.decrypt(keys, row.key, row.account_id, row.value).body)
            except (KeyMissing, ValueDamaged):
                yield row, None
        after = rows[-1].key


def _leads(body: Any) -> list[dict[str, Any]]:
    """Return the leads of a response: those of a list, or the one that it is about."""
    listed = body.get("contacts") if isinstance(body, dict) else None
    return [lead for lead in (listed if isinstance(listed, list) else [body]) if isinstance(lead, dict)]
