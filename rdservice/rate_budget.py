"""How many calls an account may still make at RD Station, counted in PostgreSQL for all processes together.

The only owner of `rdstation_rate_budgets`. The arithmetic is that of `rdservice.rate_slots`.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal, Protocol, TypeVar

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from rdservice import database
from rdservice.errors import TooManyRequests
from rdservice.rate_slots import LIMITED_S, LONGEST_CLOSED_S, MOST_AHEAD_S, Spent, on_its_way_s

PATIENCE_S = 2.0
"""How long a caller waits for a place if nothing else is said: long enough for the next one beside an export."""
SHORTEST_CLOSED_S = 1.0
CLOSED_WITHOUT_WORD_S = (5.0, 15.0)
"""Between these, at random, the account pauses after a 429 that does not say for how long."""
SHORTEST_PAUSE_S = 0.05


class Answered(Protocol):
    """What came of a call."""

    @property
    def status(self) -> int: ...

    @property
    def retry_after_s(self) -> float | None: ...


A = TypeVar("A", bound=Answered)

Limit = Literal["account", "segmentations", "contact"]
"""Which limit of RD Station a call falls under beside the account's: the one for lists of segmentations, or one of the
24 calls a day for changes and the funnel of a single contact."""

ADD = """
INSERT INTO rdstation_rate_budgets (account_id, calls, updated_at) VALUES (%(account_id)s, '{}', rd_now())
ON CONFLICT (account_id) DO NOTHING
"""
# Whoever comes at the same moment waits for the row, for one or two round trips, and then sees its new content.
LOCK = """
SELECT EXTRACT(epoch FROM rd_now())::float8, calls, segmentation_calls,
       EXTRACT(epoch FROM closed_until)::float8, EXTRACT(epoch FROM background_due)::float8
  FROM rdstation_rate_budgets WHERE account_id = %(account_id)s FOR UPDATE
"""
SAVE = """
UPDATE rdstation_rate_budgets
   SET calls = %(calls)s, segmentation_calls = %(segmentation_calls)s,
       background_due = to_timestamp(%(background_due)s), updated_at = rd_now()
 WHERE account_id = %(account_id)s
"""
CLOSED = "SELECT closed_until > rd_now() FROM rdstation_rate_budgets WHERE account_id = %(account_id)s"
CLOSE = """
INSERT INTO rdstation_rate_budgets AS b (account_id, calls, closed_until, updated_at)
VALUES (%(account_id)s, '{}', rd_now() + make_interval(secs => %(closed_s)s), rd_now())
ON CONFLICT (account_id) DO UPDATE
   SET closed_until = GREATEST(b.closed_until, EXCLUDED.closed_until), updated_at = rd_now()
"""
# Places of calls that wait are seconds to come.
STATES = """
SELECT account_id,
       (SELECT COALESCE(sum(value::int), 0) FROM jsonb_each_text(b.calls)
         WHERE key::bigint BETWEEN EXTRACT(epoch FROM rd_now()) - 60 AND EXTRACT(epoch FROM rd_now()))::int AS spent,
       GREATEST(EXTRACT(epoch FROM closed_until - rd_now()), 0)::float8 AS closed_for_s
  FROM rdstation_rate_budgets b WHERE account_id = ANY (%(account_ids)s)
"""
PRUNE = """
DELETE FROM rdstation_rate_budgets WHERE account_id = ANY (ARRAY(
    SELECT account_id FROM rdstation_rate_budgets
     WHERE updated_at < rd_now() - interval '1 hour' ORDER BY updated_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
"""


@dataclass(frozen=True)
class _Place:
    """A moment for a call, `wait_s` seconds from when the row was read, and whether it was taken."""

    at: float
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

    def spend(
        self,
        account_id: str,
        call: Callable[[], A],
        *,
        background: bool = False,
        patience_s: float = PATIENCE_S,
        limit: Limit = "account",
        pause: Callable[[float], None] = time.sleep,
    ) -> A:
        """Make one call for the account, after `patience_s` seconds at most. No database connection is held meanwhile.

        Raises TooManyRequests, without a call, while its budget is spent or closed for longer. `background`: nobody
        waits for this call; it goes after all others, which reserve the next free places, and at an even pace.
        `pause` waits so many seconds, and may raise in order to give up.

        A 429 closes the budget for as long as RD Station says, in all processes and for everyone.
        """
        give_up_at = time.monotonic() + patience_s
        while True:
            began = time.monotonic()
            left_s = max(0.0, give_up_at - began)
            ahead_s = 0.0 if background else min(left_s, MOST_AHEAD_S)
            place = self._take(account_id, ahead_s=ahead_s, background=background, limit=limit)
            if not place.taken and place.wait_s > left_s:
                raise self._spent(place.wait_s)
            if place.wait_s > 0:
                pause(max(place.wait_s, SHORTEST_PAUSE_S))
            # While this caller waited for its place another one may have been told to pause.
            if place.taken and not (place.wait_s > 0 and self._is_closed(account_id)):
                break
        answer = call()
        if time.monotonic() - began - place.wait_s > on_its_way_s(place.at):
            self._move(account_id, place, limit)
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            self._close(account_id, answer.retry_after_s, limit)
        return answer

    def count(self, account_id: str) -> None:
        """Count a call that is made whatever the budget says, such as the check of an uploaded token."""
        with database.transaction(self._pool) as conn:
            spent = self._lock(conn, account_id)
            self._save(
                conn,
                account_id,
                spent.with_call(spent.now, self._allowed, background=False, segmentations=False),
            )

    def _take(self, account_id: str, *, ahead_s: float, background: bool, limit: Limit) -> _Place:
        """Take the next place if it is no more than `ahead_s` away."""
        segmentations = limit == "segmentations"
        with database.transaction(self._pool) as conn:
            spent = self._lock(conn, account_id)
            at = spent.next_place(self._allowed, background=background, segmentations=segmentations)
            taken = at - spent.now <= ahead_s
            if taken:
                with_call = spent.with_call(
                    at, self._allowed, background=background, segmentations=segmentations
                )
                self._save(conn, account_id, with_call)
        return _Place(at, at - spent.now, taken)

    def _move(self, account_id: str, place: _Place, limit: Limit) -> None:
        with database.transaction(self._pool) as conn:
            spent = self._lock(conn, account_id)
            self._save(conn, account_id, spent.moved(place.at, segmentations=limit == "segmentations"))

    def _lock(self, conn: psycopg.Connection[Any], account_id: str) -> Spent:
        values = {"account_id": account_id}
        row = conn.execute(LOCK, values).fetchone()
        while row is None:
            conn.execute(ADD, values)
            row = conn.execute(LOCK, values).fetchone()
        now, calls, segmentation_calls, closed_until, background_due = row
        return Spent(
            now=now,
            calls=_by_second(calls),
            segmentation_calls=_by_second(segmentation_calls),
            closed_until=closed_until,
            background_due=background_due,
        )

    def _save(self, conn: psycopg.Connection[Any], account_id: str, spent: Spent) -> None:
        conn.execute(
            SAVE,
            {
                "account_id": account_id,
                "calls": Jsonb(spent.calls),
                "segmentation_calls": Jsonb(spent.segmentation_calls),
                "background_due": spent.background_due,
            },
        )

    def _is_closed(self, account_id: str) -> bool:
        with database.transaction(self._pool) as conn:
            return conn.execute(CLOSED, {"account_id": account_id}).fetchone() == (True,)

    def _close(self, account_id: str, retry_after_s: float | None, limit: Limit) -> None:
        if limit == "contact" and retry_after_s is not None and retry_after_s > LIMITED_S:
            # That contact's day is spent. The account's own limit asks for a minute at the most.
            return
        if retry_after_s is None:
            retry_after_s = random.uniform(*CLOSED_WITHOUT_WORD_S)  # noqa: S311 - no secret
        closed_s = min(max(retry_after_s, SHORTEST_CLOSED_S), LONGEST_CLOSED_S)
        with database.transaction(self._pool) as conn:
            conn.execute(CLOSE, {"account_id": account_id, "closed_s": closed_s})

    def _spent(self, wait_s: float) -> TooManyRequests:
        return TooManyRequests(
            "The account's calls to RD Station within a minute are spent"
            f" (RDSTATION_RATE_LIMIT={self._allowed}), or RD Station asked for a pause."
            " Wait as long as Retry-After says.",
            retry_after_s=max(1.0, wait_s),
        )


def _by_second(calls: Mapping[str, int]) -> dict[int, int]:
    return {int(second): n for second, n in calls.items()}


def states(conn: psycopg.Connection[Any], account_ids: Sequence[str]) -> dict[str, State]:
    """Return the budgets of these accounts; none for an account without calls of late."""
    rows = conn.execute(STATES, {"account_ids": list(account_ids)}).fetchall()
    return {
        account_id: State(spent=spent, closed_for_s=closed_for_s or 0.0)
        for account_id, spent, closed_for_s in rows
    }


def prune(conn: psycopg.Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` budgets that nobody used for an hour; return how many."""
    return conn.execute(PRUNE, {"batch": batch}).rowcount
