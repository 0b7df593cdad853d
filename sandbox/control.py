"""The control routes under /_sandbox, for tests and trials, from this machine only."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from sandbox import contacts, segmentations, webhooks
from sandbox.authorization import ACCOUNT
from sandbox.contact_book import Contact
from sandbox.messages import ApiResponse, Delivery, Request, json_response
from sandbox.settings import SettingsError
from sandbox.state import State

WEBHOOK_MEMBERS = (
    "account",
    "email",
    "event_identifier",
    "event_type",
    "form",
    "seconds_ago",
    "times",
    "url",
    "uuid",
)
MOST_TIMES = 100
MOST_SECONDS_AGO = 366 * 86_400


class Refused(Exception):
    """The control request is invalid; the message says why."""


def respond(state: State, request: Request) -> ApiResponse:
    """Respond to a control request. Errors are `{"error": …}`: 403 from another machine, 404, 405, 422."""
    if not _is_local(request):
        return json_response({"error": "the control routes answer to this machine only"}, 403)
    handlers = HANDLERS.get(request.raw_path)
    if handlers is None:
        return json_response({"error": "no such control route"}, 404)
    if request.method not in handlers:
        return json_response({"error": "method not allowed"}, 405, {"Allow": ", ".join(handlers)})
    try:
        return handlers[request.method](state, request)
    except (Refused, SettingsError) as error:
        return json_response({"error": str(error)}, 422)


def _is_local(request: Request) -> bool:
    """Return whether the request comes from this machine, and not through a proxy."""
    if any(name == "forwarded" or name.startswith("x-forwarded-") for name in request.headers):
        return False
    try:
        address = ip_address(request.peer)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _show(state: State, _request: Request) -> ApiResponse:
    return json_response(state.report())


def _patch(state: State, request: Request) -> ApiResponse:
    state.change_settings(state.settings.changed(_members(request)))
    return json_response(state.report())


def _revoke(state: State, request: Request) -> ApiResponse:
    body = _members(request, ("account",))
    if "account" not in body:
        raise Refused("account: is required")
    account = _account(body)
    return json_response({"account": account, "revoked": state.store.revoke_account(account)})


def _reset(state: State, _request: Request) -> ApiResponse:
    state.reset()
    return json_response(state.report())


def _webhook(state: State, request: Request) -> ApiResponse:
    """Send an event to the account's subscriptions, or to `url`. The contact is that of `uuid` or `email`, else the
    account's first lead. `seconds_ago`: the age of the event at its delivery. `times`: how often each delivery is
    sent. `form`: `event` as documented, `array` of such an event, `lead` or `leads` (the lead alone or in an array) as
    older webhooks send them."""
    body = _members(request, WEBHOOK_MEMBERS)
    account = _account(body)
    event_type = body.get("event_type", "WEBHOOK.CONVERTED")
    if event_type not in webhooks.EVENT_TYPES:
        raise Refused(f"event_type: must be one of {', '.join(webhooks.EVENT_TYPES)}")
    identifier = body.get("event_identifier", "sandbox")
    if identifier is not None and not isinstance(identifier, str):
        raise Refused("event_identifier: must be a string or null")
    times = _integer(body, "times", 1, 1, MOST_TIMES)
    event_at = state.now() - _integer(body, "seconds_ago", 0, 0, MOST_SECONDS_AGO)
    form = body.get("form", "event")
    if form not in webhooks.FORMS:
        raise Refused(f"form: must be one of {', '.join(webhooks.FORMS)}")
    contact = _contact(state, account, body)
    if "url" not in body:
        deliveries = webhooks.deliveries(
            state, account, contact, event_type, identifier=identifier, event_at=event_at, form=form
        )
    elif webhooks.is_web_url(body["url"]):
        event = webhooks.event(contact, event_type, identifier=identifier, now=state.now(), event_at=event_at)
        told = webhooks.told(event, contact, form)
        deliveries = (Delivery(url=body["url"], body=told),)
    else:
        raise Refused("url: must be an absolute http or https URL")
    planned = [{"url": delivery.url, "status": None} for delivery in deliveries * times]
    return json_response({"deliveries": planned}, deliveries=deliveries * times, report_deliveries=True)


def _contact(state: State, account: str, body: dict[str, Any]) -> Contact:
    book, leads = state.book(account), state.settings.leads
    for identifier in ("uuid", "email"):
        if identifier in body:
            found = contacts.find(state, account, identifier, str(body[identifier]))
            if found is None:
                raise Refused(f"{identifier}: the account {account} has no such contact")
            return found
    everyone = segmentations.SEGMENTATIONS[0].members
    first = book.page(everyone, leads, ("created_at", False), 0, 1)
    if not first:
        raise Refused(f"the account {account} has no contact to send an event about")
    return first[0]


def _integer(body: dict[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Refused(f"{name}: must be an integer from {least} to {most}")
    return value


def _account(body: dict[str, Any]) -> str:
    account = body.get("account", "default")
    if not isinstance(account, str) or not ACCOUNT.fullmatch(account):
        raise Refused("account: must be default, account-2, account-3, …")
    return account


def _members(request: Request, known: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Return the body as a JSON object, empty without a body. It may have the members `known` only."""
    body = request.json_object() if request.body else {}
    if body is None:
        raise Refused("the body must be a JSON object")
    for name in body:
        if known is not None and name not in known:
            raise Refused(f"{name}: unknown name; known are {', '.join(known)}")
    return body


HANDLERS: dict[str, dict[str, Callable[[State, Request], ApiResponse]]] = {
    "/_sandbox": {"GET": _show, "PATCH": _patch},
    "/_sandbox/revoke": {"POST": _revoke},
    "/_sandbox/webhook": {"POST": _webhook},
    "/_sandbox/reset": {"POST": _reset},
}
