"""Gives an account another id, such as one that fits into a URL's path. Nothing else does so.

All rows that belong to the account move in one transaction, those of other packages' tables too: their foreign keys are
checked at the end of a statement, so one statement changes the id everywhere.
"""

import threading
import time
from typing import Any, NamedTuple

import psycopg

from rdservice import errors
from rdservice.access import audit
from rdservice.access.audit import Author
from rdservice.accounts import waiting_pairs
from rdservice.accounts.ids import check_new_account_id
from rdservice.database.pool import transaction
from rdservice.encryption import KeyMissing, KeyRing, ValueDamaged
from rdservice.events.renaming import rewrite_events
from rdservice.events.store import Hashes
from rdservice.services import Services
from rdservice.text.catalogue import message

WAIT_S = 90.0
"""How long to wait for a refresh under way: longer than a lease."""
POLL_S = 0.5
UNKNOWN_MINUTES = 10
"""How long a process may still have the response of a refresh without an outcome, to store it under the old id."""

PATIENCE = "SET LOCAL statement_timeout = '120s'"
# FOR UPDATE also blocks inserts of rows that refer to this one. `busy`: a refresh would store its response under the id
# with which it began; not finding that, it would take the account for disconnected.
LOCK = """
SELECT t.access_token, t.refresh_token,
       COALESCE(t.leased_until > rd_now(), false) OR EXISTS (
           SELECT FROM rdstation_refresh_attempts a
            WHERE a.account_id = t.account_id AND a.outcome IS NULL
              AND a.started_at > rd_now() - make_interval(mins => %(minutes)s))
  FROM rdstation_tokens t WHERE t.account_id = %(old)s
   FOR UPDATE OF t
"""
IS_TAKEN = "SELECT EXISTS (SELECT FROM rdstation_tokens WHERE account_id = %(new)s)"
KEPT = """
SELECT access_token, refresh_token FROM rdstation_replaced_tokens WHERE account_id = %(old)s FOR UPDATE
"""
# What an earlier account with the new id has left. Its attempts stay: they are told apart by their authorizations.
CLEAR = (
    "DELETE FROM rdstation_rate_limits WHERE budget = %(new)s",
    "DELETE FROM rdstation_oauth_states WHERE account_id = %(new)s",
    """
    UPDATE rdservice_incidents SET closed_at = rd_now(), ending = 'gone'
     WHERE account_id = %(new)s AND closed_at IS NULL
    """,
)
MOVE = """
WITH cache AS (DELETE FROM rdstation_cache WHERE account_id = %(old)s),
kept AS (
    UPDATE rdstation_replaced_tokens
       SET account_id = %(new)s, access_token = %(kept_access)s, refresh_token = %(kept_refresh)s
     WHERE account_id = %(old)s),
attempts AS (UPDATE rdstation_refresh_attempts SET account_id = %(new)s WHERE account_id = %(old)s),
states AS (UPDATE rdstation_oauth_states SET account_id = %(new)s WHERE account_id = %(old)s),
limits AS (UPDATE rdstation_rate_limits SET budget = %(new)s WHERE budget = %(old)s),
events AS (UPDATE rdservice_events SET account_id = %(new)s WHERE account_id = %(old)s),
subscriptions AS (UPDATE rdservice_subscriptions SET account_id = %(new)s WHERE account_id = %(old)s),
incidents AS (UPDATE rdservice_incidents SET account_id = %(new)s WHERE account_id = %(old)s)
UPDATE rdstation_tokens
   SET account_id = %(new)s, access_token = %(access)s, refresh_token = %(refresh)s, updated_at = rd_now()
 WHERE account_id = %(old)s
"""


class _Pair(NamedTuple):
    access: str
    refresh: str

    def bound_to(self, keys: KeyRing, old: str, new: str) -> "_Pair":
        """Return the encrypted pair of the id `old` encrypted for `new`. Raises KeyMissing or ValueDamaged."""
        return _Pair(
            keys.encrypt("access_token", new, keys.decrypt("access_token", old, self.access)),
            keys.encrypt("refresh_token", new, keys.decrypt("refresh_token", old, self.refresh)),
        )


def rename(services: Services, old: str, new: str, *, by: Author, wait_s: float = WAIT_S) -> None:
    """Give the account `old` the id `new`, which must be one for new accounts. Programs must use it from then on.

    Waits up to `wait_s` seconds for a refresh under way. Cached responses are dropped; audit entries keep the old id.
    Raises InvalidField, NotFound, TooManyRequests (a refresh is under way) or TokenUnreadable; nothing has changed
    then.
    """
    check_new_account_id(new)
    deadline = time.monotonic() + wait_s
    while not _renamed(services, old, new, by):
        if time.monotonic() > deadline:
            raise errors.TooManyRequests(
                message(
                    "The tokens of '%(account)s' are being refreshed, or a refresh ended without an outcome. Nothing"
                    " was changed. Try again in ten minutes."
                ),
                values={"account": old},
                retry_after_s=60 * UNKNOWN_MINUTES,
            )
        threading.Event().wait(POLL_S)
    services.memory.forget(old)


def _renamed(services: Services, old: str, new: str, by: Author) -> bool:
    """Rename the account in one transaction; return False while a refresh is under way."""
    ids = {"old": old, "new": new}
    try:
        with transaction(services.pool) as conn:
            conn.execute(PATIENCE)
            found = conn.execute(LOCK, ids | {"minutes": UNKNOWN_MINUTES}).fetchone()
            if found is None:
                raise errors.NotFound(
                    message("No account '%(account)s' is connected."), values={"account": old}
                )
            if conn.execute(IS_TAKEN, ids).fetchone() == (True,):
                raise _taken(new)
            access, refresh, busy = found
            if busy:
                return False
            _move(conn, services, _Pair(access, refresh), ids)
            audit.record(conn, by, "account_renamed", account_id=new, previous=old)
    except psycopg.errors.UniqueViolation:
        raise _taken(new) from None
    except (KeyMissing, ValueDamaged) as error:
        raise errors.TokenUnreadable(
            message("A stored value cannot be decrypted: %(reason)s. Nothing was changed."),
            values={"reason": error},
        ) from error
    return True


def _move(conn: psycopg.Connection[Any], services: Services, pair: _Pair, ids: dict[str, str]) -> None:
    """Move all rows of the account, whose row is locked. Raises KeyMissing or ValueDamaged."""
    keys, old, new = services.keys, ids["old"], ids["new"]
    pair = pair.bound_to(keys, old, new)
    kept = conn.execute(KEPT, ids).fetchone()
    kept_pair = None if kept is None else _Pair(*kept).bound_to(keys, old, new)
    for statement in CLEAR:
        conn.execute(statement.encode(), ids)
    waiting_pairs.move(conn, keys, old, new)
    rewrite_events(conn, keys, Hashes(services.settings.secret_key), old, new)
    values = {
        "access": pair.access,
        "refresh": pair.refresh,
        "kept_access": kept_pair and kept_pair.access,
        "kept_refresh": kept_pair and kept_pair.refresh,
    }
    conn.execute(MOVE, ids | values)


def _taken(new: str) -> errors.InvalidField:
    return errors.InvalidField(
        message("An account '%(account)s' exists already. Nothing was changed; choose another name."),
        values={"account": new},
        extra={"field": "account_id"},
    )
