"""Claims: who may exchange an account's refresh token now, and how the answer gets into its row.

A lease decides who may start an exchange. It does not decide who may store: whoever holds a good answer stores it,
unless a newer answer or a newer authorization is there (`authorization_id`, `stored_claim`).
"""

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from rdservice.encryption import KeyRing
from rdservice.tokens import credentials

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

SeenReason = Literal["early", "operator", "rejected"]
Reason = Literal["due"] | SeenReason

# FOR NO KEY UPDATE, as the UPDATE that follows: rows that come to refer to an account (FOR KEY SHARE) hide it from no
# claim.
PICK_DUE = """
SELECT account_id FROM rdstation_tokens
 WHERE status <> 'reauthorization_required' AND due_at <= rd_now()
 ORDER BY due_at LIMIT %(slots)s
   FOR NO KEY UPDATE SKIP LOCKED
"""
# What the caller saw must still be there: who renewed it since has done the work.
PICK_SEEN = """
SELECT account_id FROM rdstation_tokens
 WHERE account_id = %(account_id)s AND authorization_id = %(authorization_id)s AND stored_claim = %(stored_claim)s
   AND status <> 'reauthorization_required'
   AND COALESCE(retry_at, '-infinity') <= rd_now() AND COALESCE(leased_until, '-infinity') <= rd_now()
   FOR NO KEY UPDATE SKIP LOCKED
"""
# RD Station refused an access token that should live: worth one exchange of that token in five minutes.
PICK_REJECTED = (
    PICK_SEEN.removesuffix("   FOR NO KEY UPDATE SKIP LOCKED\n")
    + """\
   AND NOT EXISTS (
       SELECT FROM rdstation_refresh_attempts
        WHERE account_id = %(account_id)s AND reason = 'rejected' AND started_at > rd_now() - interval '5 minutes')
   FOR NO KEY UPDATE SKIP LOCKED
"""
)
# A person may try a refused token once more.
PICK_FOR_OPERATOR = """
SELECT account_id FROM rdstation_tokens
 WHERE account_id = %(account_id)s AND authorization_id = %(authorization_id)s AND stored_claim = %(stored_claim)s
   AND COALESCE(retry_at, '-infinity') <= rd_now() AND COALESCE(leased_until, '-infinity') <= rd_now()
   FOR NO KEY UPDATE SKIP LOCKED
"""
PICKS: dict[SeenReason, str] = {
    "early": PICK_SEEN,
    "rejected": PICK_REJECTED,
    "operator": PICK_FOR_OPERATOR,
}
# The attempt's row is written with the claim: it shows that the database takes writes before a token is spent.
CLAIM = """
WITH picked AS ({pick}),
claimed AS (
    UPDATE rdstation_tokens t
       SET holder = gen_random_uuid(), leased_until = rd_now() + make_interval(secs => %(lease_s)s),
           attempted_at = rd_now()
      FROM picked WHERE t.account_id = picked.account_id
    RETURNING t.account_id, t.refresh_token, t.authorization_id, t.stored_claim, t.holder, t.refresh_after),
numbered AS (SELECT nextval('rdstation_claims') AS claim_no, claimed.* FROM claimed ORDER BY refresh_after),
attempt AS (
    INSERT INTO rdstation_refresh_attempts (claim_no, account_id, authorization_id, reason, claimed_by, started_at)
    SELECT claim_no, account_id, authorization_id, %(reason)s, %(claimed_by)s, rd_now() FROM numbered)
SELECT claim_no, account_id, refresh_token, authorization_id, stored_claim, holder, rd_now() AS claimed_at
  FROM numbered ORDER BY claim_no
"""
HOLDS = """
SELECT 1 FROM rdstation_tokens
 WHERE account_id = %(account_id)s AND authorization_id = %(authorization_id)s AND holder = %(holder)s
"""
# `<=`: the same answer again, after a commit whose success was unsure, changes nothing.
STORE = """
WITH stored AS (
    UPDATE rdstation_tokens
       SET access_token = %(access_token)s, refresh_token = COALESCE(%(refresh_token)s, refresh_token),
           issued_at = %(claimed_at)s, expires_at = %(expires_at)s,
           refresh_after = %(claimed_at)s
               + (%(expires_at)s - %(claimed_at)s) * (%(share)s - %(spread)s * random()),
           status = 'connected', stored_claim = %(claim_no)s, retry_at = NULL,
           holder = NULLIF(holder, %(holder)s),
           leased_until = CASE WHEN holder = %(holder)s THEN NULL ELSE leased_until END,
           failures = 0, refusals = 0, refused_since = NULL, last_error = NULL,
           refreshed_at = rd_now(), updated_at = rd_now()
     WHERE account_id = %(account_id)s AND authorization_id = %(authorization_id)s AND stored_claim <= %(claim_no)s
    RETURNING account_id),
proven AS (DELETE FROM rdstation_replaced_tokens r USING stored WHERE r.account_id = stored.account_id)
SELECT 1 FROM stored
"""
BACK_OFF = """
UPDATE rdstation_tokens
   SET failures = failures + 1, last_error = %(error)s, holder = NULL, leased_until = NULL, updated_at = rd_now(),
       retry_at = rd_now() + GREATEST(make_interval(secs => %(least_s)s), random() * LEAST(
           make_interval(secs => LEAST(%(last_s)s, %(first_s)s * 2 ^ LEAST(failures, 10))),
           (expires_at - issued_at) * %(share)s))
 WHERE account_id = %(account_id)s AND authorization_id = %(authorization_id)s AND holder = %(holder)s
RETURNING 1
"""
SLOW_DOWN = """
UPDATE rdstation_tokens
   SET failures = failures + 1, last_error = %(error)s, holder = NULL, leased_until = NULL, updated_at = rd_now(),
       retry_at = rd_now() + LEAST(
           make_interval(secs => LEAST(%(wait_s)s, %(last_s)s)),
           GREATEST((expires_at - rd_now()) / 4,
                    LEAST(make_interval(secs => %(first_s)s), (expires_at - issued_at) * %(share)s)))
 WHERE account_id = %(account_id)s AND authorization_id = %(authorization_id)s AND holder = %(holder)s
RETURNING 1
"""
# `doubtful`: an earlier attempt of this authorization has no known outcome, so that this refusal may be of a refresh
# token which that attempt has used up; its answer may still be stored.
REFUSE = """
WITH earlier AS (
    SELECT EXISTS (
        SELECT FROM rdstation_refresh_attempts
         WHERE account_id = %(account_id)s AND authorization_id = %(authorization_id)s
           AND claim_no > %(stored_claim)s AND claim_no < %(claim_no)s
           AND (outcome IS NULL OR answer_unknown)) AS unknown),
judged AS (
    SELECT t.account_id, earlier.unknown,
           NOT (earlier.unknown OR %(doubtful)s)
           OR (t.refusals + 1 >= %(needed)s
               AND t.refused_since <= rd_now() - make_interval(secs => %(over_s)s)) AS final
      FROM rdstation_tokens t, earlier
     WHERE t.account_id = %(account_id)s)
UPDATE rdstation_tokens t
   SET status = CASE WHEN judged.final THEN 'reauthorization_required' ELSE t.status END,
       last_error = CASE WHEN judged.unknown THEN 'answer_lost' ELSE %(error)s END,
       refusals = t.refusals + 1, refused_since = COALESCE(t.refused_since, rd_now()), failures = t.failures + 1,
       retry_at = rd_now() + LEAST(
           make_interval(secs => CASE WHEN judged.final THEN 60 ELSE %(over_s)s / 2.0 + 1 END),
           (t.expires_at - t.issued_at) * %(share)s),
       holder = NULL, leased_until = NULL, updated_at = rd_now()
  FROM judged
 WHERE t.account_id = judged.account_id AND t.authorization_id = %(authorization_id)s AND t.holder = %(holder)s
   AND t.stored_claim = %(stored_claim)s
RETURNING judged.final, t.last_error
"""
CREDENTIALS_REFUSED = """
UPDATE rdstation_tokens
   SET status = 'credentials_refused', last_error = 'credentials', failures = failures + 1,
       holder = NULL, leased_until = NULL, updated_at = rd_now()
 WHERE account_id = %(account_id)s AND authorization_id = %(authorization_id)s AND holder = %(holder)s
RETURNING 1
"""
# The value cannot be read, so no exchange can help: only a new authorization or a mended row.
DAMAGED = """
UPDATE rdstation_tokens
   SET status = 'reauthorization_required', last_error = 'damaged', failures = failures + 1,
       holder = NULL, leased_until = NULL, updated_at = rd_now()
 WHERE account_id = %(account_id)s AND authorization_id = %(authorization_id)s AND holder = %(holder)s
RETURNING 1
"""
RELEASE = """
UPDATE rdstation_tokens SET holder = NULL, leased_until = NULL
 WHERE account_id = %(account_id)s AND holder = %(holder)s
"""
# An uploaded pair was refused: the pair that it replaced comes back, due at once, under its own authorization.
BRING_BACK = """
WITH replaced AS (
    DELETE FROM rdstation_replaced_tokens WHERE account_id = %(account_id)s
    RETURNING account_id, access_token, refresh_token, issued_at, expires_at, name, connection_id, authorization_id,
              stored_claim)
UPDATE rdstation_tokens t
   SET access_token = r.access_token, refresh_token = r.refresh_token, issued_at = r.issued_at,
       expires_at = r.expires_at, name = r.name, connection_id = r.connection_id,
       authorization_id = r.authorization_id, stored_claim = r.stored_claim, status = 'connected',
       last_error = 'upload_refused', failures = 0, refusals = 0, refused_since = NULL,
       refresh_after = rd_now(), retry_at = NULL, updated_at = rd_now()
  FROM replaced r WHERE t.account_id = r.account_id
RETURNING 1
"""
SECONDS_UNTIL_DUE = """
SELECT EXTRACT(epoch FROM min(due_at) - rd_now())::float8 FROM rdstation_tokens
 WHERE status <> 'reauthorization_required'
"""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to start one exchange. `refresh_token` is encrypted as it stands in the row."""

    claim_no: int
    account_id: str
    refresh_token: str = field(repr=False)
    authorization_id: UUID
    stored_claim: int
    holder: UUID
    claimed_at: datetime
    started: float
    """Monotonic clock of this process, from before the claim."""

    @property
    def key(self) -> dict[str, object]:
        """The parameters that name this claim in SQL."""
        return {
            "account_id": self.account_id,
            "authorization_id": self.authorization_id,
            "holder": self.holder,
            "claim_no": self.claim_no,
            "stored_claim": self.stored_claim,
        }

    def lease_left_s(self) -> float:
        """Return the seconds for which nobody else can claim the account, by a clock that is never set."""
        return LEASE_S - (time.monotonic() - self.started)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What a refusal did: `final` when an operator must authorize again, `brought_back` when an uploaded pair gave way
    to the one that it had replaced."""

    final: bool
    brought_back: bool
    error: str


def claim_due(conn: psycopg.Connection[Any], *, fingerprint: str, slots: int, claimed_by: str) -> list[Claim]:
    """Claim up to `slots` accounts whose renewal is due, those due longest first."""
    return _claim(conn, fingerprint, claimed_by, "due", PICK_DUE, {"slots": slots})


def claim_seen(
    conn: psycopg.Connection[Any],
    account_id: str,
    *,
    authorization_id: UUID,
    stored_claim: int,
    fingerprint: str,
    claimed_by: str,
    reason: SeenReason,
) -> Claim | None:
    """Claim an account early, unless its row has moved on from what the caller saw, is leased or backs off.

    For the reason `rejected` also unless there was such an attempt within the last 5 minutes; for `operator`, a person
    who asked, whatever the account's status.
    """
    seen = {"account_id": account_id, "authorization_id": authorization_id, "stored_claim": stored_claim}
    claimed = _claim(conn, fingerprint, claimed_by, reason, PICKS[reason], seen)
    return claimed[0] if claimed else None


def _claim(
    conn: psycopg.Connection[Any],
    fingerprint: str,
    claimed_by: str,
    reason: Reason,
    pick: str,
    values: dict[str, Any],
) -> list[Claim]:
    values = {**values, "lease_s": LEASE_S, "reason": reason, "claimed_by": claimed_by}
    if credentials.closed_for(conn, fingerprint) is None:
        return _run_claim(conn, pick, values)
    # A probe is worth one account. It is given back when there is none to probe with.
    claimed: list[Claim] = []
    with conn.transaction():
        if credentials.take_probe(conn, fingerprint):
            claimed = _run_claim(conn, pick, {**values, "slots": 1})
        if not claimed:
            raise psycopg.Rollback
    return claimed


def _run_claim(conn: psycopg.Connection[Any], pick: str, values: dict[str, Any]) -> list[Claim]:
    started = time.monotonic()
    with conn.cursor(row_factory=dict_row) as cur:
        rows = cur.execute(CLAIM.format(pick=pick).encode(), values).fetchall()
    return [Claim(started=started, **row) for row in rows]


def holds(conn: psycopg.Connection[Any], claim: Claim) -> bool:
    """Return whether the row still holds this claim's nonce and authorization."""
    return conn.execute(HOLDS, claim.key).fetchone() is not None


def store(
    conn: psycopg.Connection[Any],
    claim: Claim,
    keys: KeyRing,
    *,
    access_token: str,
    refresh_token: str | None,
    expires_at: datetime,
) -> bool:
    """Store a good answer; None for `refresh_token` keeps the old one.

    Returns False when the row is gone, was authorized anew, or has the answer of a later claim.
    """
    encrypted = keys.encrypt("access_token", claim.account_id, access_token)
    row = conn.execute(
        STORE,
        {
            **claim.key,
            "access_token": encrypted,
            "refresh_token": (
                None
                if refresh_token is None
                else keys.encrypt("refresh_token", claim.account_id, refresh_token)
            ),
            "claimed_at": claim.claimed_at,
            "expires_at": expires_at,
            "share": REFRESH_AT_SHARE,
            "spread": REFRESH_SPREAD,
        },
    ).fetchone()
    if row is None:
        release(conn, claim)
    return row is not None


def back_off(conn: psycopg.Connection[Any], claim: Claim, error: str) -> bool:
    """Try again after an exponential back-off with full jitter, from 30 s to 10 min, at most 5 % of the lifetime."""
    values = {
        **claim.key,
        "error": error,
        "least_s": BACKOFF_LEAST_S,
        "first_s": BACKOFF_FIRST_S,
        "last_s": BACKOFF_LAST_S,
        "share": BACKOFF_SHARE,
    }
    return conn.execute(BACK_OFF, values).fetchone() is not None


def slow_down(conn: psycopg.Connection[Any], claim: Claim, error: str, *, wait_s: float) -> bool:
    """Try again after `wait_s`, at most 10 minutes or a quarter of the life that is left."""
    values = {
        **claim.key,
        "error": error,
        "wait_s": wait_s,
        "first_s": BACKOFF_FIRST_S,
        "last_s": BACKOFF_LAST_S,
        "share": BACKOFF_SHARE,
    }
    return conn.execute(SLOW_DOWN, values).fetchone() is not None


def refuse(conn: psycopg.Connection[Any], claim: Claim, error: str, *, doubtful: bool) -> Refusal | None:
    """Count a refusal of the refresh token.

    One is enough, unless it is `doubtful` or an earlier attempt of the same authorization has no known outcome: then it
    takes three over ten minutes. Returns None when the row has moved on, so that the refusal means nothing.
    """
    row = conn.execute(
        REFUSE,
        {
            **claim.key,
            "error": error,
            "doubtful": doubtful,
            "needed": REFUSALS_NEEDED,
            "over_s": REFUSED_FOR_S,
            "share": BACKOFF_SHARE,
        },
    ).fetchone()
    if row is None:
        release(conn, claim)
        return None
    final, last_error = row
    brought_back = final and conn.execute(BRING_BACK, claim.key).fetchone() is not None
    return Refusal(final=final and not brought_back, brought_back=brought_back, error=last_error)


def credentials_refused(conn: psycopg.Connection[Any], claim: Claim) -> bool:
    """Note that the settings, not this account, are to blame. The row stays due: the gate holds it back."""
    return conn.execute(CREDENTIALS_REFUSED, claim.key).fetchone() is not None


def damaged(conn: psycopg.Connection[Any], claim: Claim) -> bool:
    """Note that the refresh token cannot be decrypted although its key is there."""
    return conn.execute(DAMAGED, claim.key).fetchone() is not None


def release(conn: psycopg.Connection[Any], claim: Claim) -> None:
    """Give the claim back and leave the row as it was."""
    conn.execute(RELEASE, claim.key)


def seconds_until_due(conn: psycopg.Connection[Any]) -> float | None:
    """Return the seconds until the next renewal is due (negative when overdue), or None without any."""
    row = conn.execute(SECONDS_UNTIL_DUE).fetchone()
    return None if row is None or row[0] is None else float(row[0])
