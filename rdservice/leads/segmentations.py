"""Segmentations of an account, and the id of the one that a caller names."""

import re
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from rdservice import errors
from rdservice.cache.entries import Content, Served
from rdservice.leads.fetch import NOT_FOUND_S, _fetch, _has_list
from rdservice.leads.parameters import LARGEST_PAGE_SIZE, LONGEST_NAME, Listing
from rdservice.names import is_readable
from rdservice.rdstation.client import ApiResponse
from rdservice.services import Services
from rdservice.text.catalogue import message

MOST_SEGMENTATION_PAGES = 40

ALL_CONTACTS = "Todos os contatos"
"""How the standard segmentation of all contacts begins, should an account have further standard ones."""

SEGMENTATION_ID = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class _Segmentation:
    id: str
    name: str
    standard: bool


_decoded: WeakKeyDictionary[Content, tuple[_Segmentation, ...]] = WeakKeyDictionary()
"""What a cached list says, so that leads listed by name do not decode it for each request."""


def list_segmentations(
    services: Services,
    account_id: str,
    listing: Listing,
    *,
    max_age_s: float | None = None,
    only_if_cached: bool = False,
) -> Served:
    """Return RD Station's list of segmentations."""

    def send(access_token: str) -> ApiResponse:
        return services.rdstation.segmentations(access_token, listing.query)

    fetch = _fetch(
        services,
        account_id,
        send,
        _has_list("segmentations"),
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
    """Return the id of a segmentation named by id or name; of the one with all leads for None."""
    if wanted is not None:
        if not 0 < len(wanted) <= LONGEST_NAME or not is_readable(wanted):
            raise errors.InvalidField(
                message("segmentation must be an id or a name of 1 to %(most)s printable characters."),
                values={"most": LONGEST_NAME},
                extra={"field": "segmentation"},
            )
        if SEGMENTATION_ID.fullmatch(wanted):
            return str(int(wanted))
    found = _find(services, account_id, wanted, None, only_if_cached=only_if_cached)
    if found is None:
        # It may have been created since the list was cached.
        found = _find(services, account_id, wanted, NOT_FOUND_S, only_if_cached=only_if_cached)
    if found is None:
        raise errors.NotFound(
            message(
                "RD Station lists no segmentation of all leads. Take an id or a name from /rd/segmentations as"
                " parameter segmentation."
            )
            if wanted is None
            else message(
                "RD Station lists no segmentation of this name. Take an id or a name from /rd/segmentations as"
                " parameter segmentation."
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
    """Return whether RD Station can have meant `value` as an id, which becomes a part of a path."""
    return not isinstance(value, bool) and SEGMENTATION_ID.fullmatch(str(value)) is not None
