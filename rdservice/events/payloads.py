"""Parses deliveries of RD Station's webhooks: one event, an array of events, or leads in the older webhooks' form.

Forms: https://developers.rdstation.com/reference/webhooks-payload-copy, and for `{"leads": […]}`
https://developers.rdstation.com/docs/como-migrar-webhooks. The content of a delivery is not trusted: events are stored
as they were delivered, and leads are always read from RD Station.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, cast, get_args

from rdservice.errors import InvalidField
from rdservice.leads.parameters import LONGEST_EMAIL, UUID_FORM
from rdservice.names import is_readable

EventType = Literal["WEBHOOK.CONVERTED", "WEBHOOK.MARKED_OPPORTUNITY"]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)

MOST_ENTRIES = 500
"""Largest number of entries in one delivery."""
LARGEST_CONTACT_BYTES = 64 * 1024
LONGEST_IDENTIFIER = 1_000
DEEPEST = 20
"""Largest depth of nested lists and objects in a contact; documented contacts have three."""
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)

Members = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event as it was delivered.

    `form`: `lead` if `contact` has the members of the older webhooks, else `contact`. `uuid` (lower case) or `email`,
    or both, identify the lead. `happened_at` is None if the delivery does not tell.
    """

    event_type: EventType
    identifier: str | None = field(repr=False)
    happened_at: datetime | None
    form: Literal["contact", "lead"]
    uuid: str | None = field(repr=False)
    email: str | None = field(repr=False)
    contact: str = field(repr=False)
    """The contact or lead as JSON in ASCII."""

    @property
    def whom(self) -> str:
        """The identifier of the lead: its UUID, or else its e-mail address in lower case."""
        return self.uuid or str(self.email).lower()

    @property
    def marks(self) -> tuple[str | None, ...]:
        """The values by which two deliveries count as the same event.

        Two events without a time are the same only if their contents are equal.
        """
        when = self.contact if self.happened_at is None else self.happened_at.isoformat()
        return (self.event_type, self.identifier, self.whom, when)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A delivery: its `events` in order, and the number of entries that are not usable events (`refused`)."""

    events: list[Event] = field(repr=False)
    refused: int


class _Unusable(Exception):
    """The entry is not a usable event."""


def read(body: object) -> Delivery:
    """Parse a decoded JSON body. Raises InvalidField if it contains no event or too many."""
    entries = _entries(body)
    if len(entries) > MOST_ENTRIES:
        _invalid(f"A delivery may contain {MOST_ENTRIES} events at most.")
    events = []
    for entry in entries:
        try:
            events.append(_event(entry))
        except _Unusable:
            continue
    if not events:
        _invalid(
            "The body contains no event. /openapi.json describes the forms under POST /rd/webhooks/{secret}."
        )
    return Delivery(events=events, refused=len(entries) - len(events))


def stored_event(event_type: EventType, told: Members, happened_at: datetime | None) -> Event:
    """Return an event whose stored payload is `told` (`identifier`, `form` and `contact`)."""
    contact = told["contact"]
    return Event(
        event_type=event_type,
        identifier=told["identifier"],
        happened_at=happened_at,
        form=told["form"],
        contact=json.dumps(contact),
        **_named(contact),
    )


def _entries(body: object) -> list[object]:
    if isinstance(body, dict) and "contact" not in body:
        for name in ("leads", "events"):
            if isinstance(body.get(name), list):
                return cast(list[object], body[name])
    return body if isinstance(body, list) else [body]


def _event(entry: object) -> Event:
    if not isinstance(entry, dict):
        raise _Unusable
    return _of_contact(entry) if "event_type" in entry else _of_lead(entry)


def _of_contact(entry: Members) -> Event:
    event_type, contact = entry["event_type"], entry.get("contact")
    if event_type not in EVENT_TYPES or entry.get("entity_type", "CONTACT") != "CONTACT":
        raise _Unusable
    if not isinstance(contact, dict):
        raise _Unusable
    return Event(
        event_type=event_type,
        identifier=_identifier(entry.get("event_identifier")),
        happened_at=_moment(entry.get("event_timestamp")) or _moment(entry.get("timestamp")),
        form="contact",
        contact=_written(contact),
        **_named(contact),
    )


def _of_lead(lead: Members) -> Event:
    """Return an older webhook's lead as an event.

    Older webhooks do not tell which event happened: a lead that is an opportunity counts as just marked as one.
    """
    conversion = lead.get("last_conversion")
    conversion = conversion if isinstance(conversion, dict) else {}
    content = conversion.get("content")
    content = content if isinstance(content, dict) else {}
    marked = lead.get("opportunity") in (True, "true")
    return Event(
        event_type="WEBHOOK.MARKED_OPPORTUNITY" if marked else "WEBHOOK.CONVERTED",
        identifier=_identifier(content.get("identificador")),
        happened_at=_moment(conversion.get("created_at")) or _moment(lead.get("created_at")),
        form="lead",
        contact=_written(lead),
        **_named(lead),
    )


def _named(contact: Members) -> dict[str, str | None]:
    uuid, email = contact.get("uuid"), contact.get("email")
    if not isinstance(uuid, str) or not UUID_FORM.fullmatch(uuid):
        uuid = None
    if not _is_email(email):
        email = None
    if uuid is None and email is None:
        raise _Unusable
    return {"uuid": uuid and uuid.lower(), "email": email}


def _is_email(value: object) -> bool:
    return isinstance(value, str) and 3 <= len(value) <= LONGEST_EMAIL and "@" in value and is_readable(value)


def _identifier(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > LONGEST_IDENTIFIER:
        raise _Unusable
    return value


def _moment(value: object) -> datetime | None:
    """Return the time of an ISO 8601 text, without an offset in UTC; None for None. Raises _Unusable."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)  # type: ignore[arg-type]
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise _Unusable from None
    if not EARLIEST < moment < LATEST:
        raise _Unusable
    return moment


def _written(contact: Members) -> str:
    if not _is_plain(contact):
        raise _Unusable
    text = json.dumps(contact)
    if len(text) > LARGEST_CONTACT_BYTES:
        raise _Unusable
    return text


def _is_plain(contact: Members) -> bool:
    """Return whether any JSON parser can read the contact: not nested too deeply, and no infinite number or NaN."""
    level: list[Any] = [contact]
    for _ in range(DEEPEST):
        if any(isinstance(value, float) and not math.isfinite(value) for value in level):
            return False
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return True
    return False


def _inside(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _invalid(detail: str) -> None:
    raise InvalidField(detail, extra={"field": "body"})
