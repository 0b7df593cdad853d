"""Disconnects an account: removes its tokens here at once, and revokes them at RD Station if possible."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

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


def disconnect(services: Services, account_id: str, *, by: Author) -> Disconnected:
    """Remove the account's tokens here, then end its subscriptions and revoke its tokens at RD Station.

    Raises NotFound when the account is not connected. What fails at RD Station becomes a warning; the local removal
    stands.
    """
    with transaction(services.pool) as conn:
        delivered_to = [row.secret_hash for row in subscriptions.list_all(conn, account_id)]
        removed = store.remove(conn, account_id)
        if removed is not None:
            audit.record(conn, by, "account_disconnected", account_id=account_id)
    services.memory.forget(account_id)
    if removed is None:
        raise errors.NotFound(
            message("No account '%(account)s' is connected."), values={"account": account_id}
        )
    try:
        access_token = services.keys.decrypt("access_token", account_id, removed.access_token)
    except (KeyMissing, ValueDamaged) as error:
        return _not_revoked(str(error))
    # Before the revocation, while RD Station still accepts the token.
    warnings = remove_with_token(services, access_token, delivered_to)
    reason = message("another account here is connected to the same RD Station account")
    if not removed.shared:
        reason = _revoke(services, access_token)
    if not reason:
        return Disconnected(revoked=True, warnings=warnings)
    return _not_revoked(reason, warnings)


def _revoke(services: Services, access_token: str) -> str:
    """Revoke the token at RD Station (RFC 7009). Return the reason of a failure; an empty string means success."""
    try:
        response = call_once(lambda: services.rdstation.revoke(access_token))
    except RdServiceError as error:
        return error.title
    return "" if 200 <= response.status < 300 else f"HTTP {response.status}"


def _not_revoked(reason: str, warnings: Sequence[Notice] = ()) -> Disconnected:
    log.warning("an account was disconnected but not revoked at RD Station: %s", reason)
    return Disconnected(revoked=False, warnings=[*warnings, notices.not_revoked(reason)])
