"""How many calls an account may still make at RD Station, counted in PostgreSQL for all processes together.

The only owner of `rdstation_rate_limits`: a row for each account and class of calls holds the times of the last ones.
RD Station counts a call when it arrives, so each counts here for a second longer than there. A call that took over a
second is noted again when it ends, because it arrived before that.
"""

import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Literal, Protocol, TypeVar

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from rdservice.database.pool import transaction
from rdservice.errors import TooManyRequests

log = logging.getLogger(__name__)

PATIENCE_S = 2.0
"""How long a caller waits for a place if nothing else is said: long enough for the next one beside an export."""
ON_ITS_WAY_S = 1.0
ONE_IN_KEPT = 40
"""The background leaves this part of the places to other callers: 3 of 120."""
SHORTEST_CLOSED_S = 1.0
LONGEST_CLOSED_S = 600.0
CLOSED_WITHOUT_WORD_S = (5.0, 15.0)
"""Between these, at random, a class pauses after a 429 that does not say for how long."""
SHORTEST_PAUSE_S = 0.05
SEGMENTATION_LISTS = 240
"""Documented: calls a minute that list segmentations on the largest plan. On the others it is the plan's own limit."""


class Responded(Protocol):
    """What came of a call."""

    @property
    def status(self) -> int: ...

    @property
    def retry_after_s(self) -> float | None: ...


A = TypeVar("A", bound=Responded)

Limit = Literal["account", "segmentations", "contact"]
"""The class of a call: a list of segmentations, one of the 24 calls a day for changes and the funnel of a single
contact, or anything else."""


@dataclass(frozen=True, kw_only=True)
class RateLimit:
    """So many calls in any `window_s` seconds, for all classes that share the row `name`.

    `ahead_s`: how far ahead a caller may reserve a place. `longest_pause_s`: a 429 that asks for a longer pause speaks
    of something else than this limit.
    """

    name: str
    calls: int
    window_s: float = 60.0
    ahead_s: float = PATIENCE_S
    longest_pause_s: float = math.inf


def limits(allowed: int) -> dict[Limit, RateLimit]:
    """Return the limit of each class. `allowed`: calls a minute (RDSTATION_RATE_LIMIT)."""
    account = RateLimit(name="account", calls=allowed)
    return {
        "account": account,
        "segmentations": RateLimit(name="segmentations", calls=min(allowed, SEGMENTATION_LISTS)),
        # A contact's own limit ends after up to a day, the account's after a minute at the most.
        "contact": replace(account, longest_pause_s=account.window_s),
    }


ADD = (
    "INSERT INTO rdstation_rate_limits (budget, class) VALUES (%(budget)s, %(class)s) ON CONFLICT DO NOTHING"
)
# A concurrent call waits for the row and then computes with its new content. Times beyond what anyone can have
# reserved are those of a clock that was set back. The background may be a second behind its even pace and catch up.
TAKE = """
WITH found AS (
    SELECT rd_now() AS now,
           ARRAY(SELECT at FROM unnest(calls) at
                  WHERE at > rd_now() - %(window)s AND at <= rd_now() + interval '10 seconds' ORDER BY at) AS calls,
           CASE WHEN closed_until <= rd_now() + %(longest_closed)s THEN closed_until END AS closed_until,
           LEAST(background_at, rd_now() + %(pace)s) AS background_at
      FROM rdstation_rate_limits WHERE budget = %(budget)s AND class = %(class)s FOR UPDATE
), next AS (
    SELECT *, GREATEST(now, closed_until, calls[cardinality(calls)],
                       calls[cardinality(calls) - %(most)s + 1] + %(window)s,
                       CASE WHEN %(background)s THEN background_at END) AS at
      FROM found
), place AS (
    SELECT *, at <= now + %(ahead)s AS taken FROM next
)
UPDATE rdstation_rate_limits r
   SET calls = CASE WHEN taken THEN place.calls || at ELSE place.calls END,
       background_at = CASE WHEN taken AND %(background)s
                            THEN GREATEST(place.background_at, at - interval '1 second') + %(pace)s
                            ELSE place.background_at END,
       used_in_hour = date_trunc('hour', now)
  FROM place WHERE budget = %(budget)s AND class = %(class)s
RETURNING at, EXTRACT(epoch FROM at - now)::float8, taken
"""
# Of several calls with the same time one is noted again.
SETTLE = """
UPDATE rdstation_rate_limits
   SET calls = calls[:array_position(calls, %(at)s) - 1] || calls[array_position(calls, %(at)s) + 1:]
            || rd_now() - %(on_its_way)s
 WHERE budget = %(budget)s AND class = %(class)s AND %(at)s = ANY (calls)
"""
COUNT = """
INSERT INTO rdstation_rate_limits AS r (budget, class, calls) VALUES (%(budget)s, %(class)s, ARRAY[rd_now()])
ON CONFLICT (budget, class) DO UPDATE
   SET calls = ARRAY(SELECT at FROM unnest(r.calls) at WHERE at > rd_now() - %(window)s) || rd_now(),
       used_in_hour = date_trunc('hour', rd_now())
"""
CLOSED = "SELECT closed_until > rd_now() FROM rdstation_rate_limits WHERE budget = %(budget)s AND class = %(class)s"
CLOSE = """
UPDATE rdstation_rate_limits SET closed_until = GREATEST(closed_until, rd_now() + %(pause)s)
 WHERE budget = %(budget)s AND class = %(class)s
"""
STATES = """
SELECT budget, class,
       (SELECT count(*) FROM unnest(calls) at WHERE at BETWEEN rd_now() - interval '1 minute' AND rd_now()),
       GREATEST(EXTRACT(epoch FROM closed_until - rd_now()), 0)::float8
  FROM rdstation_rate_limits WHERE budget = ANY (%(account_ids)s) ORDER BY budget, class
"""
PRUNE = """
WITH old AS MATERIALIZED (
    SELECT budget, class FROM rdstation_rate_limits
     WHERE used_in_hour < rd_now() - interval '2 hours' ORDER BY used_in_hour LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
DELETE FROM rdstation_rate_limits r USING old WHERE (r.budget, r.class) = (old.budget, old.class)
"""


@dataclass(frozen=True)
class Place:
    """A moment for a call, `wait_s` seconds from when it was looked for, and whether it was taken."""

    at: datetime
    wait_s: float
    taken: bool


@dataclass(frozen=True, kw_only=True)
class State:
    """Calls of the last minute, and the seconds for which RD Station asked for a pause, 0 without one."""

    spent: int
    closed_for_s: float


class RateBudget:
    """Every call to `/platform` and `/marketing` goes through `spend`, or is at least counted with `count`."""

    def __init__(self, pool: ConnectionPool[psycopg.Connection[Any]], allowed: int) -> None:
        """`allowed`: calls a minute and account (RDSTATION_RATE_LIMIT)."""
        self._pool = pool
        self._allowed = allowed
        self._limits = limits(allowed)

    def spend(
        self,
        account_id: str,
        call: Callable[[], A],
        *,
        background: bool = False,
        timeout_s: float = PATIENCE_S,
        limit: Limit = "account",
        pause: Callable[[float], None] = time.sleep,
    ) -> A:
        """Make one call for the account, after `patience_s` seconds at most. No database connection is held meanwhile.

        Raises TooManyRequests, without a call, while the class `limit` is spent or closed for longer. `background`:
        nobody waits for this call; it goes after all others, which reserve the next free places, and at an even pace.
        `pause` waits so many seconds, and may raise in order to give up.

        A 429 closes the class for as long as RD Station says, in all processes and for everyone.
        """
        kept = self._limits[limit]
        give_up_at = time.monotonic() + timeout_s
        while True:
            began = time.monotonic()
            left_s = max(0.0, give_up_at - began)
            ahead_s = 0.0 if background else min(left_s, kept.ahead_s)
            with transaction(self._pool) as conn:
                place = take(conn, account_id, kept, ahead_s=ahead_s, background=background)
            if not place.taken and place.wait_s > left_s:
                raise self._spent(place.wait_s)
            if place.wait_s > 0:
                pause(max(place.wait_s, SHORTEST_PAUSE_S))
            # While this caller waited for its place another one may have been told to pause.
            if place.taken and not (place.wait_s > 0 and self._is_closed(account_id, kept)):
                break
        try:
            response = call()
        finally:
            if time.monotonic() - began - place.wait_s > ON_ITS_WAY_S:
                self._note(SETTLE, account_id, kept, at=place.at)
        if response.status == HTTPStatus.TOO_MANY_REQUESTS:
            self._close(account_id, kept, response.retry_after_s)
        return response

    def count(self, account_id: str) -> None:
        """Count a call that is made whatever the budget says, such as the check of an uploaded token."""
        self._note(COUNT, account_id, self._limits["account"])

    def _is_closed(self, account_id: str, limit: RateLimit) -> bool:
        with transaction(self._pool) as conn:
            return conn.execute(CLOSED, _values(account_id, limit)).fetchone() == (True,)

    def _close(self, account_id: str, limit: RateLimit, pause_s: float | None) -> None:
        if pause_s is None:
            pause_s = random.uniform(*CLOSED_WITHOUT_WORD_S)  # noqa: S311 - no secret
        if pause_s <= limit.longest_pause_s:
            pause_s = min(max(pause_s, SHORTEST_CLOSED_S), LONGEST_CLOSED_S)
            self._note(CLOSE, account_id, limit, pause=timedelta(seconds=pause_s))

    def _note(self, statement: str, account_id: str, limit: RateLimit, **values: Any) -> None:
        """Write what happened, if the database takes it: a call that was made must not fail for that."""
        try:
            with transaction(self._pool) as conn:
                conn.execute(statement.encode(), _values(account_id, limit) | values)
        except (psycopg.Error, PoolTimeout) as error:
            log.warning("a call's time or a pause was not noted (%s)", type(error).__name__)

    def _spent(self, wait_s: float) -> TooManyRequests:
        return TooManyRequests(
            "The account's calls to RD Station within a minute are spent"
            f" (RDSTATION_RATE_LIMIT={self._allowed}), or RD Station asked for a pause."
            " Wait as long as Retry-After says.",
            retry_after_s=max(1.0, wait_s),
        )


def take(
    conn: psycopg.Connection[Any], account_id: str, limit: RateLimit, *, ahead_s: float, background: bool
) -> Place:
    """Take the next place for a call, if it is no more than `ahead_s` seconds away."""
    values = _values(account_id, limit)
    most = limit.calls - (limit.calls // ONE_IN_KEPT if background else 0)
    values |= {"most": most, "pace": values["window"] / most, "background": background}
    values |= {"ahead": timedelta(seconds=ahead_s), "longest_closed": timedelta(seconds=LONGEST_CLOSED_S)}
    row = conn.execute(TAKE, values).fetchone()
    while row is None:
        conn.execute(ADD, values)
        row = conn.execute(TAKE, values).fetchone()
    return Place(*row)


def states(conn: psycopg.Connection[Any], account_ids: Sequence[str]) -> dict[str, dict[str, State]]:
    """Return for each account the state of each limit; none for an account without calls of late."""
    found: dict[str, dict[str, State]] = {}
    for account_id, name, spent, closed_for_s in conn.execute(STATES, {"account_ids": list(account_ids)}):
        found.setdefault(account_id, {})[name] = State(spent=spent, closed_for_s=closed_for_s)
    return found


def prune(conn: psycopg.Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` rows that nobody used for an hour; return how many."""
    return conn.execute(PRUNE, {"batch": batch}).rowcount


def _values(account_id: str, limit: RateLimit) -> dict[str, Any]:
    on_its_way = timedelta(seconds=ON_ITS_WAY_S)
    window = timedelta(seconds=limit.window_s) + on_its_way
    return {"budget": account_id, "class": limit.name, "window": window, "on_its_way": on_its_way}
