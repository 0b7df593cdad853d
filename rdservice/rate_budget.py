"""How many calls an account may still make at RD Station, counted in PostgreSQL for all processes together.

RD Station allows an account a number of calls in any 60 seconds (documented: 120 a minute on the smaller plans). Calls
are counted by the second, and a second counts for 62: RD Station counts a call when it arrives, and one may take a
second longer on its way than another. The only owner of `rdstation_rate_budgets`.
"""

import random
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from rdservice import database
from rdservice.errors import TooManyRequests
from rdservice.rdstation import Answer

WINDOW_S = 62
LONGEST_CLOSED_S = 600.0
CLOSED_WITHOUT_WORD_S = (5.0, 15.0)
"""Between these, at random, the account pauses after a 429 that does not say for how long."""

# The seconds that count. A clock that was set back must not leave calls of the future behind.
COUNTED = """
SELECT key::bigint AS second, value::integer AS calls FROM jsonb_each_text(b.calls)
 WHERE key::bigint BETWEEN floor(EXTRACT(epoch FROM rd_now())) - %(window_s)s + 1
                       AND floor(EXTRACT(epoch FROM rd_now())) + 5
"""
# One row and one statement: whoever comes at the same moment waits for the row and then sees its new content.
TAKE = f"""
INSERT INTO rdstation_rate_budgets AS b (account_id, calls, updated_at)
VALUES (%(account_id)s, jsonb_build_object(floor(EXTRACT(epoch FROM rd_now()))::bigint, 1), rd_now())
ON CONFLICT (account_id) DO UPDATE
   SET calls = (SELECT jsonb_object_agg(second, calls) FROM (
                    SELECT second, sum(calls) AS calls
                      FROM (SELECT * FROM ({COUNTED}) earlier
                             UNION ALL SELECT floor(EXTRACT(epoch FROM rd_now()))::bigint, 1) every
                     GROUP BY second) summed),
       updated_at = rd_now()
 WHERE %(anyway)s
    OR (COALESCE(b.closed_until, '-infinity') <= rd_now()
        AND (SELECT COALESCE(sum(calls), 0) FROM ({COUNTED}) counted) < %(allowed)s)
RETURNING 1
"""  # noqa: S608 - COUNTED is the constant above
# A second leaves the window when enough later ones are left to stay below the limit.
WAIT = f"""
SELECT GREATEST(
           EXTRACT(epoch FROM b.closed_until - rd_now()),
           (SELECT min(second) + %(window_s)s - EXTRACT(epoch FROM rd_now())
              FROM (SELECT second, sum(calls) OVER () AS total,
                           sum(calls) OVER (ORDER BY second DESC) - calls AS later
                      FROM ({COUNTED}) counted) summed
             WHERE total >= %(allowed)s AND later < %(allowed)s),
           0)::float8
  FROM rdstation_rate_budgets b WHERE account_id = %(account_id)s
"""  # noqa: S608 - COUNTED is the constant above
CLOSE = """
INSERT INTO rdstation_rate_budgets AS b (account_id, calls, closed_until, updated_at)
VALUES (%(account_id)s, '{}', rd_now() + make_interval(secs => %(closed_s)s), rd_now())
ON CONFLICT (account_id) DO UPDATE
   SET closed_until = GREATEST(b.closed_until, EXCLUDED.closed_until), updated_at = rd_now()
"""
PRUNE = """
DELETE FROM rdstation_rate_budgets WHERE account_id = ANY (ARRAY(
    SELECT account_id FROM rdstation_rate_budgets
     WHERE updated_at < rd_now() - interval '1 hour' ORDER BY updated_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
"""


class RateBudget:
    """Every call to `/platform` and `/marketing` goes through `spend`, or is at least counted with `count`."""

    def __init__(self, pool: ConnectionPool[psycopg.Connection[Any]], allowed: int) -> None:
        """`allowed`: calls a minute and account (RDSTATION_RATE_LIMIT)."""
        self._pool = pool
        self._allowed = allowed

    def spend(self, account_id: str, call: Callable[[], Answer]) -> Answer:
        """Make one call for the account. Raises TooManyRequests, without a call, while its budget is spent or closed.

        A 429 closes the budget for as long as RD Station says, in all processes.
        """
        values = self._values(account_id, anyway=False)
        with database.transaction(self._pool) as conn:
            taken = conn.execute(TAKE, values).fetchone() is not None
            wait = None if taken else conn.execute(WAIT, values).fetchone()
        if not taken:
            raise TooManyRequests(
                "The account's calls to RD Station within a minute are spent"
                f" (RDSTATION_RATE_LIMIT={self._allowed}), or RD Station asked for a pause."
                " Wait as long as Retry-After says.",
                retry_after_s=max(1.0, wait[0] if wait else 1.0),
            )
        answer = call()
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            self._close(account_id, answer.retry_after_s)
        return answer

    def count(self, account_id: str) -> None:
        """Count a call that is made whatever the budget says, such as the check of an uploaded token."""
        with database.transaction(self._pool) as conn:
            conn.execute(TAKE, self._values(account_id, anyway=True))

    def _values(self, account_id: str, *, anyway: bool) -> dict[str, object]:
        return {
            "account_id": account_id,
            "allowed": self._allowed,
            "anyway": anyway,
            "window_s": WINDOW_S,
        }

    def _close(self, account_id: str, retry_after_s: float | None) -> None:
        if retry_after_s is None:
            retry_after_s = random.uniform(*CLOSED_WITHOUT_WORD_S)  # noqa: S311 - no secret
        closed_s = min(retry_after_s, LONGEST_CLOSED_S)
        with database.transaction(self._pool) as conn:
            conn.execute(CLOSE, {"account_id": account_id, "closed_s": closed_s})


def prune(conn: psycopg.Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` budgets that nobody used for an hour; return how many."""
    return conn.execute(PRUNE, {"batch": batch}).rowcount
