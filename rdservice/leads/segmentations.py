"""Lists the segmentations of an account, and finds the ID of one by its name."""

import re
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from rdservice import errors
from rdservice.cache.entries import Content, Served
from rdservice.leads.fetch import NOT_FOUND_S, fetch_for_cache, has_list
from rdservice.leads.parameters import LARGEST_PAGE_SIZE, LONGEST_NAME, Listing, raise_invalid
from rdservice.names import is_readable
from rdservice.rdstation.client import ApiResponse
from rdservice.services import Services
from rdservice.text.catalogue import message

MOST_SEGMENTATION_PAGES = 40

ALL_CONTACTS = "Todos os contatos"
"""Beginning of the name of the segmentation of all contacts, for accounts with several standard segmentations."""

SEGMENTATION_ID = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class _Segmentation:
    id: str
    name: str
    standard: bool


_decoded: WeakKeyDictionary[Content, tuple[_Segmentation, ...]] = WeakKeyDictionary()
"""Decoded lists, so that requests with a segmentation's name need not decode the cached list each time."""


def list_segmentations(
    services: Services,
    account_id: str,
    listing: Listing,
    *,
    max_age_s: float | None = None,
    only_if_cached: bool = False,
) -> Served:
    """Return RD Station's list of segmentations. `max_age_s` and `only_if_cached` are those of `Cache.get`.

    Raises what `Cache.get` raises.
    """

    def send(access_token: str) -> ApiResponse:
        return services.rdstation.segmentations(access_token, listing.query)

    fetch = fetch_for_cache(
        services,
        account_id,
        send,
        has_list("segmentations"),
        field=listing.refusable,
        limit="segmentations",
    )
    return services.cache.get(
        account_id,
        "segmentations_list",
        listing.parameters,
        fetch,
        max_age_s=max_age_s,
        only_if_cached=only_if_cached,
    )


def segmentation_id(
    services: Services, account_id: str, wanted: str | None, *, only_if_cached: bool = False
) -> str:
    """Return the ID of the segmentation with the ID or name `wanted`; None: of the segmentation of all leads.

    Does not check an ID. Raises InvalidField, NotFound for an unknown name, and what `Cache.get` raises.
    """
    if wanted is not None:
        if not 0 < len(wanted) <= LONGEST_NAME or not is_readable(wanted):
            raise_invalid(
                "segmentation",
                message("segmentation must be an ID or a name of 1 to %(most)s printable characters."),
                most=LONGEST_NAME,
            )
        if SEGMENTATION_ID.fullmatch(wanted):
            return str(int(wanted))
    found = _find(services, account_id, wanted, None, only_if_cached=only_if_cached)
    if found is None:
        # Someone may have created it since the list was cached.
        found = _find(services, account_id, wanted, NOT_FOUND_S, only_if_cached=only_if_cached)
    if found is None:
        raise errors.NotFound(
            message(
                "RD Station lists no segmentation of all leads. Use an ID or a name from"
                " /rd/segmentations as the parameter segmentation."
            )
            if wanted is None
            else message(
                "RD Station lists no segmentation of this name. Use an ID or a name from"
                " /rd/segmentations as the parameter segmentation."
            )
        )
    return found


def _find(
    services: Services, account_id: str, wanted: str | None, max_age_s: float | None, *, only_if_cached: bool
) -> str | None:
    standard: list[_Segmentation] = []
    for page in range(1, MOST_SEGMENTATION_PAGES + 1):
        listing = Listing(page=page, page_size=LARGEST_PAGE_SIZE, order=None)
        served = list_segmentations(
            services, account_id, listing, max_age_s=max_age_s, only_if_cached=only_if_cached
        )
        listed = _segmentations(served.content)
        for segmentation in listed:
            if wanted is not None and segmentation.name == wanted:
                return segmentation.id
            if wanted is None and segmentation.standard:
                standard.append(segmentation)
        if standard or len(listed) < LARGEST_PAGE_SIZE:
            break
    for segmentation in standard:
        if segmentation.name.startswith(ALL_CONTACTS):
            return segmentation.id
    return standard[0].id if standard else None


def _segmentations(content: Content) -> tuple[_Segmentation, ...]:
    listed = _decoded.get(content)
    if listed is None:
        entries = ApiResponse(operation="", status=200, headers={}, body=content.body).json()["segmentations"]
        listed = _decoded[content] = tuple(
            _Segmentation(str(entry["id"]), str(entry.get("name")), entry.get("standard") is True)
            for entry in entries
            if _is_segmentation_id(entry.get("id"))
        )
    return listed


def _is_segmentation_id(value: object) -> bool:
    """Return whether `value` has the form of an ID, which becomes a segment of a path."""
    return not isinstance(value, bool) and SEGMENTATION_ID.fullmatch(str(value)) is not None
