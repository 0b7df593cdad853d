"""Cached leads are renewed when an event tells that they have changed.

Never from the event itself: what a webhook delivers is no answer of the API, has other members, and may be forged. It
marks the lead's cached answers as out of date, for all processes, in the transaction that stores it; and RD Station is
asked again, as a call that goes after all others.
"""

from collections.abc import Iterable
from typing import Any

import psycopg

from rdservice import leads
from rdservice.cache import table as cache_table
from rdservice.cache.cache import OF_A_LEAD
from rdservice.events.payloads import Event
from rdservice.events.store import Stream
from rdservice.leads import Identifier
from rdservice.services import Services

Changed = list[tuple[Identifier, str]]
"""Leads with cached answers that are out of date."""


def mark(
    conn: psycopg.Connection[Any], services: Services, stream: Stream, events: Iterable[Event]
) -> Changed:
    """Mark the cached answers about the leads of these events; return those that there are."""
    by_key: dict[bytes, tuple[Identifier, str]] = {}
    for event in events:
        named: list[tuple[Identifier, str | None]] = [("uuid", event.uuid), ("email", event.email)]
        for identifier, value in named:
            if value is not None:
                name = OF_A_LEAD, leads.lead_parameters(identifier, value)
                key = services.cache.key(stream.connection_id, stream.cache_epoch, name)
                by_key[key] = identifier, value
    outdated = cache_table.outdate(conn, list(by_key))
    return [lead for key, lead in by_key.items() if key in outdated]


def begin(services: Services, account_id: str, changed: Changed) -> None:
    """Let the marked answers be fetched again in the background."""
    for identifier, value in changed:
        services.cache.renew_changed(
            account_id,
            OF_A_LEAD,
            leads.lead_parameters(identifier, value),
            leads.fetch_of_lead(services, account_id, identifier, value, background=True),
        )
