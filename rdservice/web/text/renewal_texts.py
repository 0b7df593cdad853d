"""Texts for refresh attempts, in the reader's language."""

from rdservice.tokens.attempts import Outcome
from rdservice.web.text.languages import gettext
from rdservice.web.text.status_texts import error_words


def attempt_words(outcome: Outcome | None, error: str | None, *, cut_off: bool) -> tuple[str, str]:
    """Return tone and text for an attempt. `cut_off`: an attempt without an outcome is no longer running."""
    if outcome is None:
        return (
            ("warn", gettext("Cut off: its process ended before the answer was stored"))
            if cut_off
            else ("plain", gettext("Under way"))
        )
    why = "" if error is None else error_words(error)
    words = {
        "stored": ("ok", gettext("Renewed")),
        "refused": ("bad", why or gettext("Refused")),
        "transient": ("warn", gettext("Postponed: %(why)s", why=why)),
        "superseded": ("plain", gettext("Not needed: the account was connected again in the meantime")),
        "released": ("plain", gettext("Not begun, and left to another process")),
    }
    return words[outcome]


def reason_words(reason: str) -> str:
    """Return the text for the reason of an attempt."""
    words = {
        "due": gettext("on schedule"),
        "early": gettext("for a program that needed a token"),
        "operator": gettext("requested manually"),
        "rejected": gettext("because RD Station refused the access token"),
    }
    return words[reason]
