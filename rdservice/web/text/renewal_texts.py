"""The words for attempts to renew an account's tokens, in the reader's language."""

from rdservice.tokens.attempts import Outcome
from rdservice.web.text.languages import gettext
from rdservice.web.text.status_texts import error_words


def attempt_words(outcome: Outcome | None, error: str | None, *, cut_off: bool) -> tuple[str, str]:
    """Return tone and words for an attempt. `cut_off`: without an outcome it is not under way any more."""
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
    """Return why an attempt was made."""
    words = {
        "due": gettext("on schedule"),
        "early": gettext("for a program that needed a token"),
        "operator": gettext("requested manually"),
        "rejected": gettext("because RD Station refused the access token"),
    }
    return words[reason]
