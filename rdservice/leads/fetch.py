"""Fetches leads and segmentations for the cache."""

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from rdservice import errors
from rdservice.account_calls.failures import is_transient, refusal
from rdservice.cache.entries import Content, FetchFailed
from rdservice.errors import RdServiceError
from rdservice.rdstation.client import ApiResponse
from rdservice.rdstation.rate_budget import Limit
from rdservice.services import Services

NOT_FOUND_S = 30.0
"""How long a 404 (or a 400 or 422 about a parameter) is the response to equal requests."""

PAGING = re.compile(r"pagination-[a-z-]{1,40}: [!-~]{1,40}")
"""Header lines that are passed on to callers; never a value with a line break (obsolete line folding)."""

Accept = Callable[[Any], bool]
"""Returns whether a decoded body has the expected form."""


def fetch_for_cache(
    services: Services,
    account_id: str,
    send: Callable[[str], ApiResponse],
    accept: Accept,
    *,
    field: str | None = None,
    limit: Limit = "account",
) -> Callable[[float], Content]:
    """Return a function with which the cache fetches content.

    `send` takes an access token and makes the call. `field`: the parameter that a 400 or 422 is about, if any.
    """

    def fetch(deadline: float) -> Content:
        try:
            response = services.account_calls.send(account_id, send, deadline=deadline, limit=limit)
        except RdServiceError as error:
            raise FetchFailed(error, stale=_allows_stale(error)) from error
        if response.status != HTTPStatus.OK or not accept(response.json()):
            raise _refused(response, field)
        paging = [
            (name.lower(), value)
            for name, value in response.headers.items()
            if PAGING.fullmatch(f"{name.lower()}: {value}")
        ]
        return Content.of(response.body, paging)

    return fetch


def _allows_stale(error: RdServiceError) -> bool:
    """Return whether stale content may be served instead of this error: it says nothing about the account itself."""
    return isinstance(
        error,
        errors.RdStationUnavailable
        | errors.RdStationTimeout
        | errors.CredentialsRefused
        | errors.TooManyRequests,
    )


def _refused(response: ApiResponse, field: str | None) -> FetchFailed:
    """Return the failure that follows from an unusable response."""
    if response.status == HTTPStatus.NOT_FOUND:
        return FetchFailed(refusal(response), stale=False, gone=True, shared_s=NOT_FOUND_S)
    if response.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY) and field is not None:
        error = errors.InvalidField(f"RD Station does not accept this {field}.", extra={"field": field})
        return FetchFailed(error, stale=False, shared_s=NOT_FOUND_S)
    return FetchFailed(refusal(response), stale=is_transient(response))


def has_list(name: str) -> Accept:
    """Return a function that tells whether a body is an object with a list of objects as its member `name`."""

    def accept(body: Any) -> bool:
        listed = body.get(name) if isinstance(body, dict) else None
        return isinstance(listed, list) and all(isinstance(entry, dict) for entry in listed)

    return accept


def is_contact(body: Any) -> bool:
    """Return whether a body is a contact of RD Station: an object with a `uuid`."""
    return isinstance(body, dict) and isinstance(body.get("uuid"), str)
