"""Looks through all cached answers for a person, by decrypting each."""

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
    """Someone known by an e-mail address, in the one form in which addresses are compared."""

    address: str = field(repr=False)

    @classmethod
    def of(cls, email: str) -> Self:
        return cls(_comparable(email).strip())

    def is_in(self, body: bytes) -> bool:
        """Return whether the address stands anywhere in a JSON body, in whatever case and however it is escaped."""
        try:
            texts = _texts(json.loads(body))
        except (ValueError, RecursionError):
            texts = iter([body.decode("utf-8", "replace")])
        return any(self.address in _comparable(text) for text in texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Cached answers, or events, with a person in them.

    `left`: from before the erasure. `fetched_again`: RD Station was asked, or has delivered, since, and
    still has the person.
    `unreadable`: what could not be decrypted, so that nobody can tell.
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
    """Search every stored answer; `since` is the database's time at which the erasure began."""
    left = fetched_again = unreadable = 0
    after = b""
    while True:
        with transaction(pool) as conn:
            rows = table.next_values(conn, after=after, limit=BATCH)
        for row in rows:
            try:
                content = Content.unsealed(keys, row.key, row.account_id, row.value)
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
    """Yield every text in a decoded JSON value, names of members included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _texts(item)
