"""Error messages of the upload form's fields, in the reader's language."""

from rdservice.accounts.ids import LONGEST_ACCOUNT_ID
from rdservice.errors import InvalidField
from rdservice.rdstation.token_responses import MAX_LIFETIME_S, MAX_TOKEN_LENGTH
from rdservice.web.text.datetimes import number_words
from rdservice.web.text.languages import gettext


def field_problem(error: InvalidField) -> str:
    """Return the message for an error of `rdservice.accounts`; the error's own detail when there is none here."""
    what = error.detail.removeprefix(f"{error.extra['field']} ").removesuffix(".")
    words = {
        "is missing": gettext("Fill in this field."),
        f"must be a string of 1 to {LONGEST_ACCOUNT_ID} characters": gettext(
            "Enter 1 to %(most)s characters.", most=number_words(LONGEST_ACCOUNT_ID)
        ),
        "must contain printable characters only, no slash and no white space around it": gettext(
            "Use letters, digits and signs, but no slash."
        ),
        f"is longer than {MAX_TOKEN_LENGTH} characters": gettext(
            "A token has at most %(most)s characters. Copy the token alone.",
            most=number_words(MAX_TOKEN_LENGTH),
        ),
        "contains characters that are not allowed in a token (spaces, line breaks or non-ASCII)": gettext(
            "A token has neither spaces nor line breaks nor accents. Copy it once more, without what stands around it."
        ),
        f"must be a whole number of seconds from 1 to {MAX_LIFETIME_S}": gettext(
            "Enter a whole number of seconds from 1 to %(most)s.", most=number_words(MAX_LIFETIME_S)
        ),
    }
    return words.get(what, error.detail)
