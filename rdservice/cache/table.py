"""The second level of the cache: a table that all processes share. The only owner of `rdstation_cache`.

A lease on a row decides which process may call RD Station for its key. The holder stores the outcome, unless another
process has taken over the lease, the row was dropped meanwhile, or the account no longer has the version (connection
and epoch) for which it was fetched.
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

from rdservice.cache.entries import Failure, FetchFailed, bound_column
from rdservice.encryption import EncryptedRow, Place, Replacement
from rdservice.tokens.store import StoredToken

LEASE_S = 40
CEILING_S = 86_400
"""Age at which content is neither served nor kept any more."""
EMPTY_KEPT_S = 3_600
"""How long a row without content is kept."""

# No row: the account is gone or has another version.
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
# A recorded refusal of the authorization does not prevent a fetch after a new authorization (`authorized`).
LEASE = """
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
    """The row of a key; all None and False if there is none.

    `value` is encrypted, and None if the caller has it already. `failure` is that of the last fetch; `failing`: it is
    still the response to new requests. `leased`: a process is fetching.
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
    """An encrypted response. `current`: it belongs to the account's present connection and epoch."""

    key: bytes
    account_id: str
    value: str = field(repr=False)
    fetched_at: datetime
    current: bool


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to fetch the content of a key.

    `started`: when the lease began by this process's monotonic clock, in seconds, read before the statement.
    """

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
    """Return the row of `key`, without its value if that was fetched at `known`.

    A failure older than `failure_s` seconds no longer counts as `failing`. None: the account's row is gone, or has
    another connection or epoch than `token`.
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
    """Lease the row of `key`, creating it if necessary.

    None if its content is younger than `max_age_s` seconds, another process holds a lease, a recent failure counts, or
    the account has another connection or epoch. `failure_s` is that of `look`.
    """
    started = time.monotonic()
    row = conn.execute(
        LEASE,
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
    """Store fetched content, encrypted as `value`.

    False if the account has another version, the row was dropped, or another process has taken over the lease.
    """
    values = {**_held(lease), "value": value, "claimed_at": lease.claimed_at, "ceiling_s": CEILING_S}
    return conn.execute(STORE, values).fetchone() is not None


def fail(conn: psycopg.Connection[Any], lease: Lease, failed: FetchFailed) -> bool:
    """Record that the fetch failed, and delete the content of a resource that no longer exists.

    False if the account has another version, the row was dropped, or another process has taken over the lease.
    """
    values = {
        "failure": Jsonb(failed.failure.as_json()),
        "shared_s": failed.shared_s,
        "gone": failed.gone,
        "kept_s": EMPTY_KEPT_S,
    }
    return conn.execute(FAIL, {**_held(lease), **values}).fetchone() is not None


def release(conn: psycopg.Connection[Any], lease: Lease) -> None:
    """End a lease without an outcome."""
    conn.execute(RELEASE, _held(lease))


def drop(conn: psycopg.Connection[Any], keys: Collection[bytes]) -> None:
    """Delete the rows of these keys, with their failures and leases.

    A fetch under way loses its lease, so its response, from before the drop, is not stored, and its callers fetch
    again. A lease that this transaction does not see yet starts its fetch after it.
    """
    conn.execute(DROP, {"keys": list(keys)})


def versions(conn: psycopg.Connection[Any], accounts: Sequence[str]) -> dict[str, tuple[UUID, int]]:
    """Return connection ID and epoch of each of these accounts that exists."""
    rows = conn.execute(VERSIONS, {"accounts": list(accounts)})
    return {account_id: (connection_id, epoch) for account_id, connection_id, epoch in rows}


def delete_all_of(conn: psycopg.Connection[Any], accounts: Sequence[str]) -> int:
    """Delete all rows of these accounts; return the number deleted.

    The caller must have locked the accounts' rows: then no new row appears until its transaction ends.
    """
    return conn.execute(DELETE_ALL_OF, {"accounts": list(accounts)}).rowcount


def next_values(conn: psycopg.Connection[Any], *, after: bytes, limit: int) -> list[Value]:
    """Return the next stored responses after the key `after`, in the order of their keys."""
    with conn.cursor(row_factory=class_row(Value)) as cur:
        return cur.execute(NEXT_VALUES, {"after": after, "limit": limit}).fetchall()


def prune(conn: psycopg.Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` rows whose time is over; return how many."""
    return conn.execute(PRUNE, {"batch": batch}).rowcount


@dataclass(frozen=True, slots=True)
class CacheTable:
    """The table's encrypted values, for the inventory and rotation of keys."""

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
        """See EncryptedTable. The next request fetches a deleted value again."""
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
