"""Reads, authorizes, lists and removes rows of `rdstation_tokens`."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import class_row, dict_row

from rdservice.encryption import KeyMissing, KeyRing, ValueDamaged
from rdservice.tokens import jwt_claims
from rdservice.tokens.leases import REFRESH_AT_SHARE, REFRESH_SPREAD, REFUSED_WAIT_S

DEFAULT_ACCOUNT = "default"

Status = Literal["connected", "unverified", "credentials_refused", "reauthorization_required", "expired"]

READ = """
SELECT account_id, access_token, issued_at, expires_at, status, connection_id, authorization_id, stored_claim,
       cache_epoch, last_error,
       EXTRACT(epoch FROM expires_at - rd_now())::float8 AS life_left_s,
       GREATEST(EXTRACT(epoch FROM CASE WHEN status = 'reauthorization_required'
                                        THEN attempted_at + make_interval(secs => %(refused_s)s) ELSE retry_at END
                                   - rd_now()), 0)::float8 AS retry_in_s,
       COALESCE(leased_until > rd_now(), false) AS leased
  FROM rdstation_tokens WHERE account_id = %(account_id)s
"""
BEGUN_WITH = "begun with"
"""The purpose of the keyed hashes of the column `begun_with`."""
# A row lock cannot hold back a transaction that inserts the row.
LOCK_ACCOUNT = "SELECT pg_advisory_xact_lock(%(space)s, hashtext(%(account_id)s))"
LOCK_SPACE = 0x5244_5441
"""First key of the advisory locks of accounts ("RDTA" in ASCII)."""
LOCK_PREVIOUS = """
SELECT 1 FROM rdstation_tokens WHERE account_id = %(account_id)s
   FOR UPDATE
"""
READ_PAIRS = """
SELECT access_token, refresh_token, authorization_id, begun_with, true AS current
  FROM rdstation_tokens WHERE account_id = %(account_id)s
UNION ALL
SELECT access_token, refresh_token, authorization_id, begun_with, false
  FROM rdstation_replaced_tokens WHERE account_id = %(account_id)s
"""
# An uploaded refresh token is unproven until it has worked once; the pair that it replaces is kept until then. A pair
# that was itself never proven does not displace the kept one, except one that RD Station has refused: then the row's
# pair is the one that was kept before. A refused pair is kept too, since a refusal may be wrong.
KEEP_REPLACED = """
INSERT INTO rdstation_replaced_tokens AS kept (
    account_id, access_token, refresh_token, issued_at, expires_at, name, name_due, connection_id, authorization_id,
    stored_claim, begun_with, refusal, replaced_at)
SELECT account_id, access_token, refresh_token, issued_at, expires_at, name, name_due, connection_id, authorization_id,
       stored_claim, begun_with, CASE WHEN status = 'reauthorization_required' THEN COALESCE(last_error, 'revoked') END,
       rd_now()
  FROM rdstation_tokens
 WHERE account_id = %(account_id)s AND COALESCE(last_error, '') NOT IN ('damaged', 'no_refresh_token')
ON CONFLICT (account_id) DO UPDATE
   SET access_token = EXCLUDED.access_token, refresh_token = EXCLUDED.refresh_token, issued_at = EXCLUDED.issued_at,
       expires_at = EXCLUDED.expires_at, name = EXCLUDED.name, name_due = EXCLUDED.name_due,
       connection_id = EXCLUDED.connection_id, authorization_id = EXCLUDED.authorization_id,
       stored_claim = EXCLUDED.stored_claim,
       begun_with = EXCLUDED.begun_with, refusal = EXCLUDED.refusal, replaced_at = EXCLUDED.replaced_at
 WHERE kept.refusal IS NOT NULL AND EXCLUDED.refusal IS NULL
"""
DROP_REPLACED = "DELETE FROM rdstation_replaced_tokens WHERE account_id = %(account_id)s"
# The connection is as old as the row: it ends with `remove`.
AUTHORIZE = """
INSERT INTO rdstation_tokens AS t (account_id, access_token, refresh_token, issued_at, expires_at, status, name,
                                   name_due, authorization_id, begun_with, refresh_after, refreshed_at,
                                   created_at, updated_at)
VALUES (%(account_id)s, %(access_token)s, %(refresh_token)s, %(issued_at)s, %(expires_at)s, %(status)s, %(name)s,
        %(name_due)s, %(authorization_id)s, %(begun_with)s,
        CASE WHEN %(proven)s THEN %(issued_at)s
            + (%(expires_at)s - %(issued_at)s) * (%(share)s - %(spread)s * random()) ELSE rd_now() END,
        CASE WHEN %(proven)s THEN rd_now() END, rd_now(), rd_now())
ON CONFLICT (account_id) DO UPDATE
   SET access_token = EXCLUDED.access_token, refresh_token = EXCLUDED.refresh_token, issued_at = EXCLUDED.issued_at,
       expires_at = EXCLUDED.expires_at, status = EXCLUDED.status, name = COALESCE(EXCLUDED.name, t.name),
       name_due = EXCLUDED.name_due, ask_name_at = NULL, cache_epoch = t.cache_epoch + 1,
       authorization_id = EXCLUDED.authorization_id, begun_with = EXCLUDED.begun_with,
       refresh_after = EXCLUDED.refresh_after, refreshed_at = COALESCE(EXCLUDED.refreshed_at, t.refreshed_at),
       retry_at = NULL, undecryptable_until = NULL, holder = NULL, leased_until = NULL, failures = 0, refusals = 0,
       refused_since = NULL, second_look_at = NULL, second_looks = 0, last_error = NULL, updated_at = rd_now()
RETURNING refresh_after
"""
SAME_NAME = """ARRAY(SELECT other.account_id FROM rdstation_tokens other
              WHERE other.name = t.name AND other.account_id <> t.account_id
              ORDER BY other.account_id LIMIT 10)"""
# Where a name is not known, the rows may be connected to the same RD Station account.
MAYBE_SAME = """CASE WHEN t.name IS NULL OR t.name_due
            THEN ARRAY(SELECT other.account_id FROM rdstation_tokens other
                        WHERE other.account_id <> t.account_id AND COALESCE(other.name <> t.name, true) LIMIT 10)
            ELSE ARRAY(SELECT other.account_id FROM rdstation_tokens other
                        WHERE (other.name IS NULL OR other.name_due) AND other.account_id <> t.account_id
                          AND COALESCE(other.name <> t.name, true) LIMIT 10) END"""
REMOVE = f"""
DELETE FROM rdstation_tokens t WHERE account_id = %(account_id)s
RETURNING access_token, name, {SAME_NAME} AS used_by, {MAYBE_SAME} AS maybe_used_by
"""  # noqa: S608 - only texts of this module
OTHERS = f"""
SELECT {SAME_NAME} AS used_by, {MAYBE_SAME} AS maybe_used_by FROM rdstation_tokens t WHERE account_id = %(account_id)s
"""  # noqa: S608 - only texts of this module
# FOR UPDATE, not FOR NO KEY UPDATE: this also blocks inserts of rows that refer to these, such as cached responses.
LOCK_NEXT = """
SELECT account_id FROM rdstation_tokens
 WHERE account_id > %(after)s ORDER BY account_id LIMIT %(limit)s
   FOR UPDATE
"""
RAISE_CACHE_EPOCHS = """
UPDATE rdstation_tokens SET cache_epoch = cache_epoch + 1 WHERE account_id = ANY (%(accounts)s)
"""
LIST = f"""
SELECT t.account_id, t.name, {SAME_NAME} AS same_account,
       t.expires_at, t.refresh_after, t.due_at, t.retry_at, t.last_error, t.attempted_at,
       CASE WHEN t.status = 'reauthorization_required' THEN t.second_look_at END AS second_look_at,
       t.refreshed_at, t.failures, rd_now() AS now,
       CASE WHEN t.status = 'connected' AND t.expires_at <= rd_now() THEN 'expired' ELSE t.status END AS status,
       EXISTS (SELECT FROM rdstation_replaced_tokens r WHERE r.account_id = t.account_id) AS has_replaced
  FROM rdstation_tokens t
"""  # noqa: S608 - only texts of this module
LIST_ALL = LIST + " ORDER BY t.account_id LIMIT %(limit)s"
LIST_ONE = LIST + " WHERE t.account_id = %(account_id)s"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredToken:
    """An account's access token as read from its row. Durations count from the database's clock at that moment."""

    account_id: str
    access_token: str = field(repr=False)
    issued_at: datetime
    expires_at: datetime
    status: Status
    connection_id: UUID
    authorization_id: UUID
    stored_claim: int
    """The fencing token of the lease whose response is stored; 0 or older than the authorization if none is."""
    cache_epoch: int
    last_error: str | None
    life_left_s: float
    """Seconds until the token expires; negative when expired."""
    retry_in_s: float
    """Seconds until an operator may try again; 0 without a back-off."""
    leased: bool

    @property
    def lifetime_s(self) -> float:
        return (self.expires_at - self.issued_at).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountState:
    """The state of an account, without tokens, for operators and programs."""

    account_id: str
    name: str | None = field(repr=False)
    same_account: list[str]
    """Up to ten other account IDs that are connected to the same RD Station account, as far as its name tells."""
    status: Status
    expires_at: datetime
    refresh_after: datetime
    due_at: datetime
    """When the next refresh may begin: the latest of `refresh_after`, the end of a back-off and the end of a lease."""
    retry_at: datetime | None
    second_look_at: datetime | None
    """When a refused refresh token is tried again; None if it was not refused, or is no longer tried."""
    last_error: str | None
    attempted_at: datetime | None
    refreshed_at: datetime | None
    failures: int
    now: datetime
    """The database's clock."""
    has_replaced: bool
    """Whether the pair that an upload replaced is still stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """Up to ten other account IDs that use the same RD Station account, and up to ten that may: a name is not known.

    RD Station may end the tokens of all of them when one is revoked.
    """

    used_by: list[str]
    maybe_used_by: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed(Others):
    """A deleted row: its encrypted access token, and the name of its RD Station account."""

    access_token: str = field(repr=False)
    name: str | None = field(repr=False)


def read_token(conn: psycopg.Connection[Any], keys: KeyRing, account_id: str) -> StoredToken | None:
    """Return the account's token, decrypted, or None without a row. Raises KeyMissing or ValueDamaged."""
    with conn.cursor(row_factory=dict_row) as cur:
        row = cur.execute(READ, {"account_id": account_id, "refused_s": REFUSED_WAIT_S}).fetchone()
    if row is None:
        return None
    row["access_token"] = keys.decrypt("access_token", account_id, row["access_token"])
    return StoredToken(**row)


def list_accounts(conn: psycopg.Connection[Any], *, limit: int = 500) -> list[AccountState]:
    """Return the states of up to `limit` accounts, ordered by account ID."""
    with conn.cursor(row_factory=class_row(AccountState)) as cur:
        return cur.execute(LIST_ALL.encode(), {"limit": limit}).fetchall()


def account_state(conn: psycopg.Connection[Any], account_id: str) -> AccountState | None:
    """Return the state of one account, or None without a row."""
    with conn.cursor(row_factory=class_row(AccountState)) as cur:
        return cur.execute(LIST_ONE.encode(), {"account_id": account_id}).fetchone()


def others(conn: psycopg.Connection[Any], account_id: str) -> Others:
    """Return which other accounts here use, or may use, the RD Station account of this one."""
    with conn.cursor(row_factory=class_row(Others)) as cur:
        found = cur.execute(OTHERS.encode(), {"account_id": account_id}).fetchone()
    return found or Others(used_by=[], maybe_used_by=[])


def holds_pair(
    conn: psycopg.Connection[Any], keys: KeyRing, account_id: str, access_token: str, refresh_token: str
) -> bool:
    """Return whether the account needs no upload of this pair.

    That is so if the row holds exactly this pair, or if an authorization of the account began with this refresh token
    and has another one now: then the token was used up here. False when the stored pair cannot be decrypted.
    """
    with conn.cursor(row_factory=dict_row) as cur:
        pairs = cur.execute(READ_PAIRS, {"account_id": account_id}).fetchall()
    return any(_needs_no_upload(keys, account_id, pair, access_token, refresh_token) for pair in pairs)


def _needs_no_upload(
    keys: KeyRing, account_id: str, pair: Mapping[str, Any], access_token: str, refresh_token: str
) -> bool:
    try:
        stored_access = keys.decrypt("access_token", account_id, pair["access_token"])
        stored_refresh = keys.decrypt("refresh_token", account_id, pair["refresh_token"])
    except (KeyMissing, ValueDamaged):
        return False
    if hmac.compare_digest(stored_refresh.encode(), refresh_token.encode()):
        return pair["current"] and hmac.compare_digest(stored_access.encode(), access_token.encode())
    return pair["begun_with"] is not None and keys.matches(
        BEGUN_WITH, pair["begun_with"], _beginning(pair["authorization_id"], refresh_token)
    )


def _beginning(authorization_id: UUID, refresh_token: str) -> str:
    """Return what `begun_with` is the hash of. An earlier version replaces the authorization and leaves the hash."""
    return f"{authorization_id} {refresh_token}"


def lock_account(conn: psycopg.Connection[Any], account_id: str) -> None:
    """Serialize transactions that may insert the account's row. Call this before any other lock on the account."""
    conn.execute(LOCK_ACCOUNT, {"space": LOCK_SPACE, "account_id": account_id})


def authorize(
    conn: psycopg.Connection[Any],
    keys: KeyRing,
    account_id: str,
    *,
    access_token: str,
    refresh_token: str,
    expires_in_s: int,
    age_s: float = 0.0,
    name: str | None = None,
    name_due: bool = False,
    verified: bool,
    proven: bool,
) -> None:
    """Write a new authorization to the account's row, replacing the old one and any lease of it.

    The connection stays the same; to connect another RD Station account, remove the row first. `age_s`: upper
    bound of the age of the access token, in seconds. `name`: the name of the RD Station account; None: the row keeps
    the name that it has. `name_due`: it is not known that the tokens belong to the row's connection. `verified`:
    whether RD Station has accepted the access token; if not, the status becomes `unverified`. `proven`: whether the
    refresh token comes straight from RD Station; if not, the row is due immediately, and the old pair is kept until the
    refresh token has worked. An unproven pair that the account holds already, or whose refresh token was used up here,
    changes nothing.
    """
    values: dict[str, Any] = {"account_id": account_id}
    lock_account(conn, account_id)
    conn.execute(LOCK_PREVIOUS, values)
    if not proven and holds_pair(conn, keys, account_id, access_token, refresh_token):
        return
    clock = conn.execute("SELECT rd_now()").fetchone()
    if clock is None:
        raise RuntimeError("SELECT without FROM returned no row")
    issued_at = clock[0] - timedelta(seconds=age_s)
    authorization_id = uuid4()
    conn.execute(DROP_REPLACED if proven else KEEP_REPLACED, values)
    expires_at = jwt_claims.expiry(access_token, issued_at=issued_at, expires_in_s=expires_in_s)
    conn.execute(
        AUTHORIZE,
        {
            "account_id": account_id,
            "access_token": keys.encrypt("access_token", account_id, access_token),
            "refresh_token": keys.encrypt("refresh_token", account_id, refresh_token),
            "issued_at": issued_at,
            "expires_at": expires_at,
            "status": "connected" if verified else "unverified",
            "name": name,
            "name_due": name_due,
            "authorization_id": authorization_id,
            "begun_with": keys.keyed_hashes(BEGUN_WITH, _beginning(authorization_id, refresh_token))[0],
            "proven": proven,
            "share": REFRESH_AT_SHARE,
            "spread": REFRESH_SPREAD,
        },
    )


def lock_next(conn: psycopg.Connection[Any], *, after: str, limit: int) -> list[str]:
    """Lock the rows of up to `limit` accounts after `after`, in the order of their IDs; return the IDs."""
    rows = conn.execute(LOCK_NEXT, {"after": after, "limit": limit})
    return [account_id for (account_id,) in rows]


def raise_cache_epochs(conn: psycopg.Connection[Any], accounts: Sequence[str]) -> None:
    """Invalidate everything cached for these accounts; fetches under way can no longer store their responses."""
    conn.execute(RAISE_CACHE_EPOCHS, {"accounts": list(accounts)})


def remove(conn: psycopg.Connection[Any], account_id: str) -> Removed | None:
    """Delete the account's row and all rows that refer to it; None without a row."""
    with conn.cursor(row_factory=class_row(Removed)) as cur:
        return cur.execute(REMOVE.encode(), {"account_id": account_id}).fetchone()
