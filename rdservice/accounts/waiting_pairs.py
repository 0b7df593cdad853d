"""Pairs of tokens that a callback has parked until they are stored or dropped. Owns `rdstation_waiting_pairs`.

Neither a crash nor a second fetch of the callback loses a pair. One that is dropped or forgotten is never revoked: its
RD Station account may be connected under another name.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from rdservice.encryption import KeyRing
from rdservice.tokens.encrypted import TokenTable

Outcome = Literal["stored", "dropped"]

KEPT_MINUTES = 60

BEGIN = """
INSERT INTO rdstation_waiting_pairs (pair_id, operator_id, session_hash, account_id, created_at)
VALUES (%(pair_id)s, %(operator_id)s, %(session_hash)s, %(account_id)s, rd_now())
"""
PARK = """
UPDATE rdstation_waiting_pairs
   SET access_token = %(access_token)s, refresh_token = %(refresh_token)s, expires_in_s = %(expires_in_s)s,
       issued_at = rd_now() - make_interval(secs => %(age_s)s)
 WHERE pair_id = %(pair_id)s AND outcome IS NULL
"""
READ = """
SELECT pair_id, account_id, access_token, refresh_token, expires_in_s, outcome, shown,
       EXTRACT(epoch FROM rd_now() - issued_at)::float8 AS age_s
  FROM rdstation_waiting_pairs
 WHERE pair_id = %(pair_id)s AND operator_id = %(operator_id)s AND session_hash = %(session_hash)s
   AND created_at > rd_now() - make_interval(mins => %(minutes)s)
"""
LOCK = f"{READ} FOR UPDATE"
ASK = """
UPDATE rdstation_waiting_pairs
   SET account_id = %(account_id)s, access_token = %(access_token)s, refresh_token = %(refresh_token)s,
       shown = %(shown)s
 WHERE pair_id = %(pair_id)s
"""
END = """
UPDATE rdstation_waiting_pairs
   SET outcome = %(outcome)s, shown = %(shown)s, account_id = %(account_id)s, access_token = NULL, refresh_token = NULL
 WHERE pair_id = %(pair_id)s
"""
TAKE_ALL_OF = """
SELECT pair_id, access_token, refresh_token FROM rdstation_waiting_pairs WHERE account_id = %(account_id)s FOR UPDATE
"""
MOVE = """
UPDATE rdstation_waiting_pairs
   SET account_id = %(account_id)s, access_token = %(access_token)s, refresh_token = %(refresh_token)s
 WHERE pair_id = %(pair_id)s
"""
DELETE = "DELETE FROM rdstation_waiting_pairs WHERE pair_id = %(pair_id)s"
PRUNE = """
DELETE FROM rdstation_waiting_pairs WHERE pair_id = ANY (ARRAY(
    SELECT pair_id FROM rdstation_waiting_pairs
     WHERE created_at < rd_now() - make_interval(mins => %(minutes)s) ORDER BY created_at LIMIT %(batch)s
       FOR UPDATE SKIP LOCKED))
"""

WAITING = TokenTable("rdstation_waiting_pairs", place="pair_id")
"""For the inventory and rotation of encryption keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who may decide about a pair: the operator and the session that began the authorization."""

    operator_id: str
    session_id: str = field(repr=False)

    def pair_id(self, state: str) -> str:
        """Return the id of the pair that arrives with this `state` of RFC 6749 10.12, in this session only."""
        return hashlib.sha256(f"{self.session_id}\0{state}".encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def values(self) -> dict[str, object]:
        """The parameters that identify the owner in SQL."""
        return {
            "operator_id": self.operator_id,
            "session_hash": hashlib.sha256(self.session_id.encode("utf-8", "surrogatepass")).digest(),
            "minutes": KEPT_MINUTES,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingPair:
    """A row. The tokens are None while the code is exchanged, and once the pair was stored or dropped.

    `age_s`: the age of the access token in seconds. `shown`: the question, or the result, for the page.
    """

    pair_id: str
    account_id: str
    access_token: str | None = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_in_s: int | None
    age_s: float | None
    outcome: Outcome | None
    shown: Mapping[str, Any] = field(repr=False)


def begin(conn: psycopg.Connection[Any], owner: Owner, pair_id: str, account_id: str) -> None:
    """Note that the code of an authorization is being exchanged."""
    conn.execute(BEGIN, {"pair_id": pair_id, "account_id": account_id, **owner.values})


def park(
    conn: psycopg.Connection[Any],
    keys: KeyRing,
    pair_id: str,
    account_id: str,
    *,
    access_token: str,
    refresh_token: str,
    expires_in_s: int,
    age_s: float,
) -> None:
    """Store the pair of an authorization. `age_s`: upper bound of the age of the access token, in seconds."""
    values = _encrypted(keys, account_id, access_token, refresh_token)
    conn.execute(PARK, {"pair_id": pair_id, "expires_in_s": expires_in_s, "age_s": age_s, **values})


def read(
    conn: psycopg.Connection[Any], keys: KeyRing, owner: Owner, pair_id: str, *, lock: bool = False
) -> WaitingPair | None:
    """Return the owner's pair, decrypted; None without one. Raises KeyMissing or ValueDamaged."""
    with conn.cursor(row_factory=dict_row) as cur:
        row = cur.execute(LOCK if lock else READ, {"pair_id": pair_id, **owner.values}).fetchone()
    if row is None:
        return None
    for column in ("access_token", "refresh_token"):
        if row[column] is not None:
            row[column] = keys.decrypt(column, row["account_id"], row[column])
    return WaitingPair(**row)


def ask(
    conn: psycopg.Connection[Any],
    keys: KeyRing,
    pair_id: str,
    account_id: str,
    *,
    access_token: str,
    refresh_token: str,
    shown: Mapping[str, Any],
) -> None:
    """Keep the pair for `account_id` with the question that a person must answer."""
    values = _encrypted(keys, account_id, access_token, refresh_token)
    conn.execute(ASK, {"pair_id": pair_id, "shown": Jsonb(dict(shown)), **values})


def end(
    conn: psycopg.Connection[Any],
    pair_id: str,
    account_id: str,
    outcome: Outcome,
    *,
    shown: Mapping[str, Any],
) -> None:
    """Forget the tokens of a pair that was stored or dropped, and keep the result for a second fetch."""
    conn.execute(
        END,
        {"pair_id": pair_id, "account_id": account_id, "outcome": outcome, "shown": Jsonb(dict(shown))},
    )


def move(conn: psycopg.Connection[Any], keys: KeyRing, old: str, new: str) -> None:
    """Keep the pairs that wait for the account `old` for `new`. Raises KeyMissing or ValueDamaged."""
    for pair_id, *stored in conn.execute(TAKE_ALL_OF, {"account_id": old}).fetchall():
        values: dict[str, str | None] = {"account_id": new, "access_token": None, "refresh_token": None}
        if None not in stored:
            access_token, refresh_token = (
                keys.decrypt(column, old, value)
                for column, value in zip(("access_token", "refresh_token"), stored, strict=True)
            )
            values |= _encrypted(keys, new, access_token, refresh_token)
        conn.execute(MOVE, {"pair_id": pair_id, **values})


def delete(conn: psycopg.Connection[Any], pair_id: str) -> None:
    """Delete the row of an authorization that brought no pair."""
    conn.execute(DELETE, {"pair_id": pair_id})


def prune(conn: psycopg.Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` rows that are over an hour old; return how many were deleted."""
    return conn.execute(PRUNE, {"minutes": KEPT_MINUTES, "batch": batch}).rowcount


def _encrypted(keys: KeyRing, account_id: str, access_token: str, refresh_token: str) -> dict[str, str]:
    return {
        "account_id": account_id,
        "access_token": keys.encrypt("access_token", account_id, access_token),
        "refresh_token": keys.encrypt("refresh_token", account_id, refresh_token),
    }
