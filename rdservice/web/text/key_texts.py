"""Texts of the page of API keys, in the reader's language."""

from flask import flash

from rdservice.access.keys import COMMAND_LINE
from rdservice.web.text.languages import gettext


def scope_words() -> dict[str, str]:
    """Return what each scope of `rdservice.access.keys.SCOPES` allows, by scope and in the same order."""
    return {
        "tokens:write": gettext("Connect, upload, renew and remove tokens"),
        "tokens:status": gettext("See which accounts are connected and until when"),
        "tokens:read": gettext("Get valid access tokens"),
        "leads:read": gettext("Read leads, segmentations and lead events"),
        "api:call": gettext("Call any RD Station route through this service, also to change data"),
        "privacy:erase": gettext("Erase a person's data (LGPD)"),
    }


def form_error(field: str) -> str:
    """Return the error message for the form's field `name` or `scopes`."""
    if field == "name":
        return gettext("The name must have 1 to 100 readable characters.")
    return gettext("Choose at least one permission.")


def maker_words(created_by: str) -> str:
    """Return who created a key: an operator's e-mail, or a text for the command line."""
    return gettext("command line") if created_by == COMMAND_LINE else created_by


def flash_revoked(key_id: str) -> None:
    """Show on the next page that a key was revoked."""
    flash(
        gettext("The key %(key_id)s is revoked and refused everywhere within a second.", key_id=key_id), "ok"
    )
