"""Reads events back for programs: in order, from a number on."""

import json
from dataclasses import dataclass, field
from typing import Any

from rdservice.database.pool import transaction
from rdservice.encryption import KeyMissing, ValueDamaged
from rdservice.errors import InvalidField, TokenUnreadable
from rdservice.events import store
from rdservice.events.encrypted import decrypt
from rdservice.events.payloads import EventType
from rdservice.events.store import StoredEvent
from rdservice.services import Services

DEFAULT_LIMIT = 100
LARGEST_LIMIT = 500
PAGE_BYTES = 1024 * 1024
"""A page ends after this many bytes of encrypted payloads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadEvent:
    """An event with its decrypted payload (`told`), which is None if the stored value is damaged."""

    row: StoredEvent
    told: dict[str, Any] | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Events in order.

    `next_after`: the number after which the next page starts. `missed`: how many numbers up to there have no event any
    more. `more`: the next page has events already.
    """

    events: list[ReadEvent] = field(repr=False)
    next_after: int
    missed: int
    more: bool


def read(
    services: Services, account_id: str, *, after: int, limit: int, event_type: EventType | None
) -> Page:
    """Return the account's next events with numbers above `after`, up to `limit` of them and about `PAGE_BYTES`.

    Raises NotConnected, InvalidField if no event has had the number `after` yet, TokenUnreadable if a key is missing.
    """
    services.access_tokens.stored(account_id)
    with transaction(services.pool) as conn:
        # Before the page: reading must not skip an event that is inserted in between.
        place = store.position(conn, account_id)
        if place is None:
            return Page(events=[], next_after=after, missed=0, more=False)
        if after > place.last_number:
            raise InvalidField(
                f"after is {after}, but the newest event of this account has the number {place.last_number}. If the"
                " database was restored from a backup, continue from that number.",
                extra={"field": "after", "last_number": place.last_number},
            )
        rows = store.page(
            conn,
            account_id,
            place,
            after=after,
            limit=limit,
            most_bytes=PAGE_BYTES,
            event_type=event_type,
        )
        more = bool(rows and rows[-1].more)
        next_after = rows[-1].number if more else place.last_number
        kept = store.count_between(conn, account_id, place, after=after, until=next_after)
    return Page(
        events=[_opened(services, account_id, row) for row in rows],
        next_after=next_after,
        missed=next_after - after - kept,
        more=more,
    )


def _opened(services: Services, account_id: str, row: StoredEvent) -> ReadEvent:
    try:
        told = json.loads(decrypt(services.keys, row.identity, account_id, row.payload))
    except KeyMissing as error:
        raise TokenUnreadable(f"A stored event cannot be decrypted: {error}.") from error
    except ValueDamaged:
        # This event stays unreadable, but the ones after it must be delivered.
        told = None
    return ReadEvent(row=row, told=told)
