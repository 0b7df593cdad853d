"""When an account may call RD Station next: arithmetic over what was called lately, without clock or database.

RD Station allows a number of calls in any 60 seconds, counted when they arrive (documented: 120 a minute and account on
the smaller plans, 500 on Advanced). Calls are noted by the whole second, and a second counts for 62. So a call may take
from one to two seconds on its way before it could arrive too close to one that is 60 seconds younger, and 60/62 of what
RD Station allows can be used. A call that took longer is moved to when it was answered (`moved`): it arrived before
that.

What runs in the background is spread over the window, so that a place becomes free every moment, and never takes a
place that is not free now; others may reserve the next ones, and so go first.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

WINDOW_S = 62
LIMITED_S = 60
MOST_AHEAD_S = 5.0
"""How far ahead a place may be reserved. What is noted for later than that was noted by a clock that was set back."""
LONGEST_CLOSED_S = 600.0
CATCH_UP_S = 1.0
"""By how much the background may be behind its even pace and catch up."""
SEGMENTATION_LISTS = 240
"""Documented: calls a minute that list segmentations on the largest plan. On the others it is the plan's own limit."""

Calls = Mapping[int, int]
"""How many calls, by second since 1970."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What an account has used. Times are seconds since 1970, by the database's clock."""

    now: float
    calls: Calls = field(default_factory=dict)
    segmentation_calls: Calls = field(default_factory=dict)
    closed_until: float | None = None
    background_due: float | None = None

    def next_place(self, allowed: int, *, background: bool, segmentations: bool) -> float:
        """Return when a further call may be made: now, or a later moment as things stand."""
        start = max(self.now, self._closed_until())
        if background:
            start = max(start, self._background_due(allowed) - CATCH_UP_S)
        place = _free_from(self._counted(self.calls), allowed, start)
        if segmentations:
            place = _free_from(
                self._counted(self.segmentation_calls), min(allowed, SEGMENTATION_LISTS), place
            )
        return place

    def with_call(self, at: float, allowed: int, *, background: bool, segmentations: bool) -> "Spent":
        """Return what is used after one more call, made at `at`."""
        due = self.background_due
        if background:
            due = max(self._background_due(allowed), at) + WINDOW_S / allowed
        return replace(
            self,
            calls=_with(self._counted(self.calls), at),
            segmentation_calls=_with(self._counted(self.segmentation_calls), at)
            if segmentations
            else self._counted(self.segmentation_calls),
            background_due=due,
        )

    def moved(self, noted_at: float, *, segmentations: bool) -> "Spent":
        """Return the same with the call of `noted_at` counted as one that arrived just now."""
        late = math.ceil(self.now) + LIMITED_S - WINDOW_S
        return replace(
            self,
            calls=_moved(self.calls, math.floor(noted_at), late),
            segmentation_calls=_moved(self.segmentation_calls, math.floor(noted_at), late)
            if segmentations
            else self.segmentation_calls,
        )

    def _counted(self, calls: Calls) -> Calls:
        oldest = math.floor(self.now) - WINDOW_S
        return {second: n for second, n in calls.items() if oldest < second <= self.now + MOST_AHEAD_S}

    def _closed_until(self) -> float:
        closed = self.closed_until
        return closed if closed is not None and closed <= self.now + LONGEST_CLOSED_S else -math.inf

    def _background_due(self, allowed: int) -> float:
        due, pace = self.background_due, WINDOW_S / allowed
        return due if due is not None and due <= self.now + CATCH_UP_S + 2 * pace else -math.inf


def on_its_way_s(at: float) -> float:
    """Return how long a call that is made at `at` may take until RD Station has it, without being moved."""
    return math.floor(at) + WINDOW_S - LIMITED_S - at


def _free_from(calls: Calls, allowed: int, start: float) -> float:
    """Return the first moment from `start` on at which fewer than `allowed` calls count."""
    counting = sum(n for second, n in calls.items() if second > start - WINDOW_S)
    if counting < allowed:
        return start
    for second in sorted(calls):
        if second > start - WINDOW_S:
            counting -= calls[second]
            if counting < allowed:
                return float(second + WINDOW_S)
    return start


def _with(calls: Calls, at: float) -> Calls:
    second = math.floor(at)
    return {**calls, second: calls.get(second, 0) + 1}


def _moved(calls: Calls, earlier: int, later: int) -> Calls:
    """Return `calls` with one of the second `earlier` in `later`, if it is there and that is later."""
    if calls.get(earlier, 0) < 1 or later <= earlier:
        return calls
    left = {second: n for second, n in {**calls, earlier: calls[earlier] - 1}.items() if n}
    return _with(left, later)
