"""Rows for the diagnosis, including those that the running service cannot use."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

# Accounts in trouble come first: a page or file that cannot hold all accounts must not leave these out. Each branch
# reads the index rdstation_tokens_overview in its order, so the cost does not grow with the table. Accounts whose
# refreshes keep failing are among the first to expire.
READ = """
WITH picked AS (
    SELECT account_id, 0 AS place FROM rdstation_tokens WHERE account_id = %(first)s
    UNION ALL
    SELECT found.account_id, kind.place
      FROM (VALUES ('reauthorization_required', 1), ('credentials_refused', 1), ('unverified', 1), ('connected', 2))
               AS kind (status, place),
           LATERAL (SELECT account_id FROM rdstation_tokens WHERE status = kind.status
                     ORDER BY expires_at LIMIT %(limit)s) AS found),
placed AS (SELECT account_id, min(place) AS place FROM picked GROUP BY account_id)
SELECT account_id, expires_at, refresh_after, retry_at, last_error, failures, stored_claim, access_token, refresh_token,
       COALESCE(leased_until > rd_now(), false) AS leased,
       CASE WHEN status = 'connected' AND expires_at <= rd_now() THEN 'expired' ELSE status END AS status,
       EXTRACT(epoch FROM expires_at - rd_now())::float8 AS life_left_s,
       GREATEST(EXTRACT(epoch FROM retry_at - rd_now()), 0)::float8 AS retry_in_s
  FROM placed JOIN rdstation_tokens USING (account_id)
 ORDER BY place, last_error IS NULL, expires_at, account_id
 LIMIT %(limit)s
"""
COUNT = "SELECT count(*) FROM rdstation_tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An account's row with its stored, encrypted values. Seconds count from the moment of the query."""

    account_id: str
    status: str
    expires_at: datetime
    life_left_s: float
    refresh_after: datetime
    retry_at: datetime | None
    retry_in_s: float
    last_error: str | None
    failures: int
    stored_claim: int
    leased: bool
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)


def rows(conn: psycopg.Connection[Any], *, first: str | None = None, limit: int = 100) -> list[Row]:
    """Return up to `limit` rows: the account `first`, then accounts in trouble, then those that expire first."""
    with conn.cursor(row_factory=class_row(Row)) as cur:
        return cur.execute(READ, {"first": first, "limit": limit}).fetchall()


def count(conn: psycopg.Connection[Any]) -> int:
    """Return the number of accounts."""
    row = conn.execute(COUNT).fetchone()
    return 0 if row is None else int(row[0])
