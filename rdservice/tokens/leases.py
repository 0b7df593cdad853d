"""Claims: who may exchange an account's refresh token now, and how the answer gets into its row.

A lease decides who may start an exchange. It does not decide who may store: whoever holds a good answer stores it,
unless a newer answer or a newer authorization is there (`authorization_id`, `stored_claim`).
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from rdservice.encryption import KeyRing
from rdservice.tokens import credentials, lease_sql

LEASE_S = 60
REFRESH_AT_SHARE = 0.65
"""Share of the lifetime after which a token is renewed. An outage of RD Station of six hours then costs nothing of a
24 h token, with more than two hours to spare."""
REFRESH_SPREAD = 0.05
"""Random share by which renewals come earlier, so that accounts connected together drift apart."""
REFUSALS_NEEDED = 3
REFUSED_FOR_S = 600
"""A doubtful refusal is final after this many of them over at least this many seconds."""

BACKOFF_FIRST_S = 30
BACKOFF_LAST_S = 600
BACKOFF_SHARE = 0.05
"""No back-off is longer than this share of the token's lifetime."""
BACKOFF_LEAST_S = 1
"""No back-off is shorter, or a token of a few seconds would be tried without pause."""

UNDECRYPTABLE_S = 300
"""For so long workers pass over a row that one of them could not open."""

SeenReason = Literal["early", "operator", "rejected"]
Reason = Literal["due", SeenReason]

PICKS: dict[SeenReason, str] = {
    "early": lease_sql.PICK_SEEN,
    "rejected": lease_sql.PICK_REJECTED,
    "operator": lease_sql.PICK_FOR_OPERATOR,
}


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to start one exchange. `refresh_token` is encrypted as it stands in the row."""

    fence: int
    """Grows with every lease (column `claim_no`): a response of an older lease never replaces that of a newer one."""
    reason: Reason
    account_id: str
    refresh_token: str = field(repr=False)
    authorization_id: UUID
    stored_claim: int
    holder: UUID
    claimed_at: datetime
    started: float
    """The claiming process's monotonic clock, in seconds, from before the claim."""

    @property
    def key(self) -> dict[str, object]:
        """The parameters that name this claim in SQL."""
        return {
            "account_id": self.account_id,
            "authorization_id": self.authorization_id,
            "holder": self.holder,
            "claim_no": self.fence,
            "stored_claim": self.stored_claim,
        }

    def lease_left_s(self, now: float) -> float:
        """Return the seconds for which nobody else can claim the account. `now`: the clock of `started`, never set."""
        return LEASE_S - (now - self.started)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What a refusal did: `final` when an operator must authorize again, `brought_back` when an uploaded pair gave way
    to the one that it had replaced."""

    final: bool
    brought_back: bool
    error: str


def lease_due(
    conn: psycopg.Connection[Any],
    *,
    started: float,
    fingerprint: str,
    slots: int,
    claimed_by: str,
    backlog: bool,
) -> list[Lease]:
    """Claim up to `slots` accounts whose renewal is due, those due longest first; `started`: see Claim.

    With a `backlog`, which a claim that filled its slots tells of, what is due among the 1,000 tokens nearest to expiry
    comes before the others. Neither pick knows how long tokens live, or which keys the caller has.
    """
    values = {"slots": slots, "claimed_by": claimed_by}
    if credentials.closed_for(conn, fingerprint) is not None:
        return _claim_as_probe(conn, started, fingerprint, "due", lease_sql.PICK_DUE, values)
    leased = _claim(conn, started, "due", lease_sql.PICK_NEAREST, values) if backlog else []
    if len(leased) < slots:
        values["slots"] = slots - len(leased)
        leased += _claim(conn, started, "due", lease_sql.PICK_DUE, values)
    return leased


def opens_any(conn: psycopg.Connection[Any], keys: KeyRing) -> bool:
    """Return whether any account's refresh token is under one of the keys."""
    return conn.execute(lease_sql.OPENS_ANY, {"key_ids": keys.key_ids}).fetchone() == (True,)


def lease_seen(
    conn: psycopg.Connection[Any],
    account_id: str,
    *,
    authorization_id: UUID,
    stored_claim: int,
    started: float,
    fingerprint: str,
    claimed_by: str,
    reason: SeenReason,
) -> Lease | None:
    """Claim an account early, unless its row has moved on from what the caller saw, is leased or backs off.

    For the reason `rejected` also unless there was such an attempt within the last 5 minutes; for `operator`, a person
    who asked, whatever the account's status.
    """
    values = {
        "account_id": account_id,
        "authorization_id": authorization_id,
        "stored_claim": stored_claim,
        "claimed_by": claimed_by,
    }
    if credentials.closed_for(conn, fingerprint) is not None:
        leased = _claim_as_probe(conn, started, fingerprint, reason, PICKS[reason], values)
    else:
        leased = _claim(conn, started, reason, PICKS[reason], values)
    return leased[0] if leased else None


def _claim_as_probe(
    conn: psycopg.Connection[Any],
    started: float,
    fingerprint: str,
    reason: Reason,
    pick: str,
    values: dict[str, Any],
) -> list[Lease]:
    """Claim the one account that a probe is worth. The probe is given back when there is none to probe with."""
    leased: list[Lease] = []
    with conn.transaction():
        if credentials.take_probe(conn, fingerprint):
            leased = _claim(conn, started, reason, pick, {**values, "slots": 1})
        if not leased:
            raise psycopg.Rollback
    return leased


def _claim(
    conn: psycopg.Connection[Any], started: float, reason: Reason, pick: str, values: dict[str, Any]
) -> list[Lease]:
    with conn.cursor(row_factory=dict_row) as cur:
        rows = cur.execute(
            lease_sql.CLAIM.format(pick=pick).encode(), {**values, "reason": reason, "lease_s": LEASE_S}
        ).fetchall()
    return [Lease(started=started, reason=reason, **row) for row in rows]


def holds(conn: psycopg.Connection[Any], lease: Lease) -> bool:
    """Return whether the row still holds this claim's nonce and authorization."""
    return conn.execute(lease_sql.HOLDS, lease.key).fetchone() is not None


def store(
    conn: psycopg.Connection[Any],
    lease: Lease,
    keys: KeyRing,
    *,
    access_token: str,
    refresh_token: str | None,
    expires_at: datetime,
) -> bool:
    """Store a good answer; None for `refresh_token` keeps the old one.

    Returns False when the row is gone, was authorized anew, or has the answer of a later claim. A pair that an upload
    has put aside meanwhile is replaced where it is kept.
    """
    encrypted = keys.encrypt("access_token", lease.account_id, access_token)
    row = conn.execute(
        lease_sql.STORE,
        {
            **lease.key,
            "access_token": encrypted,
            "refresh_token": (
                None
                if refresh_token is None
                else keys.encrypt("refresh_token", lease.account_id, refresh_token)
            ),
            "claimed_at": lease.claimed_at,
            "expires_at": expires_at,
            "share": REFRESH_AT_SHARE,
            "spread": REFRESH_SPREAD,
        },
    ).fetchone()
    if row is None:
        release(conn, lease)
    return row is not None


def back_off(conn: psycopg.Connection[Any], lease: Lease, error: str) -> bool:
    """Try again after an exponential back-off with full jitter, from 30 s to 10 min, at most 5 % of the lifetime."""
    values = {
        **lease.key,
        "error": error,
        "least_s": BACKOFF_LEAST_S,
        "first_s": BACKOFF_FIRST_S,
        "last_s": BACKOFF_LAST_S,
        "share": BACKOFF_SHARE,
    }
    return conn.execute(lease_sql.BACK_OFF, values).fetchone() is not None


def slow_down(conn: psycopg.Connection[Any], lease: Lease, error: str, *, wait_s: float) -> bool:
    """Try again after `wait_s`, at most 10 minutes or a quarter of the life that is left."""
    values = {
        **lease.key,
        "error": error,
        "wait_s": wait_s,
        "first_s": BACKOFF_FIRST_S,
        "last_s": BACKOFF_LAST_S,
        "share": BACKOFF_SHARE,
    }
    return conn.execute(lease_sql.SLOW_DOWN, values).fetchone() is not None


def refuse(conn: psycopg.Connection[Any], lease: Lease, error: str, *, doubtful: bool) -> Refusal | None:
    """Count a refusal of the refresh token.

    One is enough, unless it is `doubtful` or an earlier attempt of the same authorization has no known outcome: then it
    takes three over ten minutes. Returns None when the row has moved on, so that the refusal means nothing.
    """
    row = conn.execute(
        lease_sql.REFUSE,
        {
            **lease.key,
            "error": error,
            "doubtful": doubtful,
            "needed": REFUSALS_NEEDED,
            "over_s": REFUSED_FOR_S,
            "share": BACKOFF_SHARE,
        },
    ).fetchone()
    if row is None:
        release(conn, lease)
        return None
    final, last_error = row
    bring_back = {"account_id": lease.account_id, "lease_s": LEASE_S}
    brought_back = final and conn.execute(lease_sql.BRING_BACK, bring_back).fetchone() is not None
    return Refusal(final=final and not brought_back, brought_back=brought_back, error=last_error)


def credentials_refused(conn: psycopg.Connection[Any], lease: Lease) -> bool:
    """Note that the settings, not this account, are to blame. The row stays due: the gate holds it back."""
    return conn.execute(lease_sql.CREDENTIALS_REFUSED, lease.key).fetchone() is not None


def damaged(conn: psycopg.Connection[Any], lease: Lease) -> bool:
    """Note that the refresh token cannot be decrypted although its key is there."""
    return conn.execute(lease_sql.DAMAGED, lease.key).fetchone() is not None


def release(conn: psycopg.Connection[Any], lease: Lease) -> None:
    """Give the claim back and leave the row as it was."""
    conn.execute(lease_sql.RELEASE, lease.key)


def put_off(conn: psycopg.Connection[Any], lease: Lease) -> None:
    """Give back what the caller cannot open. For UNDECRYPTABLE_S no worker claims it; requests and operators may."""
    conn.execute(lease_sql.PUT_OFF, {**lease.key, "wait_s": UNDECRYPTABLE_S})


def seconds_until_due(conn: psycopg.Connection[Any]) -> float | None:
    """Return the seconds until a worker may claim something (negative when overdue), or None without any account."""
    row = conn.execute(lease_sql.SECONDS_UNTIL_DUE).fetchone()
    return None if row is None or row[0] is None else float(row[0])
