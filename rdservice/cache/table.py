"""The second level: the table that all processes share. The only owner of `rdstation_cache`.

A lease on a row decides who may call RD Station for its key. Its holder stores what came of the call, unless another
process has taken the lease over, the row was dropped meanwhile, or the account has moved on from the version
(connection and epoch) for which it was fetched.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from rdservice.cache.entries import Failure, bound_column
from rdservice.encryption import EncryptedRow, Place, Replacement
from rdservice.tokens.store import StoredToken

LEASE_S = 40
CEILING_S = 86_400
"""No content is served, or kept, for longer."""
EMPTY_KEPT_S = 3_600
"""How long a row without content is kept."""

# No row: the account is gone or has moved on.
LOOK = """
SELECT CASE WHEN kept.fetched_at IS DISTINCT FROM %(known)s THEN c.value END AS value, kept.fetched_at,
       EXTRACT(epoch FROM rd_now() - kept.fetched_at)::float8 AS age_s,
       c.failure, COALESCE(c.failed_until > rd_now(), false)
           AND COALESCE(c.failed_at, rd_now()) > rd_now() - make_interval(secs => %(failure_s)s) AS failing,
       COALESCE(c.leased_until > rd_now(), false) AS leased
  FROM rdstation_tokens t
  LEFT JOIN rdstation_cache c ON c.key = %(key)s
 CROSS JOIN LATERAL (
       SELECT CASE WHEN c.fetched_at > rd_now() - make_interval(secs => %(ceiling_s)s) THEN c.fetched_at END
           AS fetched_at) kept
 WHERE t.account_id = %(account_id)s AND t.connection_id = %(connection_id)s AND t.cache_epoch = %(epoch)s
"""
# A refused authorization stands in nobody's way once there is a new one (`authorized`).
CLAIM = """
INSERT INTO rdstation_cache AS c (key, account_id, connection_id, epoch, holder, leased_until, expires_at)
SELECT %(key)s, account_id, connection_id, cache_epoch, gen_random_uuid(),
       rd_now() + make_interval(secs => %(lease_s)s), rd_now() + make_interval(secs => %(kept_s)s)
  FROM rdstation_tokens
 WHERE account_id = %(account_id)s AND connection_id = %(connection_id)s AND cache_epoch = %(epoch)s
ON CONFLICT (key) DO UPDATE SET holder = EXCLUDED.holder, leased_until = EXCLUDED.leased_until
 WHERE COALESCE(c.leased_until, '-infinity') <= rd_now()
   AND (COALESCE(c.failed_until, '-infinity') <= rd_now()
        OR c.failed_at <= rd_now() - make_interval(secs => %(failure_s)s)
        OR (%(authorized)s AND c.failure ->> 'code' = 'reauthorization_required'))
   AND COALESCE(c.fetched_at, '-infinity') <= rd_now() - make_interval(secs => %(fresh_s)s)
RETURNING holder, rd_now() AS claimed_at
"""
STORE = """
UPDATE rdstation_cache c
   SET value = %(value)s, fetched_at = %(claimed_at)s, failure = NULL, failed_until = NULL,
       holder = NULL, leased_until = NULL,
       expires_at = %(claimed_at)s + make_interval(secs => %(ceiling_s)s)
  FROM rdstation_tokens t
 WHERE c.key = %(key)s AND c.holder = %(holder)s
   AND t.account_id = c.account_id AND t.connection_id = c.connection_id AND t.cache_epoch = c.epoch
RETURNING 1
"""
FAIL = """
UPDATE rdstation_cache c
   SET failure = %(failure)s, failed_at = rd_now(), failed_until = rd_now() + make_interval(secs => %(shared_s)s),
       holder = NULL, leased_until = NULL,
       value = CASE WHEN NOT %(gone)s THEN c.value END, fetched_at = CASE WHEN NOT %(gone)s THEN c.fetched_at END,
       expires_at = CASE WHEN %(gone)s THEN rd_now() + make_interval(secs => %(kept_s)s) ELSE c.expires_at END
  FROM rdstation_tokens t
 WHERE c.key = %(key)s AND c.holder = %(holder)s
   AND t.account_id = c.account_id AND t.connection_id = c.connection_id AND t.cache_epoch = c.epoch
RETURNING 1
"""
DROP = "DELETE FROM rdstation_cache WHERE key = ANY (%(keys)s)"
RELEASE = """
UPDATE rdstation_cache SET holder = NULL, leased_until = NULL WHERE key = %(key)s AND holder = %(holder)s
"""
COUNT = "SELECT count(*) FROM rdstation_cache"
PAGE = """
SELECT key, account_id, CASE WHEN left(value, 9) IS DISTINCT FROM %(leave_out)s::text || '.' THEN value END,
       value IS NOT NULL
  FROM rdstation_cache WHERE key > %(after)s ORDER BY key LIMIT %(limit)s
"""
REPLACE = """
WITH given AS (
    SELECT * FROM unnest(%(keys)s::bytea[], %(old)s::text[], %(new)s::text[]) AS g (key, old, new)),
free AS (
    SELECT c.key FROM rdstation_cache c JOIN given ON c.key = given.key AND c.value = given.old
       FOR NO KEY UPDATE OF c SKIP LOCKED)
UPDATE rdstation_cache c
   SET value = given.new, fetched_at = CASE WHEN given.new IS NOT NULL THEN c.fetched_at END
  FROM given JOIN free USING (key)
 WHERE c.key = given.key AND c.value = given.old
"""
VERSIONS = """
SELECT account_id, connection_id, cache_epoch FROM rdstation_tokens WHERE account_id = ANY (%(accounts)s)
"""
DELETE_ALL_OF = "DELETE FROM rdstation_cache WHERE account_id = ANY (%(accounts)s)"
NEXT_VALUES = """
SELECT c.key, c.account_id, c.value, c.fetched_at,
       t.connection_id = c.connection_id AND t.cache_epoch = c.epoch AS current
  FROM rdstation_cache c JOIN rdstation_tokens t USING (account_id)
 WHERE c.value IS NOT NULL AND c.key > %(after)s
 ORDER BY c.key LIMIT %(limit)s
"""
PRUNE = """
DELETE FROM rdstation_cache WHERE key = ANY (ARRAY(
    SELECT key FROM rdstation_cache
     WHERE expires_at <= rd_now() AND COALESCE(leased_until, '-infinity') <= rd_now()
     ORDER BY expires_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What stands in the table for a key; all None and false without a row.

    `value` is encrypted, and left out where the caller knows it. `failure` is that of the last fetch, `failing` whether
    it still stands for another one. `leased`: a process fetches now.
    """

    value: str | None = field(repr=False)
    fetched_at: datetime | None
    age_s: float | None
    failure: Any
    failing: bool
    leased: bool

    @property
    def last_failure(self) -> Failure | None:
        return Failure.read(self.failure)


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """An encrypted answer. `current`: it belongs to the account's connection and epoch of now."""

    key: bytes
    account_id: str
    value: str = field(repr=False)
    fetched_at: datetime
    current: bool


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to fetch the content of a key. `started`: monotonic clock of this process, from before the claim."""

    key: bytes
    holder: UUID
    claimed_at: datetime
    started: float


def look(
    conn: psycopg.Connection[Any],
    key: bytes,
    token: StoredToken,
    *,
    known: datetime | None,
    failure_s: float = CEILING_S,
) -> Row | None:
    """Return what stands under `key`, without a value that was fetched at `known`.

    A failure that is older than `failure_s` does not stand any more.

    None: the account's row is gone, or of another connection or epoch than `token`.
    """
    with conn.cursor(row_factory=class_row(Row)) as cur:
        values = {"known": known, "failure_s": failure_s, "ceiling_s": CEILING_S}
        return cur.execute(LOOK, _version(key, token) | values).fetchone()


def lease(
    conn: psycopg.Connection[Any],
    key: bytes,
    token: StoredToken,
    *,
    max_age_s: float,
    failure_s: float = CEILING_S,
) -> Lease | None:
    """Claim the fetch of `key`; None when its content is younger than `fresh_s`, another fetches, or one just failed.

    `failure_s`: as for `look`.
    """
    started = time.monotonic()
    row = conn.execute(
        CLAIM,
        {
            **_version(key, token),
            "lease_s": LEASE_S,
            "kept_s": EMPTY_KEPT_S,
            "fresh_s": max_age_s,
            "failure_s": failure_s,
            "authorized": token.status != "reauthorization_required",
        },
    ).fetchone()
    return None if row is None else Lease(key=key, holder=row[0], claimed_at=row[1], started=started)


def store(conn: psycopg.Connection[Any], lease: Lease, value: str) -> bool:
    """Store fetched content.

    False when the account has moved on, the row was dropped, or another process has taken the lease over.
    """
    values = {**_held(lease), "value": value, "claimed_at": lease.claimed_at, "ceiling_s": CEILING_S}
    return conn.execute(STORE, values).fetchone() is not None


def fail(
    conn: psycopg.Connection[Any], lease: Lease, failure: Failure, *, shared_s: float, gone: bool
) -> bool:
    """Note for `shared_s` seconds that the fetch failed; `gone` deletes the content.

    False when the account has moved on, the row was dropped, or another process has taken the lease over.
    """
    values = {
        "failure": Jsonb(failure.as_json()),
        "shared_s": shared_s,
        "gone": gone,
        "kept_s": EMPTY_KEPT_S,
    }
    return conn.execute(FAIL, {**_held(lease), **values}).fetchone() is not None


def release(conn: psycopg.Connection[Any], lease: Lease) -> None:
    """Give a claim back without an outcome."""
    conn.execute(RELEASE, _held(lease))


def drop(conn: psycopg.Connection[Any], keys: Collection[bytes]) -> None:
    """Delete what stands under these keys, failures and leases included.

    A fetch under way finds its lease gone, so what it brings from before the drop is not stored: its callers fetch
    again. A claim that this transaction does not see begins its fetch after it.
    """
    conn.execute(DROP, {"keys": list(keys)})


def versions(conn: psycopg.Connection[Any], accounts: Sequence[str]) -> dict[str, tuple[UUID, int]]:
    """Return connection and epoch of those accounts that there are."""
    rows = conn.execute(VERSIONS, {"accounts": list(accounts)})
    return {account_id: (connection_id, epoch) for account_id, connection_id, epoch in rows}


def delete_all_of(conn: psycopg.Connection[Any], accounts: Sequence[str]) -> int:
    """Delete all rows of these accounts; return how many.

    The caller has locked the accounts' rows, so that no further row appears until its transaction ends.
    """
    return conn.execute(DELETE_ALL_OF, {"accounts": list(accounts)}).rowcount


def next_values(conn: psycopg.Connection[Any], *, after: bytes, limit: int) -> list[Value]:
    """Return the next stored answers in the order of their keys."""
    with conn.cursor(row_factory=class_row(Value)) as cur:
        return cur.execute(NEXT_VALUES, {"after": after, "limit": limit}).fetchall()


def prune(conn: psycopg.Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` rows whose time is over; return how many."""
    return conn.execute(PRUNE, {"batch": batch}).rowcount


@dataclass(frozen=True, slots=True)
class CacheTable:
    """The table's encrypted values, for those who look through them or replace them."""

    name: str = "rdstation_cache"
    disposable: bool = True

    def count(self, conn: psycopg.Connection[Any]) -> int:
        """See EncryptedTable."""
        row = conn.execute(COUNT).fetchone()
        return 0 if row is None else int(row[0])

    def page(
        self, conn: psycopg.Connection[Any], *, after: Place | None, limit: int, leave_out: str | None
    ) -> list[EncryptedRow]:
        """See EncryptedTable."""
        found = conn.execute(PAGE, {"after": after or b"", "limit": limit, "leave_out": leave_out})
        return [
            EncryptedRow(
                place=key,
                account_id=account_id,
                values={} if value is None else {bound_column(key): value},
                left_out=int(filled and value is None),
            )
            for key, account_id, value, filled in found
        ]

    def replace(self, conn: psycopg.Connection[Any], replacements: Sequence[Replacement]) -> int:
        """See EncryptedTable. A value that is deleted is fetched anew by whoever asks for it."""
        changes = [
            (given.row.place, given.row.values[column], new)
            for given in replacements
            for column, new in given.values.items()
        ]
        keys, old, new = zip(*changes, strict=True)
        return conn.execute(REPLACE, {"keys": list(keys), "old": list(old), "new": list(new)}).rowcount


CACHE = CacheTable()


def _version(key: bytes, token: StoredToken) -> dict[str, object]:
    return {
        "key": key,
        "account_id": token.account_id,
        "connection_id": token.connection_id,
        "epoch": token.cache_epoch,
    }


def _held(lease: Lease) -> dict[str, object]:
    return {"key": lease.key, "holder": lease.holder}
