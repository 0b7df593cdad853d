"""Fetches of leads and segmentations for the cache."""

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from rdservice import errors
from rdservice.account_calls.failures import is_transient, refusal
from rdservice.cache.entries import Content, FetchFailed
from rdservice.errors import RdServiceError
from rdservice.rdstation.client import Answer
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


def _has_list(name: str) -> Accept:
    def accept(body: Any) -> bool:
        listed = body.get(name) if isinstance(body, dict) else None
        return isinstance(listed, list) and all(isinstance(entry, dict) for entry in listed)

    return accept


def _is_contact(body: Any) -> bool:
    return isinstance(body, dict) and isinstance(body.get("uuid"), str)
