"""Leads and segmentations of an account, through the cache.

RD Station calls a lead a contact, and lists contacts by segmentation only; each account has a standard segmentation of
all of them (https://developers.rdstation.com/reference/segmentações).
"""

from typing import Literal

from rdservice.cache.cache import Fetch
from rdservice.cache.entries import Served
from rdservice.cache.memory import Name
from rdservice.leads.fetch import _fetch, _has_list, _is_contact
from rdservice.leads.parameters import UUID_FORM, Listing, _invalid, check_email
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
    """Return RD Station's list of the leads of a segmentation, which is an id or a name; None: all leads.

    `fresh_s`, here and below, is how old the answer may be for a caller who wants it fresher than it is kept.
    Raises NotFound for an unknown segmentation, and what `Cache.get` raises, which also tells of `at_once`.
    """
    found = segmentation_id(services, account_id, segmentation, only_if_cached=only_if_cached)

    def send(access_token: str) -> ApiResponse:
        return services.rdstation.segmentation_contacts(access_token, found, listing.query)

    fetch = _fetch(services, account_id, send, _has_list("contacts"), field=listing.refusable)
    return services.cache.get(
        account_id,
        "contacts_list",
        (found, *listing.parameters),
        fetch,
        max_age_s=max_age_s,
        only_if_cached=only_if_cached,
    )


def lead_by_uuid(services: Services, account_id: str, text: str, *, max_age_s: float | None = None) -> Served:
    """Return RD Station's answer for one lead. Raises InvalidField for what is no UUID, NotFound for a lead unknown."""
    if not UUID_FORM.fullmatch(text):
        _invalid(
            "uuid",
            "uuid must be a UUID; for an e-mail address there are /rd/leads/email/<email> and /rd/leads/lookup.",
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
    """Return RD Station's answer for the lead with this address. Raises InvalidField or NotFound."""
    address = check_email(email)
    return services.cache.get(
        account_id,
        *_cache_name("email", address),
        _fetch_lead(services, account_id, "email", address),
        max_age_s=max_age_s,
    )


def cache_names(*, uuid: str | None, email: str | None) -> list[Name]:
    """Return the names under which the cache may have a lead."""
    named: list[tuple[Identifier, str | None]] = [("uuid", uuid), ("email", email)]
    return [_cache_name(identifier, value) for identifier, value in named if value is not None]


def _cache_name(identifier: Identifier, value: str) -> Name:
    """Return the name of a lead in the cache; RD Station tells apart neither UUIDs nor addresses by case."""
    return "contact_get", (identifier, value.lower())


def _fetch_lead(services: Services, account_id: str, identifier: Identifier, value: str) -> Fetch:
    """Return a function that fetches a lead for the cache."""

    def send(access_token: str) -> ApiResponse:
        if identifier == "uuid":
            return services.rdstation.contact(access_token, value)
        return services.rdstation.contact_by_email(access_token, value)

    field = "email" if identifier == "email" else None
    return _fetch(services, account_id, send, _is_contact, field=field)
