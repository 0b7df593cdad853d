"""The claims of an RD Station access token, a JWT (RFC 7519) whose signature only RD Station can verify.

Nothing here decides whether a token is valid. The claims serve for warnings and for a cautious expiry.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from rdservice import notices
from rdservice.notices import Notice

PLAUSIBLE_SHARE = 0.1
"""An `exp` that leaves less than this share of `expires_in` indicates a wrong clock, not a short lifetime."""

CURRENT_AUDIENCES = frozenset({"https://api.rd.services"})


@dataclass(frozen=True, kw_only=True)
class Claims:
    """The claims that this service uses; None for those that the token lacks, and for all if it is not a JWT."""

    audiences: tuple[str, ...] | None
    scopes: frozenset[str] | None
    expires_at: datetime | None
    issued_at: datetime | None
    subject: str | None


NOTHING = Claims(audiences=None, scopes=None, expires_at=None, issued_at=None, subject=None)


def read(access_token: str) -> Claims:
    """Return the claims of `access_token`, all None if it is not a JWT."""
    try:
        payload: dict[str, Any] = jwt.decode(access_token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        return NOTHING
    return Claims(
        audiences=_texts(payload.get("aud")),
        scopes=_scopes(payload.get("scope")),
        expires_at=_time(payload.get("exp")),
        issued_at=_time(payload.get("iat")),
        subject=_text(payload.get("sub")),
    )


def expiry(access_token: str, *, issued_at: datetime, expires_in_s: int) -> datetime:
    """Return when the token expires: `issued_at` + `expires_in_s`, or its `exp` if that is earlier and plausible."""
    expires_at = issued_at + timedelta(seconds=expires_in_s)
    exp = read(access_token).expires_at
    if exp is None or exp >= expires_at:
        return expires_at
    plausible = exp - issued_at >= timedelta(seconds=expires_in_s * PLAUSIBLE_SHARE)
    return exp if plausible else expires_at


def warnings(access_token: str, *, api_url: str, scope: str) -> list[Notice]:
    """Return a warning for each thing that the token lacks: the scope for leads, the audience of the current API."""
    claims = read(access_token)
    found = []
    if claims.scopes is not None and not claims.scopes.issuperset(scope.split()):
        found.append(notices.scope_missing(scope))
    if claims.audiences is not None and not CURRENT_AUDIENCES.union({api_url}).intersection(
        audience.rstrip("/") for audience in claims.audiences
    ):
        found.append(notices.audience_differs())
    return found


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object) -> tuple[str, ...] | None:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list):
        return tuple(item for item in value if isinstance(item, str))
    return None


def _scopes(value: object) -> frozenset[str] | None:
    texts = _texts(value)
    return None if texts is None else frozenset(part for text in texts for part in text.split())


def _time(value: object) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
