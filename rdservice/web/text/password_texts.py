"""Texts of the page for changing the password, in the reader's language."""

from flask import flash

from rdservice.web.text.languages import gettext


def form_error(field: str) -> str:
    """Return the error message for a field of the form."""
    words = {
        "current_password": gettext("This is not your current password."),
        "new_password": gettext("Choose one with at least 12 characters, and not over 1000 bytes."),
        "new_password_again": gettext("The passwords do not match. Type both again."),
    }
    return words[field]


def flash_changed() -> None:
    """Show on the next page that the password was changed."""
    flash(gettext("Your password was changed. You were signed out everywhere else."), "ok")
