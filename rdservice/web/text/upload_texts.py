"""Error messages of the upload form's fields, in the reader's language."""

from rdservice.accounts import ids, upload
from rdservice.errors import InvalidField
from rdservice.rdstation.token_responses import MAX_LIFETIME_S, MAX_TOKEN_LENGTH
from rdservice.web.text.datetimes import number_words
from rdservice.web.text.languages import gettext, page_language


def field_problem(error: InvalidField) -> str:
    """Return the message for an error of `rdservice.accounts`; the error's own sentence when there is none here."""
    words = {
        upload.MISSING: gettext("Fill in this field."),
        ids.ID_LENGTH: gettext("Enter 1 to %(most)s characters.", most=number_words(ids.LONGEST_ACCOUNT_ID)),
        ids.ID_CHARACTERS: gettext("Use letters, digits and signs, but no slash."),
        upload.TOKEN_LENGTH: gettext(
            "A token has at most %(most)s characters. Copy the token alone.",
            most=number_words(MAX_TOKEN_LENGTH),
        ),
        upload.TOKEN_CHARACTERS: gettext(
            "A token has neither spaces nor line breaks nor accents. Copy it once more, without what stands around it."
        ),
        upload.LIFETIME: gettext(
            "Enter a whole number of seconds from 1 to %(most)s.", most=number_words(MAX_LIFETIME_S)
        ),
    }
    return words.get(error.sentence) or error.told(page_language())
