"""Fetches of leads and segmentations for the cache."""

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
"""How long RD Station's word that there is no such thing is kept."""

PAGING = re.compile(r"pagination-[a-z-]{1,40}: [!-~]{1,40}")
"""Headers that are passed on. A value of several lines, which HTTP once allowed, is none of them."""

Accept = Callable[[Any], bool]
"""Tells whether a decoded body has the expected shape."""


def _fetch(
    services: Services,
    account_id: str,
    send: Callable[[str], ApiResponse],
    accept: Accept,
    *,
    field: str | None = None,
    limit: Limit = "account",
) -> Callable[[float], Content]:
    """Return a function that makes a call for the cache. `field`: the parameter to blame for a 400 or 422."""

    def fetch(deadline: float) -> Content:
        try:
            response = services.account_calls.send(account_id, send, deadline=deadline, limit=limit)
        except RdServiceError as error:
            raise FetchFailed(error, stale=_passes(error)) from error
        if response.status != HTTPStatus.OK or not accept(response.json()):
            raise _refused(response, field)
        paging = [
            (name.lower(), value)
            for name, value in response.headers.items()
            if PAGING.fullmatch(f"{name.lower()}: {value}")
        ]
        return Content.of(response.body, paging)

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


def _refused(response: ApiResponse, field: str | None) -> FetchFailed:
    """Return what follows from an answer that is not what was asked for."""
    if response.status == HTTPStatus.NOT_FOUND:
        return FetchFailed(refusal(response), stale=False, gone=True, shared_s=NOT_FOUND_S)
    if response.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY) and field is not None:
        error = errors.InvalidField(f"RD Station does not accept this {field}.", extra={"field": field})
        return FetchFailed(error, stale=False, shared_s=NOT_FOUND_S)
    return FetchFailed(refusal(response), stale=is_transient(response))


def _has_list(name: str) -> Accept:
    def accept(body: Any) -> bool:
        listed = body.get(name) if isinstance(body, dict) else None
        return isinstance(listed, list) and all(isinstance(entry, dict) for entry in listed)

    return accept


def _is_contact(body: Any) -> bool:
    return isinstance(body, dict) and isinstance(body.get("uuid"), str)
