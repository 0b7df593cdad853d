"""The rate budget: how many calls an account may still make, counted in PostgreSQL for all processes together.

This is a sliding-window log. The module is the only owner of `rdstation_rate_limits`, which has a row per account and
class of calls with the times of the last calls. RD Station counts a call when it arrives, up to a second after it was
sent, so each call counts here for a second longer. When a call took over a second, its time is replaced once it has
ended: it arrived before that.
"""

import math
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Literal, Protocol, TypeVar

import psycopg
from psycopg_pool import ConnectionPool

from rdservice.database import outage
from rdservice.database.pool import transaction
from rdservice.errors import TooManyRequests

TIMEOUT_S = 2.0
"""Default for how long a call waits for a slot: long enough for the next one beside an export."""
ON_ITS_WAY_S = 1.0
"""How long a call may take to arrive at RD Station."""
ONE_IN_KEPT = 40
"""Background calls leave one slot in so many to other callers: 3 of 120."""
SHORTEST_CLOSED_S = 1.0
LONGEST_CLOSED_S = 600.0
CLOSED_WITHOUT_WORD_S = (5.0, 15.0)
"""Range of the random pause after a 429 without `Retry-After`."""
SHORTEST_PAUSE_S = 0.05
NOTE_S = 1.0
"""How long a note may keep a caller waiting."""
NOTES_AT_ONCE = 4
SEGMENTATION_LISTS = 240
"""Calls per minute that may list segmentations on the largest plan, as documented. Smaller plans have lower limits."""


class Responded(Protocol):
    """The response of a call, as far as the budget reads it."""

    @property
    def status(self) -> int: ...

    @property
    def retry_after_s(self) -> float | None: ...


A = TypeVar("A", bound=Responded)

Limit = Literal["account", "segmentations", "contact"]
"""The class of a call. `segmentations`: a list of segmentations; `contact`: a change of a contact or a call about its
funnels, of which RD Station allows 24 a day per contact; `account`: anything else."""


@dataclass(frozen=True, kw_only=True)
class RateLimit:
    """At most `calls` calls in any `window_s` seconds, for all classes that share the row `name`.

    `ahead_s`: how far ahead a caller may reserve a slot. `longest_pause_s`: a 429 with a longer `Retry-After` is about
    another limit and does not close this one.
    """

    name: str
    calls: int
    window_s: float = 60.0
    ahead_s: float = TIMEOUT_S
    longest_pause_s: float = math.inf


def limits(allowed: int) -> dict[Limit, RateLimit]:
    """Return the limit of each class. `allowed`: calls per minute (RDSTATION_RATE_LIMIT)."""
    account = RateLimit(name="account", calls=allowed)
    return {
        "account": account,
        "segmentations": RateLimit(name="segmentations", calls=min(allowed, SEGMENTATION_LISTS)),
        # A contact's own limit lasts up to a day, the account's at most a minute.
        "contact": replace(account, longest_pause_s=account.window_s),
    }


ADD = (
    "INSERT INTO rdstation_rate_limits (budget, class) VALUES (%(budget)s, %(class)s) ON CONFLICT DO NOTHING"
)
# A concurrent statement waits for the row lock and then computes with the new content. Times further ahead than any
# caller can reserve come from before the clock was set back. Background calls may fall up to a second behind their even
# pace and catch up.
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
), slot AS (
    SELECT *, at <= now + %(ahead)s AS taken FROM next
)
UPDATE rdstation_rate_limits r
   SET calls = CASE WHEN taken THEN slot.calls || at ELSE slot.calls END,
       background_at = CASE WHEN taken AND %(background)s
                            THEN GREATEST(slot.background_at, at - interval '1 second') + %(pace)s
                            ELSE slot.background_at END,
       used_in_hour = date_trunc('hour', now)
  FROM slot WHERE budget = %(budget)s AND class = %(class)s
RETURNING at, EXTRACT(epoch FROM at - now)::float8, taken
"""
# Of several calls with the same time, this replaces one.
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
class Slot:
    """The next free time for a call, `wait_s` seconds from now, and whether this caller has taken it."""

    at: datetime
    wait_s: float
    taken: bool


@dataclass(frozen=True, kw_only=True)
class State:
    """Calls in the last minute, and the seconds left of a pause after a 429 (0 without one)."""

    spent: int
    closed_for_s: float


class RateBudget:
    """The rate budget. Every call to `/platform` and `/marketing` must go through `spend`, or at least `count`."""

    def __init__(
        self,
        pool: ConnectionPool[psycopg.Connection[Any]],
        allowed: int,
        *,
        on_lost_note: Callable[[], None] = lambda: None,
    ) -> None:
        """`allowed`: calls per minute and account (RDSTATION_RATE_LIMIT).

        `on_lost_note` is called when the time of a call, or a pause after a 429, could not be recorded.
        """
        self._pool = pool
        self._allowed = allowed
        self._limits = limits(allowed)
        self._on_lost_note = on_lost_note
        # A database that accepts statements and does not respond holds a thread for as long as TCP lets it.
        self._notes = ThreadPoolExecutor(NOTES_AT_ONCE, thread_name_prefix="notes")

    def spend(
        self,
        account_id: str,
        call: Callable[[], A],
        *,
        background: bool = False,
        timeout_s: float = TIMEOUT_S,
        limit: Limit = "account",
        pause: Callable[[float], None] = time.sleep,
    ) -> A:
        """Wait up to `timeout_s` seconds for a slot, make one call for the account, and return its response.

        Raises TooManyRequests, without a call, if the class `limit` has no slot within `timeout_s`. `background`: no
        person waits for this call; it comes after all others, which reserve the next free slots, and at an even pace.
        `pause` waits for a number of seconds, and may raise to give up. No database connection is held during waits or
        during the call.

        After a 429 no process makes calls of this class for this account for as long as `Retry-After` says.
        """
        kept = self._limits[limit]
        deadline = time.monotonic() + timeout_s
        while True:
            began = time.monotonic()
            left_s = max(0.0, deadline - began)
            ahead_s = 0.0 if background else min(left_s, kept.ahead_s)
            with transaction(self._pool) as conn:
                slot = take(conn, account_id, kept, ahead_s=ahead_s, background=background)
            if not slot.taken and slot.wait_s > left_s:
                raise self._spent(slot.wait_s)
            if slot.wait_s > 0:
                pause(max(slot.wait_s, SHORTEST_PAUSE_S))
            # While this caller waited for its slot, another one may have got a 429.
            if slot.taken and not (slot.wait_s > 0 and self._is_closed(account_id, kept)):
                break
        try:
            response = call()
        finally:
            if time.monotonic() - began - slot.wait_s > ON_ITS_WAY_S:
                self._note(SETTLE, account_id, kept, at=slot.at)
        if response.status == HTTPStatus.TOO_MANY_REQUESTS:
            self._close(account_id, kept, response.retry_after_s)
        return response

    def count(self, account_id: str) -> None:
        """Count a call that does not wait for the budget, such as the check of an uploaded token."""
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
        """Write to the row, best effort: a call that was made must neither fail nor wait for that.

        Waits for `NOTE_S` seconds, because the next call should find the note.
        """

        def write() -> None:
            with transaction(self._pool) as conn:
                conn.execute(statement.encode(), _values(account_id, limit) | values)

        try:
            note = self._notes.submit(write)
            try:
                note.result(NOTE_S)
            finally:
                note.cancel()
        except Exception as error:  # noqa: BLE001 - whatever it was, the call has been made
            outage.log.warning("a call's time or a pause was not recorded (%s)", type(error).__name__)
            self._on_lost_note()

    def _spent(self, wait_s: float) -> TooManyRequests:
        return TooManyRequests(
            f"The account has used up its calls to RD Station per minute (RDSTATION_RATE_LIMIT={self._allowed}), or RD"
            " Station asked for a pause. Wait as long as Retry-After says.",
            retry_after_s=max(1.0, wait_s),
        )


def take(
    conn: psycopg.Connection[Any], account_id: str, limit: RateLimit, *, ahead_s: float, background: bool
) -> Slot:
    """Take the next slot for a call if it is at most `ahead_s` seconds away."""
    values = _values(account_id, limit)
    most = limit.calls - (limit.calls // ONE_IN_KEPT if background else 0)
    values |= {"most": most, "pace": values["window"] / most, "background": background}
    values |= {"ahead": timedelta(seconds=ahead_s), "longest_closed": timedelta(seconds=LONGEST_CLOSED_S)}
    row = conn.execute(TAKE, values).fetchone()
    while row is None:
        conn.execute(ADD, values)
        row = conn.execute(TAKE, values).fetchone()
    return Slot(*row)


def states(conn: psycopg.Connection[Any], account_ids: Sequence[str]) -> dict[str, dict[str, State]]:
    """Return the state of each limit by account ID and name of the limit; accounts without recent calls are missing."""
    found: dict[str, dict[str, State]] = {}
    for account_id, name, spent, closed_for_s in conn.execute(STATES, {"account_ids": list(account_ids)}):
        found.setdefault(account_id, {})[name] = State(spent=spent, closed_for_s=closed_for_s)
    return found


def prune(conn: psycopg.Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` rows that were not used for over an hour; return the number deleted."""
    return conn.execute(PRUNE, {"batch": batch}).rowcount


def _values(account_id: str, limit: RateLimit) -> dict[str, Any]:
    on_its_way = timedelta(seconds=ON_ITS_WAY_S)
    window = timedelta(seconds=limit.window_s) + on_its_way
    return {"budget": account_id, "class": limit.name, "window": window, "on_its_way": on_its_way}
