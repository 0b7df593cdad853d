"""Stores tokens that a program uploads."""

from dataclasses import dataclass, field
from typing import Any

import psycopg

from rdservice import errors, notices
from rdservice.access import audit
from rdservice.access.audit import Author
from rdservice.accounts import identity
from rdservice.accounts.decide import names_for_audit, remove_replaced
from rdservice.accounts.disconnect import Removal, end_at_rdstation
from rdservice.accounts.identity import Asked, Verdict
from rdservice.accounts.ids import Pool, check_account_id, check_new_account_id
from rdservice.database.pool import transaction
from rdservice.notices import Notice
from rdservice.rdstation.token_responses import MAX_LIFETIME_S, MAX_TOKEN_LENGTH, is_lifetime, is_token
from rdservice.services import Services
from rdservice.text.catalogue import message
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
    """A pair as a program sends it. With `verify` false it is stored without asking RD Station.

    `replace_account`: it may be of another RD Station account than the one that is connected.
    """

    account_id: str
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in_s: int
    verify: bool
    replace_account: bool


def parse_upload(body: object, pool: Pool | None = None) -> Upload:
    """Check a decoded JSON body and return its values. With `pool`, any account that is stored there may be named.

    Raises BadRequest when `body` is not an object, and InvalidField, which names the field.
    """
    if not isinstance(body, dict):
        raise errors.BadRequest("Send a JSON object with access_token, refresh_token and expires_in.")
    verify = _flag(body, "verify", default=True)
    replace_account = _flag(body, "replace_account", default=False)
    if replace_account and not verify:
        raise _invalid("replace_account", '%(field)s needs the check that "verify": false leaves out.')
    account_id = body.get("account_id", DEFAULT_ACCOUNT)
    return Upload(
        account_id=check_new_account_id(account_id) if pool is None else check_account_id(pool, account_id),
        access_token=_token(body, "access_token"),
        refresh_token=_token(body, "refresh_token"),
        expires_in_s=_expires_in(body),
        verify=verify,
        replace_account=replace_account,
    )


def upload(services: Services, given: Upload, *, by: Author) -> tuple[AccountState, list[Notice]]:
    """Store a pair that `by` uploaded; return the account's state and warnings.

    The previous pair is kept until the new refresh token has worked. Raises TokenRefused when RD Station refuses the
    access token, AnotherAccount when the pair is of another RD Station account and `replace_account` is false, and
    RdStationUnavailable when RD Station cannot tell and a usable pair would be replaced.
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
    asked = identity.ask(services, given.account_id, given.access_token) if given.verify else None
    if asked is not None and asked.new.kind == "refused":
        raise errors.TokenRefused(
            "RD Station does not accept the access token. Nothing was stored; upload a current pair, or send "
            '"verify": false to store it without asking.'
        )
    if asked is not None and asked.new.name is None:
        warnings.append(notices.unverified())
    removals: list[Removal] = []
    with transaction(services.pool) as conn:
        store.lock_account(conn, given.account_id)
        if asked is None:
            _put(conn, services, given, name=None, name_due=before is not None, verified=False)
            audit.record(conn, by, "tokens_uploaded", account_id=given.account_id, verified=False)
        else:
            removals = _judge_and_put(conn, services, given, asked, by=by)
        state = store.account_state(conn, given.account_id)
    if state is None:
        raise RuntimeError("the row that was just written is not there")
    services.memory.forget(given.account_id)
    for removal in removals:
        warnings += end_at_rdstation(services, removal).warnings
    return state, warnings + notices.same_account(state.same_account)


def _judge_and_put(
    conn: psycopg.Connection[Any], services: Services, given: Upload, asked: Asked, *, by: Author
) -> list[Removal]:
    """Store the pair if it may be; return the account that it has replaced, if any."""
    judgement = identity.judge_locked(
        conn,
        given.account_id,
        asked,
        confirmed=asked.connection_id if given.replace_account else None,
    )
    if judgement.verdict is Verdict.ANOTHER:
        raise errors.AnotherAccount(
            message(
                "The tokens belong to the RD Station account '%(name)s', but '%(account)s' is connected to '%(was)s'."
                ' Nothing was stored. Upload them under another account_id, or send "replace_account": true to'
                " disconnect '%(was)s' and delete its lead events here."
            ),
            values={"name": asked.new.name, "account": given.account_id, "was": judgement.was},
        )
    if judgement.verdict is Verdict.UNKNOWN:
        raise errors.RdStationUnavailable(
            f"RD Station does not tell whose the tokens are ({asked.new.error or 'no name'}), and a usable pair is"
            ' stored. Nothing was replaced; try again, or send "verify": false.',
            retry_after_s=30,
        )
    replaced = judgement.verdict is Verdict.REPLACE
    removals = remove_replaced(conn, given.account_id, asked, by=by) if replaced else []
    untold = judgement.verdict is Verdict.UNTOLD
    verified = asked.new.name is not None and not untold
    audit.record(
        conn,
        by,
        "tokens_uploaded",
        account_id=given.account_id,
        verified=verified,
        **names_for_audit(asked, judgement),
    )
    _put(conn, services, given, name=asked.new.name, name_due=untold, verified=verified)
    return removals


def _put(
    conn: psycopg.Connection[Any],
    services: Services,
    given: Upload,
    *,
    name: str | None,
    name_due: bool,
    verified: bool,
) -> None:
    store.authorize(
        conn,
        services.keys,
        given.account_id,
        access_token=given.access_token,
        refresh_token=given.refresh_token,
        expires_in_s=given.expires_in_s,
        name=name,
        name_due=name_due,
        verified=verified,
        proven=False,
    )


def _flag(body: dict[str, Any], name: str, *, default: bool) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise _invalid(name, "%(field)s must be true or false.")
    return value


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
