"""When calls may be made: whatever delays them, and whoever asks, RD Station never sees too many within a minute."""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdservice.rate_slots import MOST_AHEAD_S, SEGMENTATION_LISTS, WINDOW_S, Spent, on_its_way_s

PATIENCE_S = 2.0
START = 1_700_000_000.0


class Traffic:
    """Callers that always want more, in virtual time. `delay` gives a call's way to RD Station, `answer` the rest."""

    def __init__(self, allowed: int, delay: Callable[[], float], answer: Callable[[], float]) -> None:
        self.arrivals: list[float] = []
        self.waits_s: list[float] = []
        self.made = {"background": 0, "interactive": 0}
        self._allowed = allowed
        self._delay = delay
        self._answer = answer
        self._spent = Spent(now=START)
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []

    def at(self, moment: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._numbers), event))

    def run(self, seconds: float) -> None:
        while self._events and self._events[0][0] < START + seconds:
            moment, _, event = heapq.heappop(self._events)
            event(moment)
        self.arrivals.sort()

    def caller(self, *, background: bool, rest_s: float = 0.0) -> Callable[[float], None]:
        """Return an event: somebody asks for a call, and again when it was answered or is possible."""

        def ask(now: float) -> None:
            self._spent = replace(self._spent, now=now)
            place = self._spent.next_place(self._allowed, background=background, segmentations=False)
            if place - now > (0.0 if background else PATIENCE_S):
                self.at(max(place, now + 0.001), ask)
                return
            self._spent = self._spent.with_call(
                place, self._allowed, background=background, segmentations=False
            )
            self.waits_s.append(place - now)
            self.made["background" if background else "interactive"] += 1
            arrives = place + self._delay()
            self.arrivals.append(arrives)
            answered = arrives + self._answer()

            def done(now: float) -> None:
                if now - place > on_its_way_s(place):
                    self._spent = replace(self._spent, now=now).moved(place, segmentations=False)
                self.at(now + rest_s, ask)

            self.at(answered, done)

        return ask

    def shortest_minute(self) -> float:
        """Return the shortest time in which more calls than allowed arrived."""
        pairs = zip(self.arrivals, self.arrivals[self._allowed :], strict=False)
        return min((later - earlier for earlier, later in pairs), default=60.0)


@given(
    allowed=st.sampled_from([1, 2, 7, 20, 120]),
    interactive=st.integers(0, 30),
    background=st.integers(0, 8),
    slowest_s=st.sampled_from([0.0, 0.5, 3.0, 14.0]),
    seed=st.integers(0, 2**32),
)
def test_no_more_than_the_limit_arrives_within_a_minute_however_long_calls_are_on_their_way(
    allowed: int, interactive: int, background: int, slowest_s: float, seed: int
) -> None:
    dice = random.Random(seed)  # noqa: S311 - no secret
    traffic = Traffic(
        allowed, lambda: dice.uniform(0, slowest_s) * dice.choice([0, 0, 1]), lambda: dice.uniform(0, 1)
    )
    for number in range(interactive + background):
        begins = START + dice.uniform(0, 90)
        traffic.at(begins, traffic.caller(background=number < background, rest_s=dice.choice([0, 0, 5])))
    traffic.run(240)
    assert traffic.shortest_minute() >= 60 - 1e-6


@pytest.mark.parametrize("allowed", [20, 120, 500])
@pytest.mark.parametrize("background", [False, True])
def test_at_least_95_percent_of_the_limit_is_used_when_there_is_that_much_to_do(
    allowed: int, background: bool
) -> None:
    dice = random.Random(1)  # noqa: S311 - no secret
    traffic = Traffic(allowed, lambda: dice.uniform(0, 0.2), lambda: dice.uniform(0, 0.3))
    for number in range(8 if background else 40):
        traffic.at(START + number / 100, traffic.caller(background=background))
    traffic.run(1_240)
    steady = [arrival for arrival in traffic.arrivals if START + 124 <= arrival < START + 1_240]
    assert len(steady) >= 0.95 * allowed * (1_240 - 124) / 60


def test_beside_an_export_that_uses_everything_a_caller_waits_for_two_seconds_at_the_most() -> None:
    traffic = Traffic(120, lambda: 0.05, lambda: 0.1)
    for _ in range(4):
        traffic.at(START, traffic.caller(background=True))
    traffic.run(300)
    traffic.waits_s.clear()
    before = traffic.made["interactive"]
    traffic.at(START + 300, traffic.caller(background=False, rest_s=1.0))
    traffic.run(600)
    assert traffic.made["interactive"] - before >= 150
    assert max(traffic.waits_s) <= PATIENCE_S


def test_callers_who_use_everything_leave_nothing_for_the_background() -> None:
    traffic = Traffic(120, lambda: 0.05, lambda: 0.1)
    for _ in range(40):
        traffic.at(START, traffic.caller(background=False))
    traffic.at(START, traffic.caller(background=True))
    traffic.run(700)
    assert traffic.made["background"] < 0.05 * traffic.made["interactive"]


def test_the_background_is_spread_evenly() -> None:
    traffic = Traffic(120, lambda: 0.0, lambda: 0.0)
    traffic.at(START, traffic.caller(background=True))
    traffic.run(300)
    in_five_seconds = [
        sum(START + 120 + second <= arrival < START + 125 + second for arrival in traffic.arrivals)
        for second in range(150)
    ]
    assert min(in_five_seconds) >= 7
    assert max(in_five_seconds) <= 13


def test_lists_of_segmentations_have_a_limit_of_their_own() -> None:
    spent = Spent(now=START)
    for _ in range(SEGMENTATION_LISTS):
        spent = spent.with_call(START, 500, background=False, segmentations=True)
    assert spent.next_place(500, background=False, segmentations=False) == START
    assert spent.next_place(500, background=False, segmentations=True) == START + WINDOW_S


def test_what_a_clock_that_was_set_back_noted_for_later_blocks_nothing() -> None:
    spent = Spent(
        now=START,
        calls={int(START) + 3_600: 120, int(START + MOST_AHEAD_S) + 1: 5},
        closed_until=START + 3_600,
        background_due=START + 3_600,
    )
    assert spent.next_place(5, background=True, segmentations=False) == START
    assert list(spent.with_call(START, 5, background=True, segmentations=False).calls) == [int(START)]
