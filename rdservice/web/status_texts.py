"""The status page's words for states and errors of accounts, in the reader's language."""

from rdservice.tokens.listing import State
from rdservice.web.languages import gettext
from rdservice.web.moments import Moment


def state_words(state: State) -> str:
    """Return the words for an account's state."""
    words = {
        "connected": gettext("Connected"),
        "failing": gettext("Renewal failing"),
        "expired": gettext("Expired"),
        "unverified": gettext("Not verified yet"),
        "credentials_refused": gettext("Credentials refused"),
        "reauthorization_required": gettext("Authorization needed"),
    }
    return words[state]


def next_step(state: State, *, due: Moment | None, overdue: bool, worker_runs: bool) -> str:
    """Return what happens next to an account, and when. `due`: its next renewal, None where there is none."""
    if due is None:
        return gettext("Nothing by itself: the account waits until somebody connects it again.")
    if not worker_runs:
        return gettext("Nothing by itself: the worker, which renews the tokens, is not running.")
    if state == "credentials_refused":
        return gettext("RD Station is asked again every five minutes whether it accepts the credentials.")
    if state == "unverified":
        return gettext("The uploaded tokens are tried with RD Station within a minute.")
    if overdue:
        return gettext("The token is being renewed now.")
    if state == "connected":
        return gettext("The token is renewed by itself %(when)s.", when=due.distance)
    return gettext("The renewal is tried again by itself %(when)s.", when=due.distance)


def outcome_words(last_error: str | None, *, attempted: bool) -> str:
    """Return the words for what became of the last renewal."""
    if last_error is not None:
        return error_words(last_error)
    return gettext("Succeeded") if attempted else gettext("Not attempted yet")


def advice(status: str, last_error: str | None) -> str:
    """Return a sentence or two that say what the operator should do."""
    if status == "reauthorization_required":
        return _reauthorization_advice(last_error)
    if status == "credentials_refused" or last_error == "credentials":
        return gettext(
            "RD Station refuses the client ID or the client secret. Check RDSTATION_CLIENT_ID and"
            " RDSTATION_CLIENT_SECRET against the app in the RD Station App Store and restart the service. The tokens"
            " are kept; do not connect again."
        )
    if last_error is not None:
        return _error_advice(last_error)
    if status == "expired":
        return gettext(
            "The access token ran out before it was renewed. Make sure that the worker is running, then use"
            " “Refresh now”."
        )
    if status == "unverified":
        return gettext(
            "The uploaded tokens are still to be tried with RD Station. This happens by itself within a minute while"
            " the worker is running."
        )
    return gettext("Nothing to do: the tokens are renewed by themselves.")


def _reauthorization_advice(last_error: str | None) -> str:
    if last_error == "answer_lost":
        return gettext(
            "RD Station's answer to a renewal got lost, on its way or because the process that waited for it was"
            " killed. Since then RD Station refuses the refresh token. Connect the account again."
        )
    if last_error == "no_refresh_token":
        return gettext("There is no refresh token for this account. Connect the account again.")
    return gettext(
        "RD Station no longer accepts the refresh token: the app was probably removed or replaced in the RD Station"
        " account. Connect the account again."
    )


def error_words(last_error: str) -> str:
    """Return the words for what went wrong with a renewal."""
    words = {
        "revoked": gettext("Refused: the refresh token is no longer valid"),
        "answer_lost": gettext("The answer was lost"),
        "unauthorized": gettext("Refused by RD Station (401)"),
        "credentials": gettext("Client credentials refused"),
        "rate_limited": gettext("Too many requests (429)"),
        "client_error": gettext("Request not accepted (4xx)"),
        "server_error": gettext("RD Station had an error (5xx)"),
        "timeout": gettext("No answer in time"),
        "connection": gettext("No connection"),
        "bad_payload": gettext("Unusable answer"),
        "damaged": gettext("Stored token damaged"),
        "upload_refused": gettext("Uploaded token refused"),
        "no_refresh_token": gettext("No refresh token"),
    }
    return words.get(last_error) or gettext("Failed (%(kind)s)", kind=last_error)


def _error_advice(last_error: str) -> str:
    passing = gettext(
        "RD Station could not be reached, or did not answer as it should. The renewal is tried again by itself; look"
        " at RD Station's status page if this lasts over an hour."
    )
    sentences = {
        "revoked": gettext(
            "RD Station refused the refresh token. The renewal is tried again before that is final. If you removed the"
            " app in RD Station, connect the account again."
        ),
        "answer_lost": gettext(
            "An answer of RD Station was lost on its way. The renewal is tried again by itself; if it fails for ten"
            " minutes, connect the account again."
        ),
        "unauthorized": gettext(
            "RD Station refused the renewal. It is tried again by itself; if it stays refused, connect the account"
            " again."
        ),
        "rate_limited": gettext(
            "RD Station asks for fewer requests. The renewal waits as long as RD Station wants; nothing to do."
        ),
        "client_error": gettext(
            "RD Station did not accept the request for renewal. It is tried again slowly; check the app's settings in"
            " the RD Station App Store, and connect the account again if it lasts."
        ),
        "server_error": passing,
        "timeout": passing,
        "connection": gettext(
            "RD Station could not be reached. Check this server's access to the Internet and RDSTATION_API_URL; the"
            " renewal is tried again by itself."
        ),
        "bad_payload": passing,
        "damaged": gettext("The stored token is damaged and cannot be read. Connect the account again."),
        "upload_refused": gettext(
            "The refresh token that was uploaded last did not work, so the earlier one was put back. Upload a new pair,"
            " or connect the account again."
        ),
        "no_refresh_token": gettext("There is no refresh token for this account. Connect the account again."),
    }
    return sentences.get(last_error, passing)
