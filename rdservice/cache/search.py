"""Searches all cached responses for a person by decrypting each."""

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Self

import psycopg
from psycopg_pool import ConnectionPool

from rdservice.cache import table
from rdservice.cache.entries import Content
from rdservice.database.pool import transaction
from rdservice.encryption import KeyMissing, KeyRing, ValueDamaged

BATCH = 100


@dataclass(frozen=True, slots=True)
class Person:
    """A person identified by an e-mail address, which is normalized for comparison."""

    address: str = field(repr=False)

    @classmethod
    def of(cls, email: str) -> Self:
        return cls(_comparable(email).strip())

    def is_in(self, body: bytes) -> bool:
        """Return whether a JSON body contains the address anywhere, in any case and with any JSON escapes."""
        try:
            texts = _texts(json.loads(body))
        except (ValueError, RecursionError):
            texts = iter([body.decode("utf-8", "replace")])
        return any(self.address in _comparable(text) for text in texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The number of cached responses, or of events, that contain a person.

    `left`: from before the erasure. `fetched_again`: fetched or delivered since, because RD Station still has the
    person. `unreadable`: not decryptable, so they may or may not contain the person.
    """

    left: int
    fetched_again: int
    unreadable: int

    def __add__(self, other: Self) -> Self:
        return replace(
            self,
            left=self.left + other.left,
            fetched_again=self.fetched_again + other.fetched_again,
            unreadable=self.unreadable + other.unreadable,
        )


def search(
    pool: ConnectionPool[psycopg.Connection[Any]], keys: KeyRing, person: Person, *, since: datetime
) -> Found:
    """Search every stored response. `since`: when the erasure began, by the database's clock."""
    left = fetched_again = unreadable = 0
    after = b""
    while True:
        with transaction(pool) as conn:
            rows = table.next_values(conn, after=after, limit=BATCH)
        for row in rows:
            try:
                content = Content.decrypt(keys, row.key, row.account_id, row.value)
            except (KeyMissing, ValueDamaged):
                unreadable += 1
                continue
            if person.is_in(content.body):
                again = row.current and row.fetched_at >= since
                left, fetched_again = left + (not again), fetched_again + again
        if not rows:
            return Found(left=left, fetched_again=fetched_again, unreadable=unreadable)
        after = rows[-1].key


def _comparable(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _texts(value: object) -> Iterator[str]:
    """Yield every string in a decoded JSON value, member names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _texts(item)
