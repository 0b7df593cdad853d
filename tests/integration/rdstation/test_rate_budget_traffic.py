"""When calls may be made, in virtual time: the sandbox never has to refuse one, and little of the limit is left."""

import heapq
import itertools
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from rdservice.rdstation.rate_budget import ON_ITS_WAY_S, SETTLE, TIMEOUT_S, RateLimit, limits, take
from sandbox.limits import SlidingWindows
from tests.conftest import Clock

Conn = psycopg.Connection[Any]
START = 1_700_000_000.0
MINUTE_S = 60.0
ON_ITS_WAY = timedelta(seconds=ON_ITS_WAY_S)


class Traffic:
    """Callers in virtual time, and RD Station. `delay` gives a call's way there, `answer` the rest."""

    def __init__(
        self, conn: Conn, allowed: int, delay: Callable[[], float], response: Callable[[], float]
    ) -> None:
        self.arrivals: list[float] = []
        self.refused = 0
        self.waits_s: list[float] = []
        self.made = {"background": 0, "interactive": 0}
        self._conn = conn
        self._limit: RateLimit = limits(allowed)["account"]
        self._delay = delay
        self._answer = response
        self._windows = SlidingWindows()
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        # Inlined like the real one.
        conn.execute(
            "CREATE OR REPLACE FUNCTION rd_now() RETURNS timestamptz LANGUAGE sql STABLE"
            " AS $$SELECT to_timestamp(current_setting('test.now')::float8)$$"
        )

    def at(self, moment: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._numbers), event))

    def run(self, seconds: float) -> None:
        while self._events and self._events[0][0] < START + seconds:
            moment, _, event = heapq.heappop(self._events)
            event(moment)

    def caller(
        self, *, background: bool, rest_s: float = 0.0, timeout_s: float = TIMEOUT_S, again: bool = True
    ) -> Callable[[float], None]:
        """Return an event: somebody asks for a call, and `again` when it was answered or is possible."""

        def ask(now: float) -> None:
            self._set_clock(now)
            ahead_s = 0.0 if background else timeout_s
            place = take(self._conn, "default", self._limit, ahead_s=ahead_s, background=background)
            if not place.taken:
                if again:
                    self.at(now + max(place.wait_s, 0.001), ask)
                return
            made = now + place.wait_s
            self.waits_s.append(place.wait_s)
            self.made["background" if background else "interactive"] += 1
            arrives = made + self._delay()
            self.at(arrives, self._arrive)
            ended = arrives + self._answer()

            def end(now: float) -> None:
                if now - made > ON_ITS_WAY_S:
                    self._set_clock(now)
                    row = {"budget": "default", "class": self._limit.name}
                    self._conn.execute(SETTLE, row | {"at": place.at, "on_its_way": ON_ITS_WAY})
                if again:
                    self.at(now + rest_s, ask)

            self.at(ended, end)

        return ask

    def used(self, since_s: float, until_s: float) -> float:
        """Return how much of what RD Station allows was used in that time."""
        calls = sum(START + since_s <= arrival < START + until_s for arrival in self.arrivals)
        return calls / (self._limit.calls * (until_s - since_s) / MINUTE_S)

    def _arrive(self, now: float) -> None:
        # A microsecond is the database's precision.
        if self._windows.wait_for("default", now=now, limit=self._limit.calls, window_s=MINUTE_S - 1e-5):
            self.refused += 1
        else:
            self._windows.admit("default", now)
        self.arrivals.append(now)

    def _set_clock(self, now: float) -> None:
        self._conn.execute("SELECT set_config('test.now', %s, false)", [f"{now:.6f}"])


Make = Callable[..., Traffic]


@pytest.fixture
def make_traffic(conn: Conn, clock: Clock) -> Make:
    """`clock` sets the database's clock right again."""
    assert clock

    def make(
        allowed: int = 120,
        delay: Callable[[], float] = lambda: 0.05,
        response: Callable[[], float] = lambda: 0.1,
    ) -> Traffic:
        return Traffic(conn, allowed, delay, response)

    return make


@pytest.mark.parametrize("seed", range(12))
def test_no_more_than_the_limit_arrives_within_a_minute_however_long_calls_are_on_their_way(
    make_traffic: Make, seed: int
) -> None:
    dice = random.Random(seed)  # noqa: S311 - no secret
    slowest_s = dice.choice([0.0, 0.5, 3.0, 14.0])
    traffic = make_traffic(
        dice.choice([1, 2, 7, 20, 120]),
        lambda: dice.uniform(0, slowest_s) * dice.choice([0, 0, 1]),
        lambda: dice.uniform(0, 1),
    )
    background = dice.randint(0, 8)
    for number in range(background + dice.randint(1, 30)):
        begins = START + dice.uniform(0, 90)
        traffic.at(begins, traffic.caller(background=number < background, rest_s=dice.choice([0, 0, 5])))
    traffic.run(240)
    assert traffic.arrivals
    assert traffic.refused == 0


@pytest.mark.parametrize(
    ("allowed", "background", "least"), [(120, False, 0.98), (120, True, 0.955), (500, False, 0.98)]
)
def test_the_limit_is_used_when_there_is_that_much_to_do(
    make_traffic: Make, allowed: int, background: bool, least: float
) -> None:
    dice = random.Random(1)  # noqa: S311 - no secret
    traffic = make_traffic(allowed, lambda: dice.uniform(0, 0.2), lambda: dice.uniform(0, 0.3))
    for number in range(4 if background else 10):
        traffic.at(START + number / 100, traffic.caller(background=background))
    traffic.run(305)
    assert traffic.refused == 0
    assert traffic.used(122, 305) >= least


def test_a_burst_of_100_at_once_is_served_at_once(make_traffic: Make) -> None:
    traffic = make_traffic()
    for number in range(3):
        for _ in range(100):
            traffic.at(START + 90 * number, traffic.caller(background=False, again=False))
    traffic.run(300)
    assert (len(traffic.arrivals), traffic.refused, max(traffic.waits_s)) == (300, 0, 0)


def test_beside_an_export_that_uses_everything_a_caller_waits_for_two_seconds_at_the_most(
    make_traffic: Make,
) -> None:
    traffic = make_traffic()
    for _ in range(4):
        traffic.at(START, traffic.caller(background=True))
    traffic.run(180)
    traffic.waits_s.clear()
    before = traffic.made["interactive"]
    traffic.at(START + 180, traffic.caller(background=False, rest_s=1.0))
    traffic.run(360)
    assert traffic.made["interactive"] - before >= 90
    assert max(traffic.waits_s) <= TIMEOUT_S


def test_an_export_leaves_three_places_to_callers_without_patience(make_traffic: Make) -> None:
    traffic = make_traffic()
    for _ in range(4):
        traffic.at(START, traffic.caller(background=True))
    traffic.run(180)
    for _ in range(4):
        traffic.at(START + 180, traffic.caller(background=False, timeout_s=0.0, again=False))
    traffic.run(181)
    assert traffic.made["interactive"] == 3


def test_callers_who_use_everything_leave_nothing_for_the_background(make_traffic: Make) -> None:
    traffic = make_traffic()
    for _ in range(40):
        traffic.at(START, traffic.caller(background=False))
    traffic.at(START, traffic.caller(background=True))
    traffic.run(300)
    assert traffic.made["background"] < 0.05 * traffic.made["interactive"]


def test_the_background_is_spread_evenly(make_traffic: Make) -> None:
    traffic = make_traffic(delay=lambda: 0.0, response=lambda: 0.0)
    traffic.at(START, traffic.caller(background=True))
    traffic.run(200)
    in_five_seconds = [
        sum(START + second <= arrival < START + 5 + second for arrival in traffic.arrivals)
        for second in range(70, 190)
    ]
    assert min(in_five_seconds) >= 8
    assert max(in_five_seconds) <= 12
