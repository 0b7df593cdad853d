"""Texts for accounts' states and errors, in the reader's language."""

from rdservice.diagnosis import account_advice
from rdservice.tokens.attempts import Outcome
from rdservice.tokens.listing import State
from rdservice.tokens.store import Status
from rdservice.web.text.datetimes import LocalTime
from rdservice.web.text.languages import gettext, page_language


def state_words(state: State) -> str:
    """Return the text for an account's state."""
    words = {
        "connected": gettext("Connected"),
        "failing": gettext("Renewal failing"),
        "expired": gettext("Expired"),
        "unverified": gettext("Not verified yet"),
        "credentials_refused": gettext("Credentials refused"),
        "reauthorization_required": gettext("Authorization needed"),
    }
    return words[state]


def next_step(state: State, *, due: LocalTime | None, overdue: bool, worker_runs: bool) -> str:
    """Return what happens next to an account, and when. `due`: its next refresh; None: none is planned."""
    if due is None:
        return gettext("Waiting for someone to reconnect it.")
    if not worker_runs:
        return gettext("Nothing is renewed: the worker is not running.")
    if state == "reauthorization_required":
        return gettext(
            "Waiting for someone to reconnect it. In case RD Station was wrong, the token is tried again %(when)s.",
            when=due.distance,
        )
    if state == "credentials_refused":
        return gettext("RD Station is asked again every five minutes whether it accepts the credentials.")
    if state == "unverified":
        return gettext("The uploaded tokens are tried with RD Station within a minute.")
    if overdue:
        return gettext("The token is being renewed now.")
    if state == "connected":
        return gettext("The token is renewed automatically %(when)s.", when=due.distance)
    return gettext("The renewal is tried again automatically %(when)s.", when=due.distance)


def outcome_words(last_error: str | None, *, attempted: bool) -> str:
    """Return the text for the outcome of the last refresh."""
    if last_error is not None:
        return error_words(last_error)
    return gettext("Succeeded") if attempted else gettext("Not attempted yet")


def advice(account_id: str, status: Status, last_error: str | None) -> str:
    """Return what the account's state means and what to do, with the sentences of the findings."""
    finding = account_advice.of_account(account_id, status, last_error)
    if finding is None:
        return gettext("You don't need to do anything: the tokens are renewed automatically.")
    return finding.advice(page_language())


def error_words(last_error: str) -> str:
    """Return the text for an error kind of a refresh."""
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
        "another_account": gettext("Tokens of another RD Station account"),
        "no_refresh_token": gettext("No refresh token"),
    }
    return words.get(last_error) or gettext("Failed (%(kind)s)", kind=last_error)


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
        "second_look": gettext("in case the refusal was a mistake"),
    }
    return words[reason]
