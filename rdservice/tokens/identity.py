"""Whose tokens are these? What RD Station tells about it, and the check of tokens that were stored without it.

RD Station names an account only in `account_info`. Names are not unique and can change, and a token's `sub` may stand
for the app: so tokens are compared by the names that two access tokens are told at the same moment.
"""

import logging
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg_pool import ConnectionPool

from rdservice.database.pool import transaction
from rdservice.encryption import KeyMissing, KeyRing, ValueDamaged
from rdservice.names import account_in_logs, is_readable
from rdservice.rdstation.client import RDStation, TransportError
from rdservice.tokens.lease_sql import KEPT_LEASED_UNTIL
from rdservice.tokens.leases import LEASE_S, REFRESH_AT_SHARE

log = logging.getLogger(__name__)

LONGEST_NAME = 200
ASK_AGAIN_S = 600
ASK_NAMELESS_AGAIN_S = 86_400
"""RD Station documents no call that names an account, so it may stop to respond to `account_info`."""

UNNAMED = """
UPDATE rdstation_tokens SET ask_name_at = rd_now() + make_interval(secs => %(again_s)s)
 WHERE account_id = (
    SELECT account_id FROM rdstation_tokens
     WHERE (name IS NULL OR name_due) AND COALESCE(ask_name_at, '-infinity') <= rd_now() AND expires_at > rd_now()
     ORDER BY COALESCE(ask_name_at, '-infinity') LIMIT 1
       FOR NO KEY UPDATE SKIP LOCKED)
RETURNING account_id
"""
READ = """
SELECT t.account_id, t.name, t.name_due, t.authorization_id, t.access_token, r.access_token AS kept_access_token,
       t.expires_at - rd_now() > (t.expires_at - t.issued_at) * %(last_share)s AS can_wait
  FROM rdstation_tokens t LEFT JOIN rdstation_replaced_tokens r USING (account_id)
 WHERE account_id = %(account_id)s
"""
# Each of the following changes nothing once the row has another authorization.
UNCHANGED = "t.account_id = %(account_id)s AND t.authorization_id = %(authorization_id)s"
# The row before the kept pair: every transaction locks them in this order.
LOCK = f"SELECT 1 FROM rdstation_tokens t WHERE {UNCHANGED} FOR UPDATE"  # noqa: S608 - only texts of this module
# A refresh may have worked before: then the pair that an upload replaced is no longer needed.
CONFIRM = f"""
WITH confirmed AS (
    UPDATE rdstation_tokens t SET name = COALESCE(%(name)s, name), name_due = false, updated_at = rd_now(),
           ask_name_at = rd_now() + make_interval(secs => %(again_s)s)
     WHERE {UNCHANGED}
    RETURNING account_id, status)
DELETE FROM rdstation_replaced_tokens r USING confirmed c
 WHERE r.account_id = c.account_id AND c.status = 'connected' AND %(was_due)s
"""  # noqa: S608 - only texts of this module
# The pair is due immediately, or when the lease of an exchange that still uses it ends.
PUT_BACK = f"""
WITH kept AS (
    DELETE FROM rdstation_replaced_tokens r USING rdstation_tokens t
     WHERE r.account_id = t.account_id AND {UNCHANGED}
    RETURNING r.*)
UPDATE rdstation_tokens t
   SET access_token = kept.access_token, refresh_token = kept.refresh_token, issued_at = kept.issued_at,
       expires_at = kept.expires_at, name = kept.name, name_due = kept.name_due, connection_id = kept.connection_id,
       authorization_id = kept.authorization_id, stored_claim = kept.stored_claim, begun_with = kept.begun_with,
       status = CASE WHEN kept.refusal IS NULL THEN 'connected' ELSE 'reauthorization_required' END,
       last_error = COALESCE(kept.refusal, 'another_account'), failures = 0, refusals = 0, refused_since = NULL,
       second_look_at = CASE WHEN kept.refusal IS NOT NULL THEN rd_now() END, second_looks = 0,
       refresh_after = rd_now(), retry_at = NULL, undecryptable_until = NULL, holder = NULL,
       cache_epoch = cache_epoch + 1, updated_at = rd_now(),
       leased_until = {KEPT_LEASED_UNTIL}
  FROM kept WHERE t.account_id = kept.account_id
RETURNING 1
"""  # noqa: S608 - only texts of this module
FORGET_PAIR = f"""
UPDATE rdstation_tokens t
   SET access_token = %(no_access)s, refresh_token = %(no_refresh)s, expires_at = rd_now(),
       status = 'reauthorization_required', last_error = 'another_account', holder = NULL, leased_until = NULL,
       begun_with = NULL, second_look_at = NULL, cache_epoch = cache_epoch + 1, updated_at = rd_now()
 WHERE {UNCHANGED}
"""  # noqa: S608 - only texts of this module


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What `account_info` told about an access token.

    `kind`: `named`; `nameless`: RD Station has no such route (404), so it names no account at all; `refused`: 401;
    `unknown`: no usable response. `name` is None unless it is `named`.
    """

    kind: Literal["named", "nameless", "refused", "unknown"]
    name: str | None = field(default=None, repr=False)
    error: str = ""
    """For `unknown`: the kind of error, as in `rdservice.rdstation.token_responses`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What `settle` found out. `error`: as in `Told`, if the name could not be asked for."""

    whose: Literal["same", "another", "unknown", "untold"]
    """`another`: the tokens belong to another RD Station account, so they are forgotten here. The pair that they
    replaced is back; without one, an operator must authorize again. `unknown`: nothing has changed; ask again later.
    `untold`: the access token does not tell, or ends too soon to wait for it."""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    account_id: str
    name: str | None = field(repr=False)
    name_due: bool
    authorization_id: UUID
    access_token: str = field(repr=False)
    kept_access_token: str | None = field(repr=False)
    can_wait: bool


def ask(rdstation: RDStation, access_token: str) -> Told:
    """Ask RD Station for the name of the token's account. Never raises for a response that cannot be used."""
    try:
        response = rdstation.account_info(access_token)
    except TransportError as error:
        return Told(kind="unknown", error=error.kind)
    body = response.json()
    name = name_in(body) if response.status == 200 else None
    # A response that repeats the request would put the token where names are shown.
    if name is not None and access_token not in str(body):
        return Told(kind="named", name=name)
    if response.status == 404:
        return Told(kind="nameless")
    if response.status == 401:
        return Told(kind="refused")
    if response.status == 429:
        return Told(kind="unknown", error="rate_limited")
    if response.status >= 500:
        return Told(kind="unknown", error="server_error")
    return Told(kind="unknown", error="bad_payload" if response.status == 200 else "client_error")


def name_in(body: object) -> str | None:
    """Return the `name` in a body of `account_info`, without unprintable characters and at most 200 characters long.

    None when there is no name.
    """
    name = body.get("name") if isinstance(body, dict) else None
    if not isinstance(name, str):
        return None
    readable = "".join(char for char in name if is_readable(char)).strip()
    return readable[:LONGEST_NAME].strip() or None


def take_unnamed(conn: psycopg.Connection[Any]) -> str | None:
    """Return an account whose name must be asked for, and whose access token is valid; None without one.

    Nobody else gets it for ten minutes.
    """
    row = conn.execute(UNNAMED, {"again_s": ASK_AGAIN_S}).fetchone()
    return None if row is None else str(row[0])


def settle(
    pool: ConnectionPool[psycopg.Connection[Any]], keys: KeyRing, rdstation: RDStation, account_id: str
) -> Settled:
    """Ask for the name of the account's tokens, and store it if they belong to the connection.

    Raises the database's errors.
    """
    with transaction(pool) as conn, conn.cursor(row_factory=class_row(_Row)) as cur:
        values = {"account_id": account_id, "last_share": 1 - REFRESH_AT_SHARE}
        row = cur.execute(READ, values).fetchone()
    if row is None or not (row.name_due or row.name is None):
        return Settled(whose="same")
    told = _ask_stored(keys, rdstation, account_id, row.access_token)
    if told.kind == "unknown" and row.can_wait:
        return Settled(whose="unknown", error=told.error)
    if told.kind in ("unknown", "refused"):
        return Settled(whose="untold", error=told.error)
    if row.name_due and told.name is not None and told.name != row.name:
        before = Told(kind="refused")
        if row.kept_access_token is not None:
            # At the same moment: RD Station's account may have another name than before.
            before = _ask_stored(keys, rdstation, account_id, row.kept_access_token)
        if before.kind == "unknown":
            return Settled(whose="unknown", error=before.error)
        expected = before.name or row.name
        if expected is not None and expected != told.name:
            _part(pool, keys, row)
            return Settled(whose="another")
    again_s = ASK_NAMELESS_AGAIN_S if told.kind == "nameless" else ASK_AGAIN_S
    with transaction(pool) as conn:
        conn.execute(
            CONFIRM.encode(), {**_key(row), "name": told.name, "again_s": again_s, "was_due": row.name_due}
        )
    return Settled(whose="same")


def _ask_stored(keys: KeyRing, rdstation: RDStation, account_id: str, encrypted: str) -> Told:
    try:
        access_token = keys.decrypt("access_token", account_id, encrypted)
    except (KeyMissing, ValueDamaged):
        return Told(kind="refused")
    return ask(rdstation, access_token)


def _part(pool: ConnectionPool[psycopg.Connection[Any]], keys: KeyRing, row: _Row) -> None:
    """Separate the row from tokens of another RD Station account. They are never revoked: others may use them."""
    log.warning(
        "the tokens of account %s belong to another RD Station account: they are not used",
        account_in_logs(row.account_id),
    )
    nothing = {
        "no_access": keys.encrypt("access_token", row.account_id, ""),
        "no_refresh": keys.encrypt("refresh_token", row.account_id, ""),
    }
    with transaction(pool) as conn:
        conn.execute(LOCK.encode(), _key(row))
        if conn.execute(PUT_BACK.encode(), {**_key(row), "lease_s": LEASE_S}).fetchone() is None:
            conn.execute(FORGET_PAIR.encode(), {**_key(row), **nothing})


def _key(row: _Row) -> dict[str, object]:
    return {"account_id": row.account_id, "authorization_id": row.authorization_id}
