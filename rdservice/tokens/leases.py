"""Leases: which process may exchange an account's refresh token now, and how the response gets into the row.

A lease decides which process may start an exchange, not which may store: a process with a good response always stores
it, unless the row has a newer response or a newer authorization (`authorization_id`, `stored_claim`).
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
"""Share of the lifetime after which a token is refreshed. A 24 h token then survives an outage of RD Station of six
hours, with more than two hours to spare."""
REFRESH_SPREAD = 0.05
"""Refreshes come earlier by up to this share of the lifetime, at random, so that accounts connected together drift
apart."""
REFUSALS_NEEDED = 3
REFUSED_FOR_S = 600
"""Doubtful refusals become final after `REFUSALS_NEEDED` of them over at least this many seconds."""

SECOND_LOOK_PAUSES_S = (15 * 60.0, 45 * 60.0, 2 * 3600.0, 6 * 3600.0)
"""Pauses before the second looks at a refused token, which are due 15 minutes, 1 h and 3 h after the refusal, and then
every 6 h."""
REFUSED_WAIT_S = 60
"""How long after an attempt an operator may try a refused token again."""

BACKOFF_FIRST_S = 30
BACKOFF_LAST_S = 600
BACKOFF_SHARE = 0.05
"""Longest back-off, as a share of the token's lifetime."""
BACKOFF_LEAST_S = 1
"""Shortest back-off. Without it, a token that lives a few seconds would be tried without a pause."""

UNDECRYPTABLE_S = 300
"""How long workers skip a row that one of them could not decrypt."""

SeenReason = Literal["early", "operator", "rejected"]
Reason = Literal["due", "second_look", SeenReason]

PICKS: dict[SeenReason, str] = {
    "early": lease_sql.PICK_SEEN,
    "rejected": lease_sql.PICK_REJECTED,
    "operator": lease_sql.PICK_FOR_OPERATOR,
}


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to start one exchange. `refresh_token` is the encrypted value from the row."""

    fence: int
    """The fencing token (column `claim_no`), which grows with every lease. The response of an older lease never
    replaces that of a newer one."""
    reason: Reason
    account_id: str
    refresh_token: str = field(repr=False)
    authorization_id: UUID
    stored_claim: int
    """The fencing token of the lease whose response the row held when this lease began."""
    name: str | None = field(repr=False)
    """The name of the RD Station account, if known."""
    refused: bool
    """Whether RD Station had refused the token for good when this lease began."""
    holder: UUID
    """A nonce. The row has it for as long as nobody else has leased it."""
    claimed_at: datetime
    name_due: bool
    """Whether it is not known that the tokens belong to the connection: `rdservice.tokens.identity` asks before the
    refresh token is used."""
    started: float
    """When the lease began by this process's monotonic clock, in seconds, read before the statement."""

    @property
    def key(self) -> dict[str, object]:
        """The parameters that identify this lease in SQL."""
        return {
            "account_id": self.account_id,
            "authorization_id": self.authorization_id,
            "holder": self.holder,
            "claim_no": self.fence,
            "stored_claim": self.stored_claim,
        }

    def left_s(self, now: float) -> float:
        """Return for how many seconds nobody else can lease the account. `now` comes from the clock of `started`."""
        return LEASE_S - (now - self.started)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What a refusal caused.

    `final`: an operator must authorize again. `brought_back`: the uploaded pair was refused, and the pair that it had
    replaced is in the row again, to be tried next.
    """

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
    """Lease up to `slots` accounts whose refresh is due, longest overdue first. `started` is that of `Lease`.

    Pass `backlog` when the previous call filled all its slots: then due accounts among the 1,000 tokens nearest to
    expiry come first. Slots that stay empty go to second looks, unless the client credentials are refused. No selection
    considers how long tokens live or which keys the caller has.
    """
    values = {"slots": slots, "claimed_by": claimed_by}
    if credentials.closed_for(conn, fingerprint) is not None:
        return _lease_as_probe(conn, started, fingerprint, "due", lease_sql.PICK_DUE, values)
    leased = _lease(conn, started, "due", lease_sql.PICK_NEAREST, values) if backlog else []
    if len(leased) < slots:
        values["slots"] = slots - len(leased)
        leased += _lease(conn, started, "due", lease_sql.PICK_DUE, values)
    if len(leased) < slots:
        values["slots"] = slots - len(leased)
        leased += _lease(conn, started, "second_look", lease_sql.PICK_SECOND_LOOKS, values)
    return leased


def can_decrypt_any(conn: psycopg.Connection[Any], keys: KeyRing) -> bool:
    """Return whether one of the keys can decrypt any account's refresh token."""
    return conn.execute(lease_sql.CAN_DECRYPT_ANY, {"key_ids": keys.key_ids}).fetchone() == (True,)


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
    """Lease one account before it is due.

    Returns None when the row has changed since the caller read it, is leased, or backs off. With the reason `rejected`
    also when such an attempt began within the last 5 minutes. Only `operator` leases an account that must be authorized
    again: a person may try a refused token `REFUSED_WAIT_S` seconds after the last attempt.
    """
    values = {
        "account_id": account_id,
        "authorization_id": authorization_id,
        "stored_claim": stored_claim,
        "claimed_by": claimed_by,
        "refused_s": REFUSED_WAIT_S,
    }
    if credentials.closed_for(conn, fingerprint) is not None:
        leased = _lease_as_probe(conn, started, fingerprint, reason, PICKS[reason], values)
    else:
        leased = _lease(conn, started, reason, PICKS[reason], values)
    return leased[0] if leased else None


def _lease_as_probe(
    conn: psycopg.Connection[Any],
    started: float,
    fingerprint: str,
    reason: Reason,
    pick: str,
    values: dict[str, Any],
) -> list[Lease]:
    """Take the probe and lease one account for it. Without an account to lease, the probe stays available."""
    leased: list[Lease] = []
    with conn.transaction():
        if credentials.take_probe(conn, fingerprint):
            leased = _lease(conn, started, reason, pick, {**values, "slots": 1})
        if not leased:
            raise psycopg.Rollback
    return leased


def _lease(
    conn: psycopg.Connection[Any], started: float, reason: Reason, pick: str, values: dict[str, Any]
) -> list[Lease]:
    with conn.cursor(row_factory=dict_row) as cur:
        rows = cur.execute(
            lease_sql.LEASE.format(pick=pick).encode(), {**values, "reason": reason, "lease_s": LEASE_S}
        ).fetchall()
    return [Lease(started=started, reason=reason, **row) for row in rows]


def holds(conn: psycopg.Connection[Any], lease: Lease) -> bool:
    """Return whether the row still has the nonce and the authorization of this lease."""
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
    """Store a good response; None for `refresh_token` keeps the old one.

    Returns False when the row is gone, has a newer authorization, or has the response of a later lease. If an upload
    has moved the pair to `rdstation_replaced_tokens` meanwhile, the response is stored there.
    """
    encrypted = keys.encrypt("access_token", lease.account_id, access_token)
    conn.execute(lease_sql.LOCK, lease.key)
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


def is_orphan(conn: psycopg.Connection[Any], lease: Lease) -> bool:
    """Return whether the account's row is gone and no other row uses, or may use, the same RD Station account."""
    values = {"account_id": lease.account_id, "name": lease.name}
    return conn.execute(lease_sql.IS_ORPHAN, values).fetchone() == (True,)


def back_off(conn: psycopg.Connection[Any], lease: Lease, error: str) -> bool:
    """Schedule the next attempt after an exponential back-off with full jitter: 30 s to 10 min, at most 5 % of the
    lifetime. Returns False when the lease is lost."""
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
    """Schedule the next attempt after `wait_s` seconds, at most 10 minutes or a quarter of the remaining lifetime.

    Returns False when the lease is lost.
    """
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
    """Record that RD Station refused the refresh token.

    The first refusal is final, unless it is `doubtful` or the outcome of an earlier attempt with the same authorization
    is unknown; then the third within at least ten minutes is. Returns None when the row has changed meanwhile: then the
    refusal is about an older token and has no effect.

    After a final refusal, a pair that was kept takes the place of the refused one. Only when RD Station has refused
    both must an operator authorize again.
    """
    conn.execute(lease_sql.LOCK, lease.key)
    values = _of_second_looks(lease) | {
        "error": error,
        "doubtful": doubtful,
        "needed": REFUSALS_NEEDED,
        "over_s": REFUSED_FOR_S,
        "share": BACKOFF_SHARE,
    }
    row = conn.execute(lease_sql.REFUSE_AGAIN if lease.refused else lease_sql.REFUSE, values).fetchone()
    if row is None:
        release(conn, lease)
        return None
    final, last_error = row
    brought_back = final and _swap(conn, lease.account_id)
    return Refusal(final=final and not brought_back, brought_back=brought_back, error=last_error)


def look_later(conn: psycopg.Connection[Any], lease: Lease) -> bool:
    """End the lease of a refused token when RD Station did not say whether it works; after a second look, plan another.

    Returns False when the lease is lost.
    """
    return conn.execute(lease_sql.LOOK_LATER, _of_second_looks(lease)).fetchone() is not None


def skip_look(conn: psycopg.Connection[Any], lease: Lease) -> None:
    """End the lease and plan the next second look, as if RD Station had refused the token again."""
    conn.execute(lease_sql.REFUSE_AGAIN, _of_second_looks(lease))


def same_name_works(conn: psycopg.Connection[Any], lease: Lease) -> bool:
    """Return whether another row of an RD Station account with this name works.

    Then this row's token may have been refused because of that one's authorization, and a second look could end it.
    """
    return conn.execute(lease_sql.SAME_NAME_WORKS, {**lease.key, "name": lease.name}).fetchone() == (True,)


def _of_second_looks(lease: Lease) -> dict[str, object]:
    return {
        **lease.key,
        "pauses_s": list(SECOND_LOOK_PAUSES_S),
        "counts": int(lease.reason == "second_look"),
    }


def _swap(conn: psycopg.Connection[Any], account_id: str) -> bool:
    """Let the row's pair and the kept one change places; return whether the other has not been refused yet."""
    values = {"account_id": account_id, "lease_s": LEASE_S}
    return conn.execute(lease_sql.SWAP, values).fetchone() == (True,)


def credentials_refused(conn: psycopg.Connection[Any], lease: Lease) -> bool:
    """Record that the client credentials were refused, not this account. The row stays due, behind the closed gate.

    Returns False when the lease is lost.
    """
    return conn.execute(lease_sql.CREDENTIALS_REFUSED, lease.key).fetchone() is not None


def damaged(conn: psycopg.Connection[Any], lease: Lease) -> bool:
    """Record that the refresh token cannot be decrypted although its key is configured. Returns False when the lease
    is lost."""
    return conn.execute(lease_sql.DAMAGED, lease.key).fetchone() is not None


def release(conn: psycopg.Connection[Any], lease: Lease) -> None:
    """End the lease and leave the rest of the row unchanged."""
    conn.execute(lease_sql.RELEASE, lease.key)


def postpone(conn: psycopg.Connection[Any], lease: Lease) -> None:
    """End the lease of a row that the caller cannot decrypt.

    Workers skip the row for `UNDECRYPTABLE_S` seconds; requests and operators may still lease it.
    """
    conn.execute(lease_sql.POSTPONE, {**lease.key, "wait_s": UNDECRYPTABLE_S})


def seconds_until_due(conn: psycopg.Connection[Any]) -> float | None:
    """Return the seconds until a refresh is due for workers, negative when overdue, or None without any account."""
    row = conn.execute(lease_sql.SECONDS_UNTIL_DUE).fetchone()
    return None if row is None or row[0] is None else float(row[0])
