"""Connecting an RD Station account in a browser: the authorization code flow (RFC 6749 4.1).

Owns `rdstation_oauth_states`.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import psycopg

from rdservice import errors
from rdservice.access.audit import Author
from rdservice.account_calls.failures import call_once
from rdservice.accounts import waiting_pairs
from rdservice.accounts.decide import STORE_TIMEOUT_S, Connected, Question, decide
from rdservice.accounts.waiting_pairs import Owner
from rdservice.database.pool import transaction, write_for_sure
from rdservice.errors import RdServiceError
from rdservice.rdstation.token_responses import REFUSALS, Meaning, judge
from rdservice.services import Services
from rdservice.tokens import credentials

STATE_MINUTES = 10
FIRST_FETCH_S = 10.0
"""How long a second fetch of a callback waits for the first."""
POLL_S = 0.1
# RFC 6749 4.1.2.1.
DIALOG_ERRORS = frozenset(
    {
        "invalid_request",
        "unauthorized_client",
        "unsupported_response_type",
        "invalid_scope",
        "server_error",
        "temporarily_unavailable",
    }
)

BEGIN = """
INSERT INTO rdstation_oauth_states (state_hash, operator_id, account_id, created_at)
VALUES (decode(%(pair_id)s, 'hex'), %(operator_id)s, %(account_id)s, rd_now())
"""
# Deletes the row even when the caller is not its owner: a state is good for one attempt.
TAKE = """
DELETE FROM rdstation_oauth_states WHERE state_hash = decode(%(pair_id)s, 'hex')
RETURNING account_id,
          operator_id = %(operator_id)s AND created_at > rd_now() - make_interval(mins => %(minutes)s) AS valid
"""
PRUNE = """
DELETE FROM rdstation_oauth_states WHERE state_hash = ANY (ARRAY(
    SELECT state_hash FROM rdstation_oauth_states
     WHERE created_at < rd_now() - make_interval(mins => %(minutes)s) ORDER BY created_at LIMIT %(batch)s
       FOR UPDATE SKIP LOCKED))
"""


@dataclass(frozen=True, kw_only=True)
class FullPair:
    """The tokens of a new authorization: an access token and a refresh token, both required."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in_s: int


def begin(services: Services, owner: Owner, *, account_id: str) -> str:
    """Start an authorization and return the URL of RD Station's dialog.

    The stored state is bound to the operator, to this session and to the account, and is valid for 10 minutes.
    """
    state = secrets.token_urlsafe(32)
    with transaction(services.pool) as conn:
        conn.execute(
            BEGIN,
            {"pair_id": owner.pair_id(state), "operator_id": owner.operator_id, "account_id": account_id},
        )
    return services.rdstation.dialog_url(state)


def complete(
    services: Services, owner: Owner, *, callback: Mapping[str, str], by: Author
) -> Connected | Question:
    """Complete an authorization: consume the state, exchange the code, park the tokens, and store them if they may be.

    `callback`: the query parameters with which RD Station redirected back (RFC 6749 4.1.2). The same callback again
    waits for the first and returns its result. Raises InvalidState, ConsentRefused, CodeExpired, CodeRefused,
    RdStationFailed, RdStationUnavailable, or what `decide` raises; stored tokens are unchanged then.
    """
    pair_id = owner.pair_id(callback.get("state", ""))
    account_id = _take_state(services, owner, pair_id)
    if account_id is None:
        _wait_for_the_first(services, owner, pair_id)
        return decide(services, owner, pair_id, by=by)
    try:
        _exchange_and_park(services, pair_id, account_id, callback)
    except RdServiceError:
        with transaction(services.pool) as conn:
            waiting_pairs.delete(conn, pair_id)
        raise
    return decide(services, owner, pair_id, by=by)


def _exchange_and_park(
    services: Services, pair_id: str, account_id: str, callback: Mapping[str, str]
) -> None:
    if "error" in callback:
        _raise_error_of_dialog(callback["error"])
    code = callback.get("code", "")
    if not code:
        raise errors.InvalidState("RD Station redirected back without a code. Start the connection again.")
    started = services.refresher.monotonic()
    pair = _exchange(services, code)

    def park(conn: psycopg.Connection[Any]) -> None:
        waiting_pairs.park(
            conn,
            services.keys,
            pair_id,
            account_id,
            access_token=pair.access_token,
            refresh_token=pair.refresh_token,
            expires_in_s=pair.expires_in_s,
            # Time passes while the database is retried.
            age_s=services.refresher.monotonic() - started,
        )
        # Last, as everywhere: all accounts share this row.
        credentials.record_success(conn, services.refresher.fingerprint)

    write_for_sure(
        services.pool,
        park,
        give_up=services.refresher.must_end,
        timeout_s=STORE_TIMEOUT_S,
        monotonic=services.refresher.monotonic,
    )


def _wait_for_the_first(services: Services, owner: Owner, pair_id: str) -> None:
    """Wait until the first fetch of a callback has parked its tokens. Raises InvalidState if there was no first."""
    give_up_at = services.refresher.monotonic() + FIRST_FETCH_S
    while True:
        with transaction(services.pool) as conn:
            pair = waiting_pairs.read(conn, services.keys, owner, pair_id)
        if pair is None:
            raise errors.InvalidState(
                "This authorization was used already, is older than ten minutes, or was started by someone else, in"
                " another browser or before the last log-in. "
                "If the account is shown as connected, nothing is wrong; otherwise start the connection again."
            )
        if pair.access_token is not None or pair.outcome is not None:
            return
        if services.refresher.monotonic() > give_up_at or services.refresher.must_end.wait(POLL_S):
            return


def prune(conn: psycopg.Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` expired states; return how many were deleted."""
    return conn.execute(PRUNE, {"minutes": STATE_MINUTES, "batch": batch}).rowcount


def _raise_error_of_dialog(error: str) -> NoReturn:
    """Raise the error for an `error` parameter of the callback (RFC 6749 4.1.2.1)."""
    if error == "access_denied":
        raise errors.ConsentRefused(
            "Access was refused in RD Station. Nothing has changed; start again to connect."
        )
    known = error if error in DIALOG_ERRORS else "an error that RFC 6749 does not define"
    raise errors.RdStationFailed(
        f"RD Station's dialog ended with {known}. Nothing has changed. Start again; if the error persists, compare"
        " RDSTATION_CLIENT_ID, RDSTATION_REDIRECT_URI and RDSTATION_SCOPE with the app in the RD Station App Store."
    )


def _take_state(services: Services, owner: Owner, pair_id: str) -> str | None:
    """Consume the state and return its account id; None unless the owner started it at most 10 minutes ago."""
    values = {"pair_id": pair_id, "operator_id": owner.operator_id, "minutes": STATE_MINUTES}
    with transaction(services.pool) as conn:
        row = conn.execute(TAKE, values).fetchone()
        if row is None or not row[1]:
            return None
        waiting_pairs.begin(conn, owner, pair_id, row[0])
    return str(row[0])


def _exchange(services: Services, code: str) -> FullPair:
    """Exchange the authorization code for tokens (RFC 6749 4.1.3). Raises the errors that `complete` names."""
    try:
        response = call_once(lambda: services.rdstation.exchange_code(code))
    except RdServiceError as error:
        raise errors.RdStationUnavailable(
            "RD Station did not respond. Nothing has changed; start the connection again in a few minutes."
        ) from error
    judged = judge(response)
    if judged.pair is not None and judged.pair.refresh_token is not None:
        return FullPair(
            access_token=judged.pair.access_token,
            refresh_token=judged.pair.refresh_token,
            expires_in_s=judged.pair.expires_in_s,
        )
    if judged.meaning in REFUSALS:
        services.metrics.auth_failure("code_exchange")
    if response.error_type == "EXPIRED_CODE_GRANT":
        raise errors.CodeExpired(
            "According to RD Station, this code was used already or is over an hour old. Start the connection again."
        )
    if judged.meaning is Meaning.CREDENTIALS:
        raise errors.CodeRefused(
            "RD Station refused the code or the client credentials, and does not say which. Start again; if the error"
            " persists, compare RDSTATION_CLIENT_ID and RDSTATION_CLIENT_SECRET with the app in the RD Station App"
            " Store."
        )
    if judged.meaning in (Meaning.RATE_LIMITED, Meaning.TRANSIENT) and response.status >= 400:
        raise errors.RdStationUnavailable(
            f"RD Station is not available (HTTP {response.status}). Nothing has changed; start again in a few minutes.",
            retry_after_s=judged.retry_after_s,
        )
    raise errors.RdStationFailed(
        f"RD Station sent an invalid response (HTTP {response.status}). Nothing has changed; start again."
    )
