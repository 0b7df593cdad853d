"""Leads of an account, read through the cache.

RD Station calls a lead a contact, and lists contacts by segmentation only. Each account has a standard segmentation of
all contacts (https://developers.rdstation.com/reference/segmentações).
"""

from typing import Literal

from rdservice.cache.entries import Served
from rdservice.cache.memory import Name
from rdservice.cache.query import Fetch
from rdservice.leads.fetch import fetch_for_cache, has_list, is_contact
from rdservice.leads.parameters import UUID_FORM, Listing, check_email, raise_invalid
from rdservice.leads.segmentations import segmentation_id
from rdservice.rdstation.client import ApiResponse
from rdservice.services import Services

Identifier = Literal["uuid", "email"]


def list_leads(
    services: Services,
    account_id: str,
    segmentation: str | None,
    listing: Listing,
    *,
    max_age_s: float | None = None,
    only_if_cached: bool = False,
) -> Served:
    """Return RD Station's list of the leads of a segmentation.

    `segmentation` is an ID or a name; None: all leads. `max_age_s` and `only_if_cached`, here and below, are those of
    `Cache.get`. Raises NotFound for an unknown segmentation, and what `Cache.get` raises.
    """
    found = segmentation_id(services, account_id, segmentation, only_if_cached=only_if_cached)

    def send(access_token: str) -> ApiResponse:
        return services.rdstation.segmentation_contacts(access_token, found, listing.query)

    fetch = fetch_for_cache(services, account_id, send, has_list("contacts"), field=listing.refusable)
    return services.cache.get(
        account_id,
        "contacts_list",
        (found, *listing.parameters),
        fetch,
        max_age_s=max_age_s,
        only_if_cached=only_if_cached,
    )


def lead_by_uuid(services: Services, account_id: str, text: str, *, max_age_s: float | None = None) -> Served:
    """Return RD Station's response for one lead.

    Raises InvalidField if `text` is not a UUID, NotFound for an unknown lead, and what `Cache.get` raises.
    """
    if not UUID_FORM.fullmatch(text):
        raise_invalid(
            "uuid",
            "uuid must be a UUID; for an e-mail address use /rd/leads/email/<email> or /rd/leads/lookup.",
        )
    return services.cache.get(
        account_id,
        *_cache_name("uuid", text),
        _fetch_lead(services, account_id, "uuid", text.lower()),
        max_age_s=max_age_s,
    )


def lead_by_email(
    services: Services, account_id: str, email: object, *, max_age_s: float | None = None
) -> Served:
    """Return RD Station's response for the lead with this e-mail address.

    Raises InvalidField, NotFound, and what `Cache.get` raises.
    """
    address = check_email(email)
    return services.cache.get(
        account_id,
        *_cache_name("email", address),
        _fetch_lead(services, account_id, "email", address),
        max_age_s=max_age_s,
    )


def cache_names(*, uuid: str | None, email: str | None) -> list[Name]:
    """Return the cache's names of a lead's content: one per identifier that is not None."""
    named: list[tuple[Identifier, str | None]] = [("uuid", uuid), ("email", email)]
    return [_cache_name(identifier, value) for identifier, value in named if value is not None]


def _cache_name(identifier: Identifier, value: str) -> Name:
    """Return the cache's name of a lead's content. RD Station ignores the case of UUIDs and addresses."""
    return "contact_get", (identifier, value.lower())


def _fetch_lead(services: Services, account_id: str, identifier: Identifier, value: str) -> Fetch:
    """Return a function with which the cache fetches a lead."""

    def send(access_token: str) -> ApiResponse:
        if identifier == "uuid":
            return services.rdstation.contact(access_token, value)
        return services.rdstation.contact_by_email(access_token, value)

    field = "email" if identifier == "email" else None
    return fetch_for_cache(services, account_id, send, is_contact, field=field)
