"""Stores deliveries. A delivery has been committed before its response says success."""

import hashlib
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from rdservice.cache import table as cache_table
from rdservice.database.pool import transaction
from rdservice.errors import NotFound, RdServiceError, TooManyRequests
from rdservice.events import store
from rdservice.events.payloads import Delivery, Event
from rdservice.events.store import Hashes, Stream
from rdservice.events.subscriptions import store as subscriptions
from rdservice.leads.queries import cache_names
from rdservice.services import Services

LANES = 64
LANE_LENGTH = 4
"""How many deliveries to one address a process accepts at a time; one of them has a connection to the database."""
TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """How many entries of a delivery were stored in order, stored although late, already known, and refused."""

    stored: int
    late: int
    duplicates: int
    refused: int


class UnknownSecret(NotFound):
    """No account has this address for deliveries."""


class Lanes:
    """Processes the deliveries to one address one at a time, so that a flood leaves database connections to others."""

    def __init__(self) -> None:
        self._places = [threading.BoundedSemaphore(LANE_LENGTH) for _ in range(LANES)]
        self._turns = [threading.Lock() for _ in range(LANES)]

    @contextmanager
    def turn(self, secret: str) -> Iterator[None]:
        """Wait for this delivery's turn. Raises TooManyRequests if too many are waiting, or after `TIMEOUT_S`."""
        lane = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()[0] % LANES
        if not self._places[lane].acquire(blocking=False):
            raise _crowded()
        try:
            if not self._turns[lane].acquire(timeout=TIMEOUT_S):
                raise _crowded()
            try:
                yield
            finally:
                self._turns[lane].release()
        finally:
            self._places[lane].release()


def receive(services: Services, lanes: Lanes, secret: str, delivery: Delivery | RdServiceError) -> Taken:
    """Store a delivery to the address with this secret.

    `delivery` may be the error with which its body failed to parse; it is raised only if the secret is valid. Raises
    UnknownSecret, or TooManyRequests in a flood. Nothing is stored when it raises.
    """
    if not subscriptions.SECRET_FORM.fullmatch(secret):
        raise _unknown()
    with lanes.turn(secret), transaction(services.pool) as conn:
        stream = subscriptions.find(conn, secret)
        if stream is None:
            raise _unknown()
        if isinstance(delivery, RdServiceError):
            raise delivery
        hashes = Hashes(services.settings.secret_key)
        added = store.add(conn, services.keys, hashes, stream, delivery.events)
        _drop_cached(conn, services, stream, added.new)
    return Taken(stored=added.stored, late=added.late, duplicates=added.duplicates, refused=delivery.refused)


def _drop_cached(
    conn: psycopg.Connection[Any], services: Services, stream: Stream, events: Iterable[Event]
) -> None:
    """Drop the cached responses about the leads of these events, so that the next read of such a lead calls RD Station.

    An event itself is never cached: it is not a response of the API, has other members, and may be forged.
    """
    named = [name for event in events for name in cache_names(uuid=event.uuid, email=event.email)]
    cache_table.drop(
        conn, [services.cache.key(stream.connection_id, stream.cache_epoch, name) for name in named]
    )


def _unknown() -> UnknownSecret:
    return UnknownSecret(
        "This address accepts no deliveries, or no longer. Subscribe with 'flask webhooks subscribe'."
    )


def _crowded() -> TooManyRequests:
    return TooManyRequests("Too many deliveries to this address at once. Try again.", retry_after_s=5)
