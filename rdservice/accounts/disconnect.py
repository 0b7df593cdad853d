"""Disconnects an account: removes its tokens here at once, and revokes them at RD Station if possible."""

import logging
from dataclasses import dataclass, field
from typing import Any

import psycopg

from rdservice import errors, notices
from rdservice.access import audit
from rdservice.access.audit import Author
from rdservice.account_calls.failures import call_once
from rdservice.database.pool import transaction
from rdservice.encryption import KeyMissing, ValueDamaged
from rdservice.errors import RdServiceError
from rdservice.events.subscriptions import store as subscriptions
from rdservice.events.subscriptions.manage import remove_with_token
from rdservice.notices import Notice
from rdservice.services import Services
from rdservice.text.catalogue import message
from rdservice.tokens import store

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Disconnected:
    """The result of `disconnect`. `revoked`: RD Station confirmed the revocation of the tokens."""

    revoked: bool
    warnings: list[Notice]


@dataclass(frozen=True, kw_only=True)
class Removal:
    """An account that was removed here and still exists at RD Station."""

    account_id: str
    row: store.Removed = field(repr=False)
    delivered_to: list[bytes] = field(repr=False)
    """Hashes of the secrets of its subscriptions."""


def disconnect(services: Services, account_id: str, *, by: Author) -> Disconnected:
    """Remove the account's tokens here, then end its subscriptions and revoke its tokens at RD Station.

    Raises NotFound when the account is not connected. What fails at RD Station becomes a warning; the local removal
    stands.
    """
    with transaction(services.pool) as conn:
        removal = remove(conn, account_id, by=by)
    services.memory.forget(account_id)
    if removal is None:
        raise errors.NotFound(
            message("No account '%(account)s' is connected."), values={"account": account_id}
        )
    return end_at_rdstation(services, removal)


def remove(conn: psycopg.Connection[Any], account_id: str, *, by: Author, **details: str) -> Removal | None:
    """Remove the account with everything that belongs to it, in the caller's transaction; None without a row.

    `details` go into the audit. Call `end_at_rdstation` after the commit.
    """
    delivered_to = [row.secret_hash for row in subscriptions.list_all(conn, account_id)]
    removed = store.remove(conn, account_id)
    if removed is None:
        return None
    if removed.name is not None:
        details["name"] = removed.name
    audit.record(conn, by, "account_disconnected", account_id=account_id, **details)
    return Removal(account_id=account_id, row=removed, delivered_to=delivered_to)


def end_at_rdstation(services: Services, removal: Removal) -> Disconnected:
    """End the subscriptions of a removed account, and revoke its tokens unless another account here may use them."""
    kept = [
        *notices.kept_for_others(removal.row.used_by),
        *notices.kept_to_be_safe(removal.row.maybe_used_by),
    ]
    try:
        access_token = services.keys.decrypt("access_token", removal.account_id, removal.row.access_token)
    except (KeyMissing, ValueDamaged) as error:
        return _not_revoked([*kept] or [notices.not_revoked(str(error))])
    # Before the revocation, while RD Station still accepts the token.
    warnings = remove_with_token(services, access_token, removal.delivered_to)
    if kept:
        return _not_revoked([*warnings, *kept])
    reason = _revoke(services, access_token)
    if not reason:
        return Disconnected(revoked=True, warnings=warnings)
    return _not_revoked([*warnings, notices.not_revoked(reason)])


def _revoke(services: Services, access_token: str) -> str:
    """Revoke the token at RD Station (RFC 7009). Return the reason of a failure; an empty string means success."""
    try:
        response = call_once(lambda: services.rdstation.revoke(access_token))
    except RdServiceError as error:
        return error.title
    return "" if 200 <= response.status < 300 else f"HTTP {response.status}"


def _not_revoked(warnings: list[Notice]) -> Disconnected:
    log.warning("an account was disconnected but not revoked at RD Station (%s)", warnings[-1].code)
    return Disconnected(revoked=False, warnings=warnings)
