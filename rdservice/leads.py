"""Leads and segmentations of an account, through the cache.

RD Station calls a lead a contact, and lists contacts by segmentation only; each account has a standard segmentation of
all of them (https://developers.rdstation.com/reference/segmentações).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal, NoReturn
from weakref import WeakKeyDictionary

from rdservice import errors
from rdservice.account_calls.failures import is_transient, refusal
from rdservice.cache.answers import Content, FetchFailed, Served
from rdservice.cache.cache import Fetch
from rdservice.cache.memory import Name
from rdservice.errors import RdServiceError
from rdservice.rate_budget import Limit
from rdservice.rdstation import Answer
from rdservice.services import Services
from rdservice.texts import is_readable

DEFAULT_PAGE_SIZE = 25
LARGEST_PAGE_SIZE = 125
MOST_SEGMENTATION_PAGES = 40
LONGEST_NAME = 255
LONGEST_EMAIL = 254
"""RFC 5321 4.5.3.1.3, without the angle brackets."""
NOT_FOUND_S = 30.0
"""How long RD Station's word that there is no such thing is kept."""
ALL_CONTACTS = "Todos os contatos"
"""How the standard segmentation of all contacts begins, should an account have further standard ones."""

ORDER = re.compile(r"[a-z][a-z0-9_]{0,63}:(asc|desc)")
UUID_FORM = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
SEGMENTATION_ID = re.compile(r"[0-9]{1,18}")
PAGING = re.compile(r"pagination-[a-z-]{1,40}: [!-~]{1,40}")
"""Headers that are passed on. A value of several lines, which HTTP once allowed, is none of them."""

Identifier = Literal["uuid", "email"]
Accept = Callable[[Any], bool]
"""Tells whether a decoded body has the expected shape."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Which page of a list, and in which order (`field:asc` or `field:desc`; None: RD Station's own).

    `search`: a part of the names of segmentations; None: all of them.
    """

    page: int
    page_size: int
    order: str | None
    search: str | None = None

    @property
    def query(self) -> dict[str, str | int]:
        query: dict[str, str | int] = {"page": self.page, "page_size": self.page_size}
        if self.order is not None:
            query["order"] = self.order
        if self.search is not None:
            query["search"] = self.search
        return query

    @property
    def parameters(self) -> tuple[str | int | None, ...]:
        listed = (self.page, self.page_size, self.order)
        return listed if self.search is None else (*listed, self.search)

    @property
    def refusable(self) -> str | None:
        """The parameter that RD Station may refuse."""
        return "order" if self.order is not None else "search" if self.search is not None else None


@dataclass(frozen=True, slots=True)
class _Segmentation:
    id: str
    name: str
    standard: bool


_decoded: WeakKeyDictionary[Content, tuple[_Segmentation, ...]] = WeakKeyDictionary()
"""What a cached list says, so that leads listed by name do not decode it for each request."""


def parse_listing(
    page: str | None, page_size: str | None, order: str | None, search: str | None = None
) -> Listing:
    """Check the query parameters of a list. Raises InvalidField, which names the wrong one."""
    if order is not None and not ORDER.fullmatch(order):
        _invalid("order", "must be a field and a direction, such as created_at:desc")
    if search is not None and (not 0 < len(search) <= LONGEST_NAME or not is_readable(search)):
        _invalid("search", f"must have 1 to {LONGEST_NAME} printable characters")
    return Listing(
        page=_number("page", page, default=1, most=10**9),
        page_size=_number("page_size", page_size, default=DEFAULT_PAGE_SIZE, most=LARGEST_PAGE_SIZE),
        order=order,
        search=search,
    )


def list_leads(
    services: Services,
    account_id: str,
    segmentation: str | None,
    listing: Listing,
    *,
    fresh_s: float | None = None,
    at_once: bool = False,
) -> Served:
    """Return RD Station's list of the leads of a segmentation, which is an id or a name; None: all leads.

    `fresh_s`, here and below, is how old the answer may be for a caller who wants it fresher than it is kept.
    Raises NotFound for an unknown segmentation, and what `Cache.get` raises, which also tells of `at_once`.
    """
    found = segmentation_id(services, account_id, segmentation, at_once=at_once)

    def send(access_token: str) -> Answer:
        return services.rdstation.segmentation_contacts(access_token, found, listing.query)

    fetch = _fetch(services, account_id, send, _has_list("contacts"), field=listing.refusable)
    return services.cache.get(
        account_id, "contacts_list", (found, *listing.parameters), fetch, fresh_s=fresh_s, at_once=at_once
    )


def list_segmentations(
    services: Services,
    account_id: str,
    listing: Listing,
    *,
    fresh_s: float | None = None,
    at_once: bool = False,
) -> Served:
    """Return RD Station's list of segmentations."""

    def send(access_token: str) -> Answer:
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
        account_id, "segmentations_list", listing.parameters, fetch, fresh_s=fresh_s, at_once=at_once
    )


def lead_by_uuid(services: Services, account_id: str, text: str, *, fresh_s: float | None = None) -> Served:
    """Return RD Station's answer for one lead. Raises InvalidField for what is no UUID, NotFound for a lead unknown."""
    if not UUID_FORM.fullmatch(text):
        _invalid(
            "uuid",
            "must be a UUID; for an e-mail address there are /rd/leads/email/<email> and /rd/leads/lookup",
        )
    return services.cache.get(
        account_id,
        *_cache_name("uuid", text),
        _fetch_lead(services, account_id, "uuid", text.lower()),
        fresh_s=fresh_s,
    )


def lead_by_email(
    services: Services, account_id: str, email: object, *, fresh_s: float | None = None
) -> Served:
    """Return RD Station's answer for the lead with this address. Raises InvalidField or NotFound."""
    address = check_email(email)
    return services.cache.get(
        account_id,
        *_cache_name("email", address),
        _fetch_lead(services, account_id, "email", address),
        fresh_s=fresh_s,
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

    def send(access_token: str) -> Answer:
        if identifier == "uuid":
            return services.rdstation.contact(access_token, value)
        return services.rdstation.contact_by_email(access_token, value)

    field = "email" if identifier == "email" else None
    return _fetch(services, account_id, send, _is_contact, field=field)


def segmentation_id(services: Services, account_id: str, wanted: str | None, *, at_once: bool = False) -> str:
    """Return the id of a segmentation named by id or name; of the one with all leads for None."""
    if wanted is not None:
        if not 0 < len(wanted) <= LONGEST_NAME or not is_readable(wanted):
            _invalid("segmentation", f"must be an id or a name of 1 to {LONGEST_NAME} printable characters")
        if SEGMENTATION_ID.fullmatch(wanted):
            return str(int(wanted))
    found = _find(services, account_id, wanted, None, at_once=at_once)
    if found is None:
        # It may have been created since the list was cached.
        found = _find(services, account_id, wanted, NOT_FOUND_S, at_once=at_once)
    if found is None:
        what = "no segmentation of all leads" if wanted is None else "no segmentation of this name"
        raise errors.NotFound(
            f"RD Station lists {what}. Take an id or a name from /rd/segmentations as parameter segmentation."
        )
    return found


def _find(
    services: Services, account_id: str, wanted: str | None, fresh_s: float | None, *, at_once: bool
) -> str | None:
    standard: list[_Segmentation] = []
    for page in range(1, MOST_SEGMENTATION_PAGES + 1):
        listing = Listing(page=page, page_size=LARGEST_PAGE_SIZE, order=None)
        served = list_segmentations(services, account_id, listing, fresh_s=fresh_s, at_once=at_once)
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
        entries = Answer(operation="", status=200, headers={}, body=content.body).json()["segmentations"]
        listed = _decoded[content] = tuple(
            _Segmentation(str(entry["id"]), str(entry.get("name")), entry.get("standard") is True)
            for entry in entries
            if _is_segmentation_id(entry.get("id"))
        )
    return listed


def _fetch(
    services: Services,
    account_id: str,
    send: Callable[[str], Answer],
    accept: Accept,
    *,
    field: str | None = None,
    limit: Limit = "account",
) -> Callable[[float], Content]:
    """Return a function that makes a call for the cache. `field`: the parameter to blame for a 400 or 422."""

    def fetch(latest_start: float) -> Content:
        try:
            answer = services.account_calls.send(account_id, send, latest_start=latest_start, limit=limit)
        except RdServiceError as error:
            raise FetchFailed(error, stale=_passes(error)) from error
        if answer.status != HTTPStatus.OK or not accept(answer.json()):
            raise _refused(answer, field)
        paging = [
            (name.lower(), value)
            for name, value in answer.headers.items()
            if PAGING.fullmatch(f"{name.lower()}: {value}")
        ]
        return Content.of(answer.body, paging)

    return fetch


def _passes(error: RdServiceError) -> bool:
    """Return whether an error says nothing against the account itself, so that older content may be served."""
    return isinstance(
        error,
        errors.RdStationUnavailable
        | errors.RdStationTimeout
        | errors.CredentialsRefused
        | errors.TooManyRequests,
    )


def _refused(answer: Answer, field: str | None) -> FetchFailed:
    """Return what follows from an answer that is not what was asked for."""
    if answer.status == HTTPStatus.NOT_FOUND:
        return FetchFailed(refusal(answer), stale=False, gone=True, shared_s=NOT_FOUND_S)
    if answer.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY) and field is not None:
        error = errors.InvalidField(f"RD Station does not accept this {field}.", extra={"field": field})
        return FetchFailed(error, stale=False, shared_s=NOT_FOUND_S)
    return FetchFailed(refusal(answer), stale=is_transient(answer))


def _is_segmentation_id(value: object) -> bool:
    """Return whether RD Station can have meant `value` as an id, which becomes a part of a path."""
    return not isinstance(value, bool) and SEGMENTATION_ID.fullmatch(str(value)) is not None


def _has_list(name: str) -> Accept:
    def accept(body: Any) -> bool:
        listed = body.get(name) if isinstance(body, dict) else None
        return isinstance(listed, list) and all(isinstance(entry, dict) for entry in listed)

    return accept


def _is_contact(body: Any) -> bool:
    return isinstance(body, dict) and isinstance(body.get("uuid"), str)


def check_email(value: object) -> str:
    """Return `value` if it looks like an e-mail address. The error does not repeat it."""
    if value is None:
        _invalid("email", "is missing")
    if not isinstance(value, str) or not 3 <= len(value) <= LONGEST_EMAIL:
        _invalid("email", f"must be a text of 3 to {LONGEST_EMAIL} characters")
    name, _, domain = value.rpartition("@")
    if not name or not domain or not is_readable(value) or " " in value:
        _invalid("email", "is no e-mail address")
    return value


def _number(name: str, text: str | None, *, default: int, most: int) -> int:
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,10}", text) or not 1 <= int(text) <= most:
        _invalid(name, f"must be a whole number from 1 to {most}")
    return int(text)


def _invalid(name: str, what: str) -> NoReturn:
    raise errors.InvalidField(f"{name} {what}.", extra={"field": name})
