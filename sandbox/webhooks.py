"""Subscriptions to lead events, and deliveries of these events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from sandbox.contact_book import Contact
from sandbox.errors import ValidationError, json_body, not_found
from sandbox.generated import timestamp
from sandbox.messages import ApiResponse, Call, Delivery, Request, json_response
from sandbox.state import State

EVENT_TYPES = ("WEBHOOK.CONVERTED", "WEBHOOK.MARKED_OPPORTUNITY")
FORMS = ("event", "array", "lead", "leads")
RELATIONS = ("COMPANY", "CONTACT_FUNNEL")
MEMBERS = ("event_type", "entity_type", "event_identifiers", "url", "http_method", "include_relations")


def list_subscriptions(state: State, call: Call) -> ApiResponse:
    """`GET /integrations/webhooks`"""
    return json_response({"webhooks": list(state.store.webhooks(call.account).values())})


def get_subscription(state: State, call: Call) -> ApiResponse:
    """`GET /integrations/webhooks/{uuid}`"""
    return json_response(_subscription(state, call))


def create_subscription(state: State, call: Call) -> ApiResponse:
    """`POST /integrations/webhooks`"""
    defaults = {
        "entity_type": "CONTACT",
        "event_identifiers": [],
        "http_method": "POST",
        "include_relations": [],
    }
    return _save(state, call.account, str(uuid4()), defaults | _changes(call.request))


def update_subscription(state: State, call: Call) -> ApiResponse:
    """`PUT /integrations/webhooks/{uuid}`"""
    subscription = _subscription(state, call)
    return _save(state, call.account, subscription["uuid"], subscription | _changes(call.request))


def delete_subscription(state: State, call: Call) -> ApiResponse:
    """`DELETE /integrations/webhooks/{uuid}`"""
    state.store.delete_webhook(_subscription(state, call)["uuid"])
    return ApiResponse(status=204)


def _subscription(state: State, call: Call) -> dict[str, Any]:
    subscription = state.store.webhooks(call.account).get(call.path["uuid"])
    if subscription is None:
        raise not_found()
    return subscription


def _changes(request: Request) -> dict[str, Any]:
    body = json_body(request)
    return {name: body[name] for name in MEMBERS if name in body}


def _save(state: State, account: str, uuid: str, subscription: dict[str, Any]) -> ApiResponse:
    errors = {
        name: [error] for name in MEMBERS if (error := _problem(name, subscription.get(name))) is not None
    }
    if errors:
        raise ValidationError(errors)
    saved = {"uuid": uuid, **{name: subscription[name] for name in MEMBERS}}
    state.store.save_webhook(account, uuid, saved)
    return json_response(saved)


def _problem(name: str, value: object) -> dict[str, str] | None:
    if value is None:
        return {"error_type": "CANNOT_BE_NULL", "error_message": "Cannot be null."}
    options = {"event_type": EVENT_TYPES, "entity_type": ("CONTACT",), "http_method": ("POST",)}.get(name)
    if options is not None:
        wrong = value not in options
    elif name == "url":
        wrong = not is_web_url(value)
    else:
        allowed = RELATIONS if name == "include_relations" else None
        wrong = not isinstance(value, list) or not all(
            isinstance(item, str) and (allowed is None or item in allowed) for item in value
        )
    return {"error_type": "INVALID", "error_message": "It is not valid."} if wrong else None


def is_web_url(value: object) -> bool:
    """Return whether a value is an absolute http or https URL."""
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def event(
    contact: Contact,
    event_type: str,
    *,
    identifier: str | None,
    now: float,
    event_at: float | None = None,
    include: tuple[str, ...] = RELATIONS,
) -> dict[str, Any]:
    """Return the body of a delivery; `now` and `event_at` are Unix seconds."""
    shown: dict[str, Any] = {"uuid": contact.uuid, **contact.fields}
    if "COMPANY" in include:
        shown["company"] = contact.company
    if "CONTACT_FUNNEL" in include:
        shown["funnel"] = contact.funnel
    return {
        "event_type": event_type,
        "entity_type": "CONTACT",
        "event_identifier": identifier,
        "timestamp": timestamp(now),
        "event_timestamp": timestamp(now if event_at is None else event_at),
        "contact": shown,
    }


def told(event: dict[str, Any], contact: Contact, form: str) -> dict[str, Any] | list[Any]:
    """Return an event in one of FORMS."""
    if form == "event":
        return event
    if form == "array":
        return [event]
    lead = _old_lead(event, contact)
    return {"leads": [lead]} if form == "leads" else lead


def _old_lead(event: dict[str, Any], contact: Contact) -> dict[str, Any]:
    """Return the lead in the form of the webhooks of API 1.x (https://developers.rdstation.com/docs/como-migrar-webhooks)."""
    fields = contact.fields
    conversion = {
        "content": {"identificador": event["event_identifier"], "email_lead": fields["email"]},
        "created_at": event["event_timestamp"],
        "cumulative_sum": "1",
        "source": event["event_identifier"],
    }
    return {
        "id": str(contact.index or 0),
        "uuid": contact.uuid,
        "email": fields["email"],
        "name": fields.get("name"),
        "company": contact.company.get("name"),
        "job_title": fields.get("job_title"),
        "created_at": timestamp(contact.created_at),
        "opportunity": "true" if event["event_type"] == "WEBHOOK.MARKED_OPPORTUNITY" else "false",
        "number_conversions": "1",
        "first_conversion": conversion,
        "last_conversion": conversion,
        "custom_fields": {},
        "lead_stage": contact.funnel.get("lifecycle_stage"),
        "tags": fields.get("tags", []),
    }


def deliveries(
    state: State,
    account: str,
    contact: Contact,
    event_type: str,
    *,
    identifier: str | None = None,
    event_at: float | None = None,
    form: str = "event",
) -> tuple[Delivery, ...]:
    """Return the deliveries to the account's subscriptions of this event type. A subscription that lists event
    identifiers gets events with these identifiers only."""
    return tuple(
        Delivery(
            url=subscription["url"],
            body=told(
                _event_for(state, subscription, contact, event_type, identifier, event_at), contact, form
            ),
        )
        for subscription in state.store.webhooks(account).values()
        if subscription["event_type"] == event_type
        and (not subscription["event_identifiers"] or identifier in subscription["event_identifiers"])
    )


def _event_for(
    state: State,
    subscription: Mapping[str, Any],
    contact: Contact,
    event_type: str,
    identifier: str | None,
    event_at: float | None,
) -> dict[str, Any]:
    include = tuple(subscription["include_relations"])
    return event(
        contact, event_type, identifier=identifier, now=state.now(), event_at=event_at, include=include
    )
