"""Single contacts: reads, creates, changes and deletes them, and their funnel; conversion events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from sandbox import webhooks
from sandbox.contact_book import Contact
from sandbox.errors import (
    ApiError,
    ValidationError,
    cannot_be_null,
    invalid_option,
    json_body,
    not_found,
    rate_limited,
)
from sandbox.limits import DAY
from sandbox.messages import ApiResponse, Call, Delivery, json_response
from sandbox.state import State

# Documented: how many updates of one contact, and calls on its funnel, a day allows.
CALLS_A_DAY = 24
TEXT_FIELDS = (
    "name",
    "email",
    "job_title",
    "bio",
    "website",
    "personal_phone",
    "mobile_phone",
    "city",
    "state",
    "country",
    "twitter",
    "facebook",
    "linkedin",
)
LIST_FIELDS = ("tags", "extra_emails", "legal_bases")
FUNNEL_FIELDS = ("lifecycle_stage", "opportunity", "contact_owner_email")
LIFECYCLE_STAGES = ("Lead", "Qualified Lead", "Client")
# As in the official Ruby client, spec/lib/rdstation/events_spec.rb.
_EVENT_TYPES = (
    "CALL_FINISHED CART_ABANDONED CART_ABANDONED_ITEM CHAT_FINISHED CHAT_STARTED CONVERSION "
    "DOUBLE_OPT_IN_EMAIL_CONFIRMED EMAIL_CLICKED EMAIL_DELIVERED EMAIL_DROPPED EMAIL_HARD_BOUNCED EMAIL_OPENED "
    "EMAIL_SOFT_BOUNCED EMAIL_SPAM_REPORTED EMAIL_UNSUBSCRIBED FUNNEL_STAGE_CHANGED MEDIA_PLAYBACK_STARTED "
    "MEDIA_PLAYBACK_STOPPED OPPORTUNITY OPPORTUNITY_LOST ORDER_PLACED ORDER_PLACED_ITEM PAGE_VISITED SALE "
    "WORKFLOW_CANCELED WORKFLOW_FINISHED WORKFLOW_STARTED"
)
EVENT_TYPES = _EVENT_TYPES.split()


def find(state: State, account: str, identifier: str, value: str) -> Contact | None:
    """Return the contact with this `uuid` or `email`; 404 for another kind of identifier."""
    book, leads = state.book(account), state.settings.leads
    if identifier == "uuid":
        return book.by_uuid(value, leads)
    if identifier == "email":
        return book.by_email(value, leads)
    raise not_found()


def _identified(state: State, call: Call) -> Contact | None:
    return find(state, call.account, call.path.get("identifier", "uuid"), call.path["value"])


def _found(contact: Contact | None) -> Contact:
    if contact is None:
        raise not_found("Lead not found.")
    return contact


def get_contact(state: State, call: Call) -> ApiResponse:
    """`GET /platform/contacts/{uuid}` and `/platform/contacts/email:{email}`"""
    return json_response(_found(_identified(state, call)).detailed(call.request.origin))


def create_contact(state: State, call: Call) -> ApiResponse:
    """`POST /platform/contacts`"""
    fields = json_body(call.request)
    _check_fields(fields)
    if not fields.get("email"):
        raise cannot_be_null("email")
    if find(state, call.account, "email", fields["email"]) is not None:
        raise ApiError(400, "EMAIL_ALREADY_IN_USE")
    contact = state.book(call.account).create(fields, state.now())
    state.book(call.account).save(contact)
    return json_response(contact.detailed(call.request.origin))


def upsert_contact(state: State, call: Call) -> ApiResponse:
    """`PATCH /platform/contacts/{identifier}:{value}`: changes a contact, or creates one for an unknown address."""
    fields = json_body(call.request)
    _check_fields(fields)
    identifier = call.path.get("identifier", "uuid")
    if identifier in fields or "uuid" in fields:
        raise ApiError(400, "CONFLICTING_FIELD")
    contact = _identified(state, call)
    if contact is None:
        if identifier != "email":
            raise not_found("Lead not found.")
        contact = state.book(call.account).create(fields | {"email": call.path["value"]}, state.now())
    else:
        refused = _beyond_daily_limit(state, call.account, contact, "update")
        if refused is not None:
            return refused
        new_email = fields.get("email")
        if new_email and find(state, call.account, "email", new_email) not in (None, contact):
            raise ApiError(400, "EMAIL_ALREADY_IN_USE")
        contact.fields.update(fields)
    state.book(call.account).save(contact)
    return json_response(contact.detailed(call.request.origin))


def delete_contact(state: State, call: Call) -> ApiResponse:
    """`DELETE /platform/contacts/{identifier}:{value}`"""
    contact = _found(_identified(state, call))
    contact.deleted = True
    state.book(call.account).save(contact)
    return ApiResponse(status=204)


def _beyond_daily_limit(state: State, account: str, contact: Contact, what: str) -> ApiResponse | None:
    settings = state.settings
    if settings.rate_limit is None:
        return None
    key, now = (account, contact.uuid, what), state.now()
    wait = state.windows.wait_for(key, now=now, limit=CALLS_A_DAY, window_s=DAY)
    if not wait:
        state.windows.admit(key, now)
        return None
    return rate_limited(
        settings.rate_limit_shape,
        settings.error_shape,
        limit=CALLS_A_DAY,
        remaining_s=wait,
        retry_after=wait if settings.rate_limit_retry_after else None,
    )


def _check_fields(fields: Mapping[str, Any]) -> None:
    errors: dict[str, list[dict[str, str]]] = {}
    for name, value in fields.items():
        if name in LIST_FIELDS:
            if not isinstance(value, list):
                errors[name] = [_error("MUST_BE_ARRAY", f"{name} must be array.")]
        elif name in TEXT_FIELDS:
            if value is not None and not isinstance(value, str):
                errors[name] = [_error("MUST_BE_STRING", f"{name.capitalize()} must be string.")]
        elif not name.startswith("cf_"):
            errors[name] = [_error("INVALID_FIELD", f"{name} is not a field of a contact.")]
    if isinstance(fields.get("email"), str) and not _looks_like_email(fields["email"]):
        errors["email"] = [_error("INVALID_FORMAT", "Invalid format.")]
    if "email" in fields and fields["email"] is None:
        errors["email"] = [_error("CANNOT_BE_NULL", "Cannot be null.")]
    if errors:
        raise ValidationError(errors)


def _error(error_type: str, message: str) -> dict[str, str]:
    return {"error_type": error_type, "error_message": message}


def _looks_like_email(text: str) -> bool:
    local, _, domain = text.rpartition("@")
    return bool(local) and "." in domain and not any(character.isspace() for character in text)


def get_funnel(state: State, call: Call) -> ApiResponse:
    """`GET /platform/contacts/{identifier}:{value}/funnels/default`"""
    contact = _found(_identified(state, call))
    refused = _beyond_daily_limit(state, call.account, contact, "funnel")
    return refused or json_response(_funnel_body(contact))


def put_funnel(state: State, call: Call) -> ApiResponse:
    """`PUT /platform/contacts/{identifier}:{value}/funnels/default`"""
    contact = _found(_identified(state, call))
    changes = json_body(call.request)
    for name in changes:
        if name not in FUNNEL_FIELDS:
            raise ValidationError({name: [_error("INVALID_FIELD", f"{name} is not a field of a funnel.")]})
    if changes.get("lifecycle_stage", "Lead") not in LIFECYCLE_STAGES:
        raise invalid_option("$.lifecycle_stage", LIFECYCLE_STAGES)
    if not isinstance(changes.get("opportunity", False), bool):
        raise ValidationError({"opportunity": [_error("MUST_BE_BOOLEAN", "Opportunity must be boolean.")]})
    refused = _beyond_daily_limit(state, call.account, contact, "funnel")
    if refused is not None:
        return refused
    became_opportunity = bool(changes.get("opportunity")) and not contact.funnel["opportunity"]
    contact.funnel.update(changes)
    state.book(call.account).save(contact)
    deliveries: tuple[Delivery, ...] = ()
    if became_opportunity:
        deliveries = webhooks.deliveries(state, call.account, contact, "WEBHOOK.MARKED_OPPORTUNITY")
    return json_response(_funnel_body(contact), deliveries=deliveries)


def _funnel_body(contact: Contact) -> dict[str, Any]:
    shown = ("lifecycle_stage", "opportunity", "contact_owner_email", "interest", "fit", "origin")
    return {name: contact.funnel[name] for name in shown}


def post_event(state: State, call: Call) -> ApiResponse:
    """`POST /platform/events?event_type=conversion`: creates or changes the contact, and triggers webhooks."""
    event = json_body(call.request)
    kind = event.get("event_type", call.request.query.get("event_type", ""))
    kind = kind.upper() if isinstance(kind, str) else ""
    if kind not in EVENT_TYPES:
        raise invalid_option("$.event_type", EVENT_TYPES)
    if event.get("event_family") != "CDP":
        raise invalid_option("$.event_family", ("CDP",))
    payload = event.get("payload")
    if not isinstance(payload, dict):
        raise cannot_be_null("payload")
    if not isinstance(payload.get("email"), str):
        raise cannot_be_null("payload.email")
    if kind == "CONVERSION" and not isinstance(payload.get("conversion_identifier"), str):
        raise cannot_be_null("payload.conversion_identifier")
    fields = {
        name: value
        for name, value in payload.items()
        if name in TEXT_FIELDS + LIST_FIELDS or name.startswith("cf_")
    }
    _check_fields(fields)
    contact = _record_event(state, call.account, kind, fields)
    event_type = {"CONVERSION": "WEBHOOK.CONVERTED", "OPPORTUNITY": "WEBHOOK.MARKED_OPPORTUNITY"}.get(kind)
    deliveries: tuple[Delivery, ...] = ()
    if event_type is not None:
        identifier = payload.get("conversion_identifier")
        deliveries = webhooks.deliveries(state, call.account, contact, event_type, identifier=identifier)
    return json_response({"event_uuid": str(uuid4())}, deliveries=deliveries)


def _record_event(state: State, account: str, kind: str, fields: dict[str, Any]) -> Contact:
    book = state.book(account)
    contact = find(state, account, "email", fields["email"])
    if contact is None:
        contact = book.create(fields, state.now())
    else:
        contact.fields.update({name: value for name, value in fields.items() if name != "email"})
    if kind == "CONVERSION":
        contact.last_conversion = state.now()
    if kind in ("OPPORTUNITY", "OPPORTUNITY_LOST"):
        contact.funnel["opportunity"] = kind == "OPPORTUNITY"
    book.save(contact)
    return contact
