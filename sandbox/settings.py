"""The settings that `PATCH /_sandbox` changes while the sandbox runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast, get_args

from sandbox.errors import ErrorShape, RateLimitShape
from sandbox.faults import Fault, parse_faults


class SettingsError(ValueError):
    """A value is invalid; the message names the setting and the values that it accepts."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The defaults are what RD Station documents for its smaller plans."""

    # Lifetime of an access token in seconds, reported as `expires_in`.
    access_token_lifetime: int = 86_400
    # Whether a refresh issues a new refresh token and invalidates the old one (rotation).
    rotate_refresh_tokens: bool = False
    # Whether the response to a refresh without rotation repeats the refresh token.
    repeat_refresh_token: bool = True
    # Whether a refresh invalidates the access token that it replaces.
    replaced_access_tokens_die: bool = False
    # Minimum duration of every API call in milliseconds.
    latency_ms: float = 0
    # Requests per minute and account on /platform and /marketing; None: no limits at all.
    rate_limit: int | None = 120
    # Form of the body of a 429, and whether it has the header Retry-After.
    rate_limit_shape: RateLimitShape = "errors"
    rate_limit_retry_after: bool = False
    # Form of the body of other errors.
    error_shape: ErrorShape = "object"
    # Whether headers are renamed as Amazon's gateway renames them.
    amazon_gateway: bool = False
    # Number of leads of each account, without those created through the API.
    leads: int = 1_000
    # Whether the account's plan includes the API. RD Station does not document its response otherwise; assumed
    # is 403, which its list of statuses calls "Forbidden request", with the error body that all its errors have.
    api_access: bool = True
    # Claims of the access tokens.
    scope: str = "contacts"
    aud: str = "https://api.rd.services"
    # The accepted client secrets; None: those with which the sandbox was started.
    client_secrets: tuple[str, ...] | None = field(default=None, repr=False)
    # Seconds by which the sandbox's clock is ahead of the real one.
    clock_offset_s: float = 0
    faults: tuple[Fault, ...] = ()

    def as_json(self) -> dict[str, Any]:
        values = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        return values | {"faults": [fault.as_json() for fault in self.faults]}

    def changed(self, changes: object) -> Settings:
        """Return a copy with all `changes` (decoded JSON) applied. Raises SettingsError."""
        if not isinstance(changes, Mapping):
            raise SettingsError("the body must be a JSON object of settings")
        values = {}
        for name, value in changes.items():
            if name not in READERS:
                raise SettingsError(f"{name}: unknown setting; known are {', '.join(READERS)}")
            try:
                values[name] = READERS[name](value)
            except ValueError as error:
                text = str(error)
                raise SettingsError(text if text.startswith(name) else f"{name}: {text}") from error
        return replace(self, **cast("dict[str, Any]", values))


def _integer(least: int, most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"must be an integer from {least} to {most}")
        return value

    return read


def _number(least: float, most: float) -> Callable[[object], float]:
    def read(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"must be a number from {least:.0f} to {most:.0f}")
        return value

    return read


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return value


def _secrets(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(secret, str) and secret for secret in value):
        raise ValueError("must be a list of strings that are not empty, or null")
    return tuple(value)


def _choice(choices: tuple[str, ...]) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return value

    return read


def _nullable(read: Callable[[object], int]) -> Callable[[object], int | None]:
    def read_or_none(value: object) -> int | None:
        if value is None:
            return None
        try:
            return read(value)
        except ValueError as error:
            raise ValueError(f"{error}, or null") from error

    return read_or_none


YEARS_10 = 10 * 366 * 86_400
READERS: dict[str, Callable[[object], object]] = {
    "access_token_lifetime": _integer(1, YEARS_10),
    "rotate_refresh_tokens": _boolean,
    "repeat_refresh_token": _boolean,
    "replaced_access_tokens_die": _boolean,
    "latency_ms": _number(0, 600_000),
    "rate_limit": _nullable(_integer(1, 1_000_000_000)),
    "rate_limit_shape": _choice(get_args(RateLimitShape)),
    "rate_limit_retry_after": _boolean,
    "error_shape": _choice(get_args(ErrorShape)),
    "amazon_gateway": _boolean,
    "leads": _integer(0, 10_000_000),
    "api_access": _boolean,
    "scope": _text,
    "aud": _text,
    "client_secrets": _secrets,
    "clock_offset_s": _number(-YEARS_10, YEARS_10),
    "faults": parse_faults,
}
