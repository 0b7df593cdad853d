"""The meaning of responses of RD Station's token endpoint (RFC 6749 5.1 and 5.2, and RD Station's own error types).

Pure functions, without database or network. A doubtful response is never a pair and never a refusal.
"""

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeGuard

from rdservice.rdstation.client import TOKEN_LIFETIME_S, ApiResponse, TransportError, is_access_denied

MAX_TOKEN_LENGTH = 16_384
VISIBLE_ASCII = re.compile("[!-~]+")
MAX_LIFETIME_S = 31_536_000
REFUSED_TYPES = frozenset({"INVALID_REFRESH_TOKEN", "invalid_grant"})
# A gateway responds with these when it gave up on a request that it may have passed on.
GATEWAY_STATUSES = frozenset({502, 504})


class Meaning(Enum):
    """The kind of a response. `rdservice.tokens.refresh` acts on it."""

    PAIR = "pair"
    REFUSED = "refused"
    UNAUTHORIZED = "unauthorized"
    CREDENTIALS = "credentials"
    RATE_LIMITED = "rate_limited"
    CLIENT_ERROR = "client_error"
    TRANSIENT = "transient"


REFUSALS = frozenset({Meaning.REFUSED, Meaning.UNAUTHORIZED, Meaning.CREDENTIALS})
"""Responses that refuse the token or the client credentials."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Tokens of a good response. `refresh_token` is None if the response has none: then the old one stays valid."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_in_s: int
    expires_in_assumed: bool
    """The response had no usable `expires_in`, so `expires_in_s` is the documented lifetime."""


@dataclass(frozen=True, kw_only=True)
class TokenResponse:
    """A classified response. `error` is one of a closed set of kinds; `pair` is set for `PAIR` only."""

    meaning: Meaning
    error: str | None = None
    http_status: int | None = None
    pair: Pair | None = None
    retry_after_s: float | None = None
    answer_unknown: bool = False
    """The exchange may have taken effect although no pair came back."""


def judge(response: ApiResponse | TransportError) -> TokenResponse:
    """Classify the response to a token request, or the lack of one."""
    if isinstance(response, TransportError):
        return TokenResponse(meaning=Meaning.TRANSIENT, error=response.kind, answer_unknown=response.sent)
    status = response.status
    if 200 <= status < 300:
        pair = parse_pair(response.json())
        if pair is None:
            return TokenResponse(
                meaning=Meaning.TRANSIENT, error="bad_payload", http_status=status, answer_unknown=True
            )
        error = "expires_in_assumed" if pair.expires_in_assumed else None
        return TokenResponse(meaning=Meaning.PAIR, http_status=status, pair=pair, error=error)
    if status in (400, 401) and response.error_type in REFUSED_TYPES:
        return TokenResponse(meaning=Meaning.REFUSED, error="revoked", http_status=status)
    if is_access_denied(response):
        return TokenResponse(meaning=Meaning.CREDENTIALS, error="credentials", http_status=status)
    if status == 401:
        return TokenResponse(meaning=Meaning.UNAUTHORIZED, error="unauthorized", http_status=status)
    if status == 429:
        return TokenResponse(
            meaning=Meaning.RATE_LIMITED,
            error="rate_limited",
            http_status=status,
            retry_after_s=response.retry_after_s,
        )
    if status < 500:
        return TokenResponse(meaning=Meaning.CLIENT_ERROR, error="client_error", http_status=status)
    return TokenResponse(
        meaning=Meaning.TRANSIENT,
        error="server_error",
        http_status=status,
        answer_unknown=status in GATEWAY_STATUSES,
    )


def parse_pair(body: Any) -> Pair | None:
    """Return the tokens of a decoded response body, or None if it is not a usable pair."""
    if not isinstance(body, dict):
        return None
    access_token, refresh_token = body.get("access_token"), body.get("refresh_token")
    if not is_token(access_token):
        return None
    if refresh_token is not None and refresh_token != "" and not is_token(refresh_token):
        return None
    expires_in = body.get("expires_in")
    return Pair(
        access_token=access_token,
        refresh_token=refresh_token or None,
        expires_in_s=expires_in if is_lifetime(expires_in) else TOKEN_LIFETIME_S,
        expires_in_assumed=not is_lifetime(expires_in),
    )


def is_lifetime(value: object) -> TypeGuard[int]:
    """Return whether `value` can be an `expires_in`: a whole number of seconds, up to a year."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_LIFETIME_S


def is_token(value: object) -> TypeGuard[str]:
    """Return whether `value` can be a token: RFC 6749 appendix A allows the visible ASCII characters."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_TOKEN_LENGTH
        and VISIBLE_ASCII.fullmatch(value) is not None
    )
