"""Sliding-window rate limits: at most N calls in any window of W seconds."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable

MINUTE = 60.0
DAY = 86_400.0


class SlidingWindows:
    """The times of admitted calls, by key. Refused calls do not count."""

    def __init__(self) -> None:
        self._admitted: dict[Hashable, deque[float]] = {}

    def wait_for(self, key: Hashable, *, now: float, limit: int, window_s: float) -> int:
        """Return the seconds (at least 1) until one more call of `key` is allowed, or 0 if it is allowed now."""
        times = self._admitted.get(key)
        if not times:
            return 0
        while times and times[0] <= now - window_s:
            times.popleft()
        # The sandbox's clock may be set back: calls admitted at a later time would block for longer than a window.
        while times and times[-1] > now:
            times.pop()
        if len(times) < limit:
            return 0
        return max(1, math.ceil(times[len(times) - limit] + window_s - now))

    def admit(self, key: Hashable, now: float) -> None:
        """Count a call that was allowed."""
        self._admitted.setdefault(key, deque()).append(now)
