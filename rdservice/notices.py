"""What a caller should know of an action that succeeded: warnings, in English for programs, by code for pages."""

from dataclasses import dataclass, field
from typing import Literal

Code = Literal[
    "scope_missing",
    "audience_differs",
    "name_unknown",
    "another_account",
    "unverified",
    "not_revoked",
    "subscriptions_left",
    "address_is_local",
]


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A warning. `text` is an English sentence; `values` fill the sentence that a page shows for `code`."""

    code: Code
    text: str = field(repr=False)
    values: dict[str, str] = field(default_factory=dict, repr=False)


def scope_missing(scope: str) -> Notice:
    return Notice(
        code="scope_missing",
        text=f"The access token lacks the scope {scope}: RD Station may refuse leads. Authorize the app again.",
        values={"scope": scope},
    )


def audience_differs() -> Notice:
    return Notice(
        code="audience_differs",
        text="The access token was not made for the current RD Station Marketing API (its aud differs).",
    )


def name_unknown() -> Notice:
    return Notice(
        code="name_unknown",
        text="The tokens are stored, but the account's name could not be read from RD Station.",
    )


def another_account(name: str, previous: str) -> Notice:
    return Notice(
        code="another_account",
        text=f"Another RD Station account is connected now: {name!r}; before it was {previous!r}.",
        values={"name": name, "previous": previous},
    )


def unverified() -> Notice:
    return Notice(
        code="unverified",
        text="RD Station could not be asked whether the access token works; it is stored unverified.",
    )


def not_revoked(reason: str) -> Notice:
    return Notice(
        code="not_revoked",
        text=f"The tokens were removed here but not revoked at RD Station ({reason}). "
        "Remove the app in RD Station's own settings if it should lose access.",
    )


def subscriptions_left(reason: str) -> Notice:
    return Notice(
        code="subscriptions_left",
        text=f"RD Station may still have subscriptions to lead events ({reason}). What it delivers is refused here;"
        " remove them in RD Station's own list of webhooks.",
    )


def address_is_local() -> Notice:
    return Notice(
        code="address_is_local",
        text="RDSTATION_REDIRECT_URI names a local host, so RD Station cannot deliver lead events to this service.",
    )
