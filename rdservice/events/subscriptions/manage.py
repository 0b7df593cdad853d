"""Creates and deletes an account's subscriptions at RD Station. Safe to repeat and to run twice at once.

A new secret is valid before RD Station gets it, and the old one stays valid until RD Station has the new one, so no
delivery is refused in between. If a process is killed in the middle, the next run finds its subscriptions at RD Station
and corrects them.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psycopg

from rdservice import errors, notices
from rdservice.access import audit
from rdservice.access.audit import Author
from rdservice.config.reader import LOCAL_HOSTS
from rdservice.config.settings import Settings
from rdservice.database.pool import transaction, write_for_sure
from rdservice.errors import RdServiceError, ReauthorizationRequired
from rdservice.events.payloads import EVENT_TYPES, EventType
from rdservice.events.subscriptions import store
from rdservice.events.subscriptions.remote import Hook, Remote
from rdservice.notices import Notice
from rdservice.services import Services
from rdservice.text.catalogue import message

log = logging.getLogger(__name__)

STORE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """The result: whether anything has changed, and warnings for the caller."""

    changed: bool
    warnings: list[Notice] = field(repr=False)


def subscribe(services: Services, account_id: str, *, by: Author) -> Changed:
    """Subscribe to both types of the account's lead events, at one address.

    Raises NotConnected, ReauthorizationRequired, TooManyRequests (another process is subscribing, or the rate budget is
    used up), RdStationFailed, RdStationUnavailable or RdStationTimeout. Nothing has changed then.
    """
    services.access_tokens.stored(account_id)
    warnings = [notices.address_is_local()] if _is_out_of_reach(services.settings) else []
    remote = Remote.of(services, account_id)
    ours = _ours(services, account_id, remote.list())
    secret_hash = _in_force(services, account_id, ours)
    changed = secret_hash is None
    if secret_hash is None:
        secret_hash = _begin(services, account_id, remote, by)
    warnings += _remove(remote, [hook for hook in ours if hook.secret_hash != secret_hash])
    return Changed(changed=changed, warnings=warnings)


def unsubscribe(services: Services, account_id: str, *, by: Author) -> Changed:
    """Delete the account's subscriptions.

    Raises what `subscribe` does, and the deliveries then continue. If the account must be authorized again, the
    subscriptions can be deleted only here: deliveries are then refused, and a warning says so.
    """
    services.access_tokens.stored(account_id)
    remote = Remote.of(services, account_id)
    ours: list[Hook] = []
    warnings: list[Notice] = []
    try:
        ours = _ours(services, account_id, remote.list())
        for hook in ours:
            remote.delete(hook.uuid)
    except ReauthorizationRequired as error:
        warnings.append(notices.subscriptions_left(error.title))

    def drop(conn: psycopg.Connection[Any]) -> bool:
        changed = bool(store.drop_all(conn, account_id) or ours)
        if changed:
            audit.record(conn, by, "events_unsubscribed", account_id=account_id)
        return changed

    return Changed(changed=_write(services, drop), warnings=warnings)


def remove_with_token(services: Services, access_token: str, hashes: Iterable[bytes]) -> list[Notice]:
    """Delete the subscriptions of an account that was disconnected, with its last access token.

    `hashes` are those of the account's secrets. Returns warnings; never raises RdServiceError.
    """
    wanted = set(hashes)
    if not wanted:
        return []
    remote = Remote.with_token(services, access_token)
    try:
        return _remove(remote, [hook for hook in remote.list() if hook.secret_hash in wanted])
    except RdServiceError as error:
        return [notices.subscriptions_left(error.title)]


def _ours(services: Services, account_id: str, found: list[Hook]) -> list[Hook]:
    """Return the subscriptions that belong to this account or to none here, but not those of another account ID."""
    with transaction(services.pool) as conn:
        owners = store.owners(conn, [hook.secret_hash for hook in found])
    return [hook for hook in found if owners.get(hook.secret_hash, account_id) == account_id]


def _in_force(services: Services, account_id: str, ours: list[Hook]) -> bytes | None:
    """Return the hash of the secret at whose address RD Station delivers both types, or None without one."""
    with transaction(services.pool) as conn:
        for row in store.list_all(conn, account_id):
            subscribed = {
                hook.event_type: hook.uuid
                for hook in ours
                if hook.secret_hash == row.secret_hash and hook.event_type is not None
            }
            if row.current and subscribed.keys() == set(EVENT_TYPES):
                store.complete(conn, account_id, row.secret_hash, subscribed)
                return row.secret_hash
    return None


def _begin(services: Services, account_id: str, remote: Remote, by: Author) -> bytes:
    """Create both subscriptions with a new secret; return its hash."""
    with transaction(services.pool) as conn:
        secret = store.begin(conn, account_id)
    if secret is None:
        raise errors.TooManyRequests(
            message("The account's subscriptions are already being created. Check again in a moment."),
            retry_after_s=30,
        )
    subscribed: dict[EventType, str] = {}
    try:
        for event_type in EVENT_TYPES:
            subscribed[event_type] = remote.create(secret, event_type)
    except BaseException:
        # Delete the subscriptions before the secret: no delivery of a remaining subscription must be refused.
        _undo(services, remote, secret, subscribed.values())
        raise

    def complete(conn: psycopg.Connection[Any]) -> bool:
        completed = store.complete(conn, account_id, store.hash_of(secret), subscribed)
        if completed:
            audit.record(conn, by, "events_subscribed", account_id=account_id)
        return completed

    if not _write(services, complete):
        _undo(services, remote, secret, subscribed.values())
        raise errors.TooManyRequests(
            message("Another operator or program ended the subscriptions in the meantime."), retry_after_s=1
        )
    return store.hash_of(secret)


def _write(services: Services, change: Callable[[psycopg.Connection[Any]], bool]) -> bool:
    """Write down what RD Station has done already: it must not look as if it had failed when the database restarts."""
    return write_for_sure(
        services.pool, change, give_up=services.refresher.must_end, timeout_s=STORE_TIMEOUT_S
    )


def _undo(services: Services, remote: Remote, secret: str, made: Iterable[str]) -> None:
    for uuid in made:
        try:
            remote.delete(uuid)
        except RdServiceError as error:
            log.warning("a subscription is left at RD Station, the next attempt removes it (%s)", error.code)
    with transaction(services.pool) as conn:
        store.drop(conn, secret)


def _remove(remote: Remote, hooks: list[Hook]) -> list[Notice]:
    """Delete subscriptions until the first failure; return a warning about it, if any."""
    try:
        for hook in hooks:
            remote.delete(hook.uuid)
    except RdServiceError as error:
        log.warning("a subscription is left at RD Station (%s)", error.code)
        return [notices.subscriptions_left(error.title)]
    return []


def _is_out_of_reach(settings: Settings) -> bool:
    """Return whether RD Station cannot reach the address: it is local, and RD Station is not."""
    here, there = urlsplit(settings.public_origin).hostname, urlsplit(settings.api_url).hostname
    return here in LOCAL_HOSTS and there not in LOCAL_HOSTS
