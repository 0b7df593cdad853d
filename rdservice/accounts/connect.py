"""Connecting an RD Station account in a browser: the authorization code flow (RFC 6749 4.1).

Owns `rdstation_oauth_states`.
"""

import hashlib
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import psycopg

from rdservice import errors, notices
from rdservice.access import audit
from rdservice.access.audit import Author
from rdservice.account_calls.failures import call_once
from rdservice.database.pool import transaction, write_for_sure
from rdservice.errors import RdServiceError
from rdservice.names import is_readable
from rdservice.notices import Notice
from rdservice.rdstation.token_responses import REFUSALS, Meaning, judge
from rdservice.services import Services
from rdservice.tokens import credentials, jwt_claims, store

log = logging.getLogger(__name__)

STATE_MINUTES = 10
STORE_TIMEOUT_S = 10.0
"""How long the callback retries to store the tokens, since the code cannot be exchanged a second time."""
LONGEST_NAME = 200
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
VALUES (%(state_hash)s, %(operator_id)s, %(account_id)s, rd_now())
"""
# Deletes the row even when the caller is not its owner: a state is good for one attempt.
TAKE = """
DELETE FROM rdstation_oauth_states WHERE state_hash = %(state_hash)s
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


@dataclass(frozen=True, kw_only=True)
class Connected:
    """A completed authorization. `name`: the name of the RD Station account, None when it could not be read."""

    account_id: str
    name: str | None = field(repr=False)
    warnings: list[Notice]


def begin(services: Services, *, operator_id: str, session_id: str, account_id: str) -> str:
    """Start an authorization and return the URL of RD Station's dialog.

    The stored state is bound to the operator, to this session and to the account, and is valid for 10 minutes.
    """
    state = secrets.token_urlsafe(32)
    with transaction(services.pool) as conn:
        conn.execute(
            BEGIN,
            {"state_hash": _hash(state, session_id), "operator_id": operator_id, "account_id": account_id},
        )
    return services.rdstation.dialog_url(state)


def complete(
    services: Services, *, operator_id: str, session_id: str, callback: Mapping[str, str], by: Author
) -> Connected:
    """Complete an authorization: consume the state, exchange the code and store the tokens.

    `callback`: the query parameters with which RD Station redirected back (RFC 6749 4.1.2).
    Raises InvalidState, ConsentRefused, CodeExpired, CodeRefused, RdStationFailed or RdStationUnavailable; stored
    tokens are unchanged then.
    """
    account_id = _take_state(services, operator_id, session_id, callback.get("state", ""))
    if "error" in callback:
        _raise_error_of_dialog(callback["error"])
    code = callback.get("code", "")
    if not code:
        raise errors.InvalidState("RD Station redirected back without a code. Start the connection again.")
    started = services.refresher.monotonic()
    pair = _exchange(services, code)

    def put(conn: psycopg.Connection[Any]) -> store.Authorized:
        credentials.record_success(conn, services.refresher.fingerprint)
        audit.record(conn, by, "account_connected", account_id=account_id)
        return store.authorize(
            conn,
            services.keys,
            account_id,
            access_token=pair.access_token,
            refresh_token=pair.refresh_token,
            expires_in_s=pair.expires_in_s,
            # Time passes while the database is retried.
            age_s=services.refresher.monotonic() - started,
            verified=True,
            proven=True,
        )

    authorized = write_for_sure(
        services.pool,
        put,
        give_up=services.refresher.must_end,
        timeout_s=STORE_TIMEOUT_S,
        monotonic=services.refresher.monotonic,
    )
    services.memory.forget(account_id)
    return _introduce(services, account_id, pair.access_token, authorized)


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


def _take_state(services: Services, operator_id: str, session_id: str, state: str) -> str:
    """Consume `state` and return its account id.

    Raises InvalidState unless this session started it at most 10 minutes ago.
    """
    values = {"state_hash": _hash(state, session_id), "operator_id": operator_id, "minutes": STATE_MINUTES}
    with transaction(services.pool) as conn:
        row = conn.execute(TAKE, values).fetchone()
    if row is None or not row[1]:
        raise errors.InvalidState(
            "This authorization was used already, is older than ten minutes, or was started by someone else, in another"
            " browser or before the last log-in. "
            "If the account is shown as connected, nothing is wrong; otherwise start the connection again."
        )
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


def _introduce(
    services: Services, account_id: str, access_token: str, authorized: store.Authorized
) -> Connected:
    """Read and store the name of the account that was just authorized; collect warnings for the operator."""
    warnings = jwt_claims.warnings(
        access_token, api_url=services.settings.api_url, scope=services.settings.scope
    )
    name = _read_name(services, account_id, access_token)
    if name is None:
        warnings.append(notices.name_unknown())
        return Connected(account_id=account_id, name=None, warnings=warnings)
    with transaction(services.pool) as conn:
        store.set_name(conn, account_id, authorized, name)
    if authorized.previous_name is not None and authorized.previous_name != name:
        warnings.append(notices.another_account(name, authorized.previous_name))
    return Connected(account_id=account_id, name=name, warnings=warnings)


def _read_name(services: Services, account_id: str, access_token: str) -> str | None:
    """Return the name of the token's RD Station account; None when it could not be read."""
    try:
        response = services.account_calls.send_counted(
            account_id, lambda: services.rdstation.account_info(access_token)
        )
    except RdServiceError as error:
        log.warning("the account's name could not be read (%s)", error.code)
        return None
    return name_in(response.json()) if response.status == 200 else None


def name_in(body: object) -> str | None:
    """Return the `name` in a body of `account_info`, without unprintable characters and at most 200 characters long.

    None when there is no name.
    """
    name = body.get("name") if isinstance(body, dict) else None
    if not isinstance(name, str):
        return None
    readable = "".join(char for char in name if is_readable(char)).strip()
    return readable[:LONGEST_NAME].strip() or None


def _hash(state: str, session_id: str) -> bytes:
    """Return the key of a state's row. It includes the session, so only the browser that started finds the row.

    RFC 6749 10.12 (cross-site request forgery).
    """
    return hashlib.sha256(f"{session_id}\0{state}".encode("utf-8", "surrogatepass")).digest()
