"""Warnings about actions that succeeded: in English for programs, translated for people."""

from dataclasses import dataclass, field
from typing import Literal

from rdservice.text.catalogue import Language, message, translated

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
    """A warning: a sentence of the catalogue, and the values of its placeholders."""

    code: Code
    sentence: str = field(repr=False)
    values: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def text(self) -> str:
        """The warning for programs."""
        return self.told("en")

    def told(self, language: Language) -> str:
        """Return the warning in `language`. A reason is translated too, where the catalogue has it."""
        values = dict(self.values)
        if "reason" in values:
            values["reason"] = translated(language, values["reason"])
        return translated(language, self.sentence, **values)


def scope_missing(scope: str) -> Notice:
    return Notice(
        code="scope_missing",
        sentence=message(
            "The access token lacks the scope %(scope)s, so RD Station may refuse leads. Connect the account again."
        ),
        values={"scope": scope},
    )


def audience_differs() -> Notice:
    return Notice(
        code="audience_differs",
        sentence=message(
            "The access token was not made for the current RD Station Marketing API (its aud differs)."
        ),
    )


def name_unknown() -> Notice:
    return Notice(
        code="name_unknown",
        sentence=message("The account is connected, but RD Station did not tell its name."),
    )


def another_account(name: str, previous: str) -> Notice:
    return Notice(
        code="another_account",
        sentence=message(
            "Another RD Station account is connected now: '%(name)s'. Before, it was '%(previous)s'."
        ),
        values={"name": name, "previous": previous},
    )


def unverified() -> Notice:
    return Notice(
        code="unverified",
        sentence=message(
            "RD Station could not be asked whether the access token works; it is stored unverified."
        ),
    )


def not_revoked(reason: str) -> Notice:
    return Notice(
        code="not_revoked",
        sentence=message(
            "The tokens were removed here, but RD Station did not confirm that it forgets them (%(reason)s). Remove the"
            " app in RD Station's own settings if it should lose access."
        ),
        values={"reason": reason},
    )


def subscriptions_left(reason: str) -> Notice:
    return Notice(
        code="subscriptions_left",
        sentence=message(
            "RD Station may still have subscriptions to lead events (%(reason)s). What it delivers is refused here;"
            " remove them in RD Station's own list of webhooks."
        ),
        values={"reason": reason},
    )


def address_is_local() -> Notice:
    return Notice(
        code="address_is_local",
        sentence=message(
            "The callback URL names a local host, so RD Station cannot deliver lead events to this service."
        ),
    )
