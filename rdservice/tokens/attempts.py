"""The record of refresh attempts: when, by which process, with what outcome. It never holds a secret."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.rows import class_row

KEEP_DAYS = 30

Outcome = Literal["stored", "refused", "transient", "superseded", "released"]

FINISH = """
UPDATE rdstation_refresh_attempts
   SET finished_at = rd_now(), outcome = %(outcome)s, http_status = %(http_status)s, duration_ms = %(duration_ms)s,
       error = %(error)s, answer_unknown = %(answer_unknown)s
 WHERE claim_no = %(claim_no)s AND outcome IS NULL
"""
RECENT = """
SELECT claim_no, account_id, reason, claimed_by, started_at, finished_at, outcome, http_status, duration_ms, error
  FROM rdstation_refresh_attempts WHERE account_id = %(account_id)s ORDER BY claim_no DESC LIMIT %(limit)s
"""
# An attempt without an outcome is under way, or its process died.
BY_HOUR = """
SELECT date_trunc('hour', started_at, 'UTC') AS hour,
       count(*) FILTER (WHERE outcome = 'stored') AS stored,
       count(*) FILTER (WHERE outcome = 'refused') AS refused,
       count(*) FILTER (WHERE outcome = 'transient'
                           OR outcome IS NULL AND started_at < rd_now() - interval '2 minutes') AS postponed
  FROM rdstation_refresh_attempts
 WHERE account_id = %(account_id)s AND started_at > rd_now() - make_interval(days => %(days)s)
 GROUP BY hour ORDER BY hour
"""
PRUNE = """
DELETE FROM rdstation_refresh_attempts WHERE claim_no = ANY (ARRAY(
    SELECT claim_no FROM rdstation_refresh_attempts
     WHERE started_at < rd_now() - make_interval(days => %(days)s) ORDER BY started_at LIMIT %(batch)s
       FOR UPDATE SKIP LOCKED))
"""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt. `outcome` is None while it runs, and stays None if its process died."""

    claim_no: int
    account_id: str
    reason: str
    claimed_by: str
    started_at: datetime
    finished_at: datetime | None
    outcome: Outcome | None
    http_status: int | None
    duration_ms: int | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HourOfAttempts:
    """The number of attempts within an hour (UTC), by outcome. `postponed` attempts failed, or their process died."""

    hour: datetime
    stored: int
    refused: int
    postponed: int


def finish(
    conn: psycopg.Connection[Any],
    claim_no: int,
    outcome: Outcome,
    *,
    http_status: int | None = None,
    duration_s: float | None = None,
    error: str | None = None,
    answer_unknown: bool = False,
) -> None:
    """Record the outcome of an attempt. `answer_unknown`: it may have taken effect, but the response was lost."""
    conn.execute(
        FINISH,
        {
            "claim_no": claim_no,
            "outcome": outcome,
            "http_status": http_status,
            "duration_ms": None if duration_s is None else round(duration_s * 1000),
            "error": error,
            "answer_unknown": answer_unknown,
        },
    )


def recent(conn: psycopg.Connection[Any], account_id: str, *, limit: int = 20) -> list[Attempt]:
    """Return the newest attempts of an account, newest first."""
    with conn.cursor(row_factory=class_row(Attempt)) as cur:
        return cur.execute(RECENT, {"account_id": account_id, "limit": limit}).fetchall()


def by_hour(conn: psycopg.Connection[Any], account_id: str) -> list[HourOfAttempts]:
    """Return the hours of the last 30 days in which the account had attempts, oldest first."""
    with conn.cursor(row_factory=class_row(HourOfAttempts)) as cur:
        return cur.execute(BY_HOUR, {"account_id": account_id, "days": KEEP_DAYS}).fetchall()


def prune(conn: psycopg.Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` attempts older than 30 days; return the number deleted."""
    return conn.execute(PRUNE, {"days": KEEP_DAYS, "batch": batch}).rowcount
