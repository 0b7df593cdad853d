"""Bounded waiting for what other processes do."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.02


def wait_until(condition: Callable[[], T], what: str, *, seconds: float = 20.0) -> T:
    """Return the first true result of `condition`; fails naming `what` when there is none within `seconds`."""
    give_up_at = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < give_up_at, f"not within {seconds:g} s: {what}"
        time.sleep(POLL_S)
