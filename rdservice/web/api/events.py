"""Reads lead events, in the order in which the service received them."""

import re
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from rdservice.errors import InvalidField
from rdservice.events import reading
from rdservice.events.payloads import EVENT_TYPES, EventType
from rdservice.events.reading import ReadEvent
from rdservice.web.http import guard
from rdservice.web.http.accounts import requested_account
from rdservice.web.http.context import query_text, services

bp = Blueprint("events", __name__)


@bp.get("/rd/events")
@guard.requires("leads:read")
def list_events() -> ResponseReturnValue:
    """List the events of an account with numbers above `after`."""
    page = reading.read(
        services(),
        requested_account(),
        after=_number("after", least=0, most=10**18, default=0),
        limit=_number("limit", least=1, most=reading.LARGEST_LIMIT, default=reading.DEFAULT_LIMIT),
        event_type=_event_type(),
    )
    return jsonify(
        {
            "events": [_shown(event) for event in page.events],
            "next_after": page.next_after,
            "missed": page.missed,
            "more": page.more,
        }
    )


def _event_type() -> EventType | None:
    given = query_text("event_type")
    for event_type in EVENT_TYPES:
        if given == event_type:
            return event_type
    if given is not None:
        raise InvalidField(f"event_type must be {' or '.join(EVENT_TYPES)}.", extra={"field": "event_type"})
    return None


def _number(name: str, *, least: int, most: int, default: int) -> int:
    text = query_text(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,19}", text) or not least <= int(text) <= most:
        raise InvalidField(f"{name} must be a whole number from {least} to {most}.", extra={"field": name})
    return int(text)


def _shown(event: ReadEvent) -> dict[str, Any]:
    row, told = event.row, event.told or {}
    return {
        "number": row.number,
        "event_type": row.event_type,
        "event_identifier": told.get("identifier"),
        "event_timestamp": _rfc3339(row.event_at),
        "received_at": _rfc3339(row.received_at),
        "late": row.late,
        "form": told.get("form"),
        "contact": told.get("contact"),
    }


def _rfc3339(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
