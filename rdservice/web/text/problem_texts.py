"""Texts of the error page, by problem code, in the reader's language."""

from typing import NamedTuple

from rdservice.text import troubles
from rdservice.web.text.languages import gettext


class PageText(NamedTuple):
    """A heading, and advice on what to do."""

    title: str
    advice: str


def page_text(code: str) -> PageText:
    """Return the text for the problem `code`; that of `internal_error` for an unknown code."""
    texts = _texts()
    return texts.get(code, texts["internal_error"])


def _texts() -> dict[str, PageText]:
    return {
        "bad_request": PageText(
            gettext("Bad request"),
            gettext("The request could not be read. Go back to the status page and try again from there."),
        ),
        "unauthorized": PageText(gettext("Login needed"), gettext("Log in and try again.")),
        "insufficient_scope": PageText(
            gettext("Not allowed"),
            gettext("This API key may not do that. Log in, or use a key with the right scope."),
        ),
        "route_forbidden": PageText(
            gettext("Not available here"),
            gettext("This route is not available here: this service already takes care of the tokens."),
        ),
        "csrf_failed": PageText(
            gettext("The page is out of date"),
            gettext("Open the page again and repeat what you did. Cookies must be allowed for this address."),
        ),
        "not_found": PageText(gettext("Not found"), gettext("There is nothing at this address.")),
        "method_not_allowed": PageText(
            gettext("Method not allowed"),
            gettext("This address cannot be opened like this. Start from the status page."),
        ),
        "not_connected": PageText(
            gettext("Account not connected"), gettext("Connect the account to RD Station first.")
        ),
        "reauthorization_required": PageText(
            gettext("Authorization must be renewed"),
            gettext("RD Station no longer accepts the stored authorization. Connect the account again."),
        ),
        "invalid_state": PageText(
            gettext("Authorization not recognized"),
            gettext(
                "This return from RD Station was already used, is older than ten minutes, or was started by someone"
                " else or in another browser. If the account is shown as connected, all is well; otherwise connect it"
                " again."
            ),
        ),
        "consent_refused": PageText(
            gettext("Authorization refused"),
            gettext(
                "The access was denied in RD Station, and nothing has changed. Connect again if that was a mistake."
            ),
        ),
        "code_expired": PageText(
            gettext("Authorization code expired"),
            gettext(
                "RD Station says that the code was used already or is over an hour old. Connect the account again."
            ),
        ),
        "code_refused": PageText(
            gettext("Code or credentials refused"),
            gettext(
                "RD Station refused the code or this service's credentials, and does not say which. Connect the account"
                " again; if it stays, check RDSTATION_CLIENT_ID and RDSTATION_CLIENT_SECRET against the app in the RD"
                " Station App Store."
            ),
        ),
        "another_account": PageText(
            gettext("Tokens of another RD Station account"),
            gettext(
                "These tokens belong to another RD Station account than the one that is connected under this name."
                " Upload them under another name, or disconnect the account first."
            ),
        ),
        "payload_too_large": PageText(
            gettext("Too much data"), gettext("The request has more data than this address takes.")
        ),
        "unsupported_media_type": PageText(
            gettext("Unsupported format"), gettext("The request has a format that cannot be read here.")
        ),
        "invalid_field": PageText(
            gettext("Invalid field"),
            gettext("A field is missing or cannot be used as it is. Correct it and try again."),
        ),
        "token_refused": PageText(
            gettext("Token refused by RD Station"),
            gettext(
                "RD Station does not accept this token. Connect the account through RD Station's own page."
            ),
        ),
        "too_many_requests": PageText(
            gettext("Too many attempts"), gettext("Wait some minutes before you try again.")
        ),
        "rdstation_failed": PageText(
            gettext("RD Station failed"),
            gettext("RD Station gave an answer that cannot be used. Try again in some minutes."),
        ),
        "rdstation_unavailable": PageText(
            gettext("RD Station unavailable"),
            gettext("RD Station does not answer at the moment. Try again in some minutes."),
        ),
        "rdstation_timeout": PageText(
            gettext("RD Station took too long"),
            gettext("RD Station did not answer in time. Try again in some minutes."),
        ),
        "credentials_refused": PageText(
            gettext("RD Station refuses this service's credentials"),
            gettext(troubles.COMPARE_CREDENTIALS),
        ),
        "database_unavailable": PageText(
            gettext("Database unavailable"),
            gettext(
                "The database does not answer, or it was not prepared for this version. Try again in a moment."
            ),
        ),
        "token_unreadable": PageText(
            gettext("Stored token cannot be decrypted"),
            gettext(troubles.ADD_MISSING_KEY),
        ),
        "internal_error": PageText(
            gettext("Something went wrong"),
            gettext("Try again. The log has the cause under the number below."),
        ),
    }
