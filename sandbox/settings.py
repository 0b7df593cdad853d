"""What can be changed while the sandbox runs, with `PATCH /_sandbox`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast, get_args

from sandbox.errors import ErrorShape, RateLimitShape
from sandbox.faults import Fault, parse_faults


class SettingsError(ValueError):
    """A value that cannot be applied; the message names the setting and says what it takes."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Start values follow what RD Station documents for its smaller plans."""

    # Seconds that an access token lives; reported as `expires_in`.
    access_token_lifetime: int = 86_400
    # Whether a refresh gives a new refresh token and ends the one that was used.
    rotate_refresh_tokens: bool = False
    # Whether the answer to a refresh that does not rotate repeats the refresh token.
    repeat_refresh_token: bool = True
    # Whether a refresh ends the access token that it replaces before its time.
    replaced_access_tokens_die: bool = False
    # Milliseconds that every API call takes at least.
    latency_ms: float = 0
    # Requests a minute and account on /platform and /marketing; None for no limit of any kind.
    rate_limit: int | None = 120
    # Shape of the body of a 429, and whether the header Retry-After comes with it.
    rate_limit_shape: RateLimitShape = "errors"
    rate_limit_retry_after: bool = False
    # Shape of the body of other errors.
    error_shape: ErrorShape = "object"
    # Whether headers are renamed as Amazon's gateway does it.
    amazon_gateway: bool = False
    # Leads that each account has, not counting those created through the API.
    leads: int = 1_000
    # Whether the account's plan includes the API. What RD Station answers without is not documented: 403 is assumed,
    # which its list of statuses calls "Forbidden request", with an error body as all its errors have.
    api_access: bool = True
    # Claims of the access tokens.
    scope: str = "contacts"
    aud: str = "https://api.rd.services"
    # The client secrets that are accepted; None for those it was started with.
    client_secrets: tuple[str, ...] | None = field(default=None, repr=False)
    # Seconds by which the sandbox's clock is ahead of the real one.
    clock_offset_s: float = 0
    faults: tuple[Fault, ...] = ()

    def as_json(self) -> dict[str, Any]:
        values = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        return values | {"faults": [fault.as_json() for fault in self.faults]}

    def changed(self, changes: object) -> Settings:
        """Return a copy with `changes` (decoded JSON) applied, all or none. Raises SettingsError."""
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
