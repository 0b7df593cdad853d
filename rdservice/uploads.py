"""Tokens that a program uploads, and the removal of an account."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rdservice import audit, database, errors, notices
from rdservice.account_calls.failures import call_once
from rdservice.audit import Author
from rdservice.authorization import name_in
from rdservice.encryption import KeyMissing, ValueDamaged
from rdservice.errors import RdServiceError
from rdservice.notices import Notice
from rdservice.services import Services
from rdservice.subscriptions import store as subscriptions
from rdservice.subscriptions.manage import remove_with_token
from rdservice.texts import is_readable
from rdservice.token_answers import MAX_LIFETIME_S, MAX_TOKEN_LENGTH, is_lifetime, is_token
from rdservice.tokens import jwt_claims, store
from rdservice.tokens.store import DEFAULT_ACCOUNT, AccountState

log = logging.getLogger(__name__)

LONGEST_ACCOUNT_ID = 200


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A pair as a program sends it; `verify` false stores it without asking RD Station."""

    account_id: str
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in_s: int
    verify: bool


@dataclass(frozen=True, kw_only=True)
class Disconnected:
    """A removed account. `revoked`: RD Station confirmed that it no longer accepts its tokens."""

    revoked: bool
    warnings: list[Notice]


def parse_upload(body: object) -> Upload:
    """Check a decoded JSON body. Raises BadRequest or InvalidField, which names the field."""
    if not isinstance(body, dict):
        raise errors.BadRequest("Send a JSON object with access_token, refresh_token and expires_in.")
    verify = body.get("verify", True)
    if not isinstance(verify, bool):
        raise _invalid("verify", "must be true or false")
    return Upload(
        account_id=check_account_id(body.get("account_id", DEFAULT_ACCOUNT)),
        access_token=_token(body, "access_token"),
        refresh_token=_token(body, "refresh_token"),
        expires_in_s=_expires_in(body),
        verify=verify,
    )


def check_account_id(value: object) -> str:
    """Return `value` if it can name an account: 1 to 200 printable characters, no slash, no white space around."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_ACCOUNT_ID:
        raise _invalid("account_id", f"must be a text of 1 to {LONGEST_ACCOUNT_ID} characters")
    if not is_readable(value) or "/" in value or value != value.strip() or value in {".", ".."}:
        raise _invalid("account_id", "may have printable characters only, no slash, no white space around it")
    return value


def upload(services: Services, given: Upload, *, by: Author) -> tuple[AccountState, list[Notice]]:
    """Store a pair that `by` uploaded; return the account's state and warnings.

    The pair that stood there is kept until the new refresh token has worked. Raises TokenRefused when RD Station does
    not accept the access token, RdStationUnavailable when it cannot be asked and a usable pair would be replaced.
    """
    with database.transaction(services.pool) as conn:
        before = store.account_state(conn, given.account_id)
        if before and store.holds_pair(
            conn, services.keys, given.account_id, given.access_token, given.refresh_token
        ):
            return before, []
    warnings = jwt_claims.warnings(
        given.access_token, api_url=services.settings.api_url, scope=services.settings.scope
    )
    name, verified = _verify(services, given, before) if given.verify else (None, False)
    if given.verify and not verified:
        warnings.append(notices.unverified())

    with database.transaction(services.pool) as conn:
        authorized = store.authorize(
            conn,
            services.keys,
            given.account_id,
            access_token=given.access_token,
            refresh_token=given.refresh_token,
            expires_in_s=given.expires_in_s,
            name=name,
            verified=verified,
            proven=False,
        )
        audit.record(conn, by, "tokens_uploaded", account_id=given.account_id, verified=verified)
        state = store.account_state(conn, given.account_id)
    services.memory.forget(given.account_id)
    if state is None:
        raise RuntimeError("the row that was just written is not there")
    if name is not None and authorized.previous_name is not None and authorized.previous_name != name:
        warnings.append(notices.another_account(name, authorized.previous_name))
    return state, warnings


def disconnect(services: Services, account_id: str, *, by: Author) -> Disconnected:
    """Remove the account's tokens here; end its subscriptions and revoke the tokens at RD Station.

    Raises NotFound without a row. What cannot be done at RD Station is a warning: the tokens are gone from here all the
    same.
    """
    with database.transaction(services.pool) as conn:
        delivered_to = [row.secret_hash for row in subscriptions.list_all(conn, account_id)]
        removed = store.remove(conn, account_id)
        if removed is not None:
            audit.record(conn, by, "account_disconnected", account_id=account_id)
    services.memory.forget(account_id)
    if removed is None:
        raise errors.NotFound(f"No account {account_id!r} is connected.")
    try:
        access_token = services.keys.decrypt("access_token", account_id, removed.access_token)
    except (KeyMissing, ValueDamaged) as error:
        return _not_revoked(str(error))
    # While RD Station still accepts the token.
    warnings = remove_with_token(services, access_token, delivered_to)
    reason = "another account here is connected to the same RD Station account"
    if not removed.shared:
        reason = _revoke(services, access_token)
    if not reason:
        return Disconnected(revoked=True, warnings=warnings)
    return _not_revoked(reason, warnings)


def _revoke(services: Services, access_token: str) -> str:
    """Revoke at RD Station; return why it was not done, empty when it was."""
    try:
        answer = call_once(lambda: services.rdstation.revoke(access_token))
    except RdServiceError as error:
        return error.title
    return "" if 200 <= answer.status < 300 else f"RD Station answered HTTP {answer.status}"


def _verify(services: Services, given: Upload, before: AccountState | None) -> tuple[str | None, bool]:
    """Ask RD Station whose token it is; return the account's name and whether the token works."""
    try:
        answer = services.account_calls.send_counted(
            given.account_id, lambda: services.rdstation.account_info(given.access_token)
        )
    except RdServiceError as error:
        reason = error.title
    else:
        if 200 <= answer.status < 300 and (name := name_in(answer.json())) is not None:
            return name, True
        if answer.status == 401:
            raise errors.TokenRefused(
                "RD Station does not accept the access token. Nothing was stored; upload a current pair, or send "
                '"verify": false to store it without asking.'
            )
        reason = f"account_info answered HTTP {answer.status}"
    if before is not None and before.status != "reauthorization_required":
        raise errors.RdStationUnavailable(
            f"The access token could not be checked ({reason}), and a usable pair is stored. Nothing was replaced; "
            'try again, or send "verify": false.',
            retry_after_s=30,
        )
    return None, False


def _not_revoked(reason: str, warnings: Sequence[Notice] = ()) -> Disconnected:
    log.warning("an account was disconnected but not revoked at RD Station: %s", reason)
    return Disconnected(revoked=False, warnings=[*warnings, notices.not_revoked(reason)])


def _token(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        raise _invalid(name, "is missing")
    if not isinstance(value, str):
        raise _invalid(name, "must be a text")
    if not value:
        raise _invalid(name, "is empty")
    if len(value) > MAX_TOKEN_LENGTH:
        raise _invalid(name, f"is longer than {MAX_TOKEN_LENGTH} characters")
    if not is_token(value):
        raise _invalid(name, "has characters that no token has (spaces, line breaks or non-ASCII)")
    return value


def _expires_in(body: dict[str, Any]) -> int:
    value = body.get("expires_in")
    if value is None:
        raise _invalid("expires_in", "is missing")
    if not is_lifetime(value):
        raise _invalid("expires_in", f"must be a whole number of seconds from 1 to {MAX_LIFETIME_S}")
    return value


def _invalid(name: str, what: str) -> errors.InvalidField:
    return errors.InvalidField(f"{name} {what}.", extra={"field": name})
