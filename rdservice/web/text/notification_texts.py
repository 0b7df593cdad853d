"""Texts for incidents and notifications, in the reader's language."""

from rdservice.notifications.deliveries import NotificationKind, Outcome
from rdservice.notifications.incidents import Kind
from rdservice.web.text.languages import gettext


def kind_words(kind: NotificationKind) -> str:
    """Return the subject of a message."""
    return gettext("Test") if kind == "test" else gettext("Accounts that need attention or have recovered")


def incident_words(kind: Kind, *, well: bool) -> str:
    """Return the text for an incident. `well`: the state has been good for some minutes."""
    words = {
        "reauthorization_required": gettext("Must be authorized again"),
        "expiring": gettext("Expires because renewals fail"),
        "credentials_refused": gettext("RD Station refuses the client ID or the client secret"),
    }[kind]
    return gettext("%(what)s; well again for some minutes", what=words) if well else words


def tone(outcome: Outcome | None, error: str | None) -> str:
    """Return the tone of a delivery's outcome: ok, warn, bad or plain."""
    if outcome is None:
        return "warn" if error else "plain"
    return {"sent": "ok", "given_up": "bad", "not_needed": "plain"}[outcome]


def outcome_words(outcome: Outcome | None, error: str | None, attempts: int) -> str:
    """Return the text for a delivery's outcome."""
    if outcome == "sent":
        return gettext("Sent")
    if outcome == "not_needed":
        return gettext("Not needed any more: all was well before it could be sent")
    reason = error_words(error)
    if outcome == "given_up":
        return gettext("Not sent: %(reason)s", reason=reason)
    if error is None:
        return gettext("Being sent") if attempts else gettext("Waiting for the worker")
    return gettext("Failed and is tried again: %(reason)s", reason=reason)


def error_words(error: str | None) -> str:
    """Return why a message was not accepted; the error's name if this version does not know it."""
    if error is not None and error.startswith("http_"):
        return gettext(
            "the receiver answered with HTTP status %(status)s", status=error.removeprefix("http_")
        )
    words = {
        "timeout": gettext("the receiver did not answer in time"),
        "connection": gettext("the receiver cannot be reached"),
        "invalid": gettext("the URL cannot be used"),
        "refused": gettext("the receiver did not accept it"),
        "crashed": gettext("the sending process failed"),
        "not_tried": gettext("no worker tried it: does one run, with the same NOTIFY_URLS?"),
    }
    return words.get(str(error), str(error))
