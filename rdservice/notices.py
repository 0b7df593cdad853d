"""Warnings about actions that succeeded: in English for programs, translated for people."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from rdservice.text.catalogue import Language, message, translated

Code = Literal[
    "scope_missing",
    "audience_differs",
    "name_unknown",
    "same_account",
    "unverified",
    "not_revoked",
    "kept_for_others",
    "kept_to_be_safe",
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


def same_account(others: Sequence[str]) -> list[Notice]:
    """Return the warning that `others` are connected to the same RD Station account; none without others."""
    return _about(
        "same_account",
        message(
            "The same RD Station account is also connected here as %(accounts)s. RD Station's limits count for all of"
            " them together."
        ),
        others,
    )


def kept_for_others(others: Sequence[str]) -> list[Notice]:
    """Return the warning that the tokens were not revoked because `others` use the same RD Station account."""
    return _about(
        "kept_for_others",
        message(
            "The app keeps its access at RD Station, because the same RD Station account is connected here as"
            " %(accounts)s too. Do not remove the app in RD Station's settings: that would disconnect %(accounts)s."
        ),
        others,
    )


def kept_to_be_safe(others: Sequence[str]) -> list[Notice]:
    """Return the warning that the tokens were not revoked because `others` may use the same RD Station account."""
    return _about(
        "kept_to_be_safe",
        message(
            "The app keeps its access at RD Station, because it is not known yet whether %(accounts)s is connected to"
            " the same RD Station account. Make sure that it is not before you remove the app in RD Station's settings."
        ),
        others,
    )


def _about(code: Code, sentence: str, others: Sequence[str]) -> list[Notice]:
    return [Notice(code=code, sentence=sentence, values={"accounts": ", ".join(others)})] if others else []


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
