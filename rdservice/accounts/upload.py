"""Stores tokens that a program uploads."""

from dataclasses import dataclass, field
from typing import Any

from rdservice import errors, notices
from rdservice.access import audit
from rdservice.access.audit import Author
from rdservice.accounts.connect import name_in
from rdservice.accounts.ids import Pool, check_account_id, check_new_account_id
from rdservice.database.pool import transaction
from rdservice.errors import RdServiceError
from rdservice.notices import Notice
from rdservice.rdstation.token_responses import MAX_LIFETIME_S, MAX_TOKEN_LENGTH, is_lifetime, is_token
from rdservice.services import Services
from rdservice.tokens import jwt_claims, store
from rdservice.tokens.store import DEFAULT_ACCOUNT, AccountState

# What can be wrong with a field. The page of the form has its own words for these.
MISSING = "%(field)s is missing."
TOKEN_LENGTH = "%(field)s is longer than %(most)s characters."  # noqa: S105 - a sentence
TOKEN_CHARACTERS = (
    "%(field)s contains characters that are not allowed in a token (spaces, line breaks or non-ASCII)."  # noqa: S105
)
LIFETIME = "%(field)s must be a whole number of seconds from 1 to %(most)s."


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A pair as a program sends it. With `verify` false it is stored without asking RD Station."""

    account_id: str
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in_s: int
    verify: bool


def parse_upload(body: object, pool: Pool | None = None) -> Upload:
    """Check a decoded JSON body and return its values. With `pool`, any account that is stored there may be named.

    Raises BadRequest when `body` is not an object, and InvalidField, which names the field.
    """
    if not isinstance(body, dict):
        raise errors.BadRequest("Send a JSON object with access_token, refresh_token and expires_in.")
    verify = body.get("verify", True)
    if not isinstance(verify, bool):
        raise _invalid("verify", "%(field)s must be true or false.")
    account_id = body.get("account_id", DEFAULT_ACCOUNT)
    return Upload(
        account_id=check_new_account_id(account_id) if pool is None else check_account_id(pool, account_id),
        access_token=_token(body, "access_token"),
        refresh_token=_token(body, "refresh_token"),
        expires_in_s=_expires_in(body),
        verify=verify,
    )


def upload(services: Services, given: Upload, *, by: Author) -> tuple[AccountState, list[Notice]]:
    """Store a pair that `by` uploaded; return the account's state and warnings.

    The previous pair is kept until the new refresh token has worked. Raises TokenRefused when RD Station refuses the
    access token, and RdStationUnavailable when RD Station cannot be asked and a usable pair would be replaced.
    """
    with transaction(services.pool) as conn:
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

    with transaction(services.pool) as conn:
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


def _verify(services: Services, given: Upload, before: AccountState | None) -> tuple[str | None, bool]:
    """Ask RD Station for the token's account; return the account's name, and whether the token was verified."""
    try:
        response = services.account_calls.send_counted(
            given.account_id, lambda: services.rdstation.account_info(given.access_token)
        )
    except RdServiceError as error:
        reason = error.title
    else:
        if 200 <= response.status < 300 and (name := name_in(response.json())) is not None:
            return name, True
        if response.status == 401:
            raise errors.TokenRefused(
                "RD Station does not accept the access token. Nothing was stored; upload a current pair, or send "
                '"verify": false to store it without asking.'
            )
        reason = f"account_info responded with HTTP {response.status}"
    if before is not None and before.status != "reauthorization_required":
        raise errors.RdStationUnavailable(
            f"The access token could not be checked ({reason}), and a usable pair is stored. Nothing was replaced; "
            'try again, or send "verify": false.',
            retry_after_s=30,
        )
    return None, False


def _token(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        raise _invalid(name, MISSING)
    if not isinstance(value, str):
        raise _invalid(name, "%(field)s must be a string.")
    if not value:
        raise _invalid(name, "%(field)s is empty.")
    if len(value) > MAX_TOKEN_LENGTH:
        raise _invalid(name, TOKEN_LENGTH, most=MAX_TOKEN_LENGTH)
    if not is_token(value):
        raise _invalid(name, TOKEN_CHARACTERS)
    return value


def _expires_in(body: dict[str, Any]) -> int:
    value = body.get("expires_in")
    if value is None:
        raise _invalid("expires_in", MISSING)
    if not is_lifetime(value):
        raise _invalid("expires_in", LIFETIME, most=MAX_LIFETIME_S)
    return value


def _invalid(name: str, detail: str, **values: object) -> errors.InvalidField:
    return errors.InvalidField(detail, values={"field": name, **values}, extra={"field": name})
