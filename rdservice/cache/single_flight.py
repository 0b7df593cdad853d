"""Single flight: of all concurrent callers with the same key in this process, one works and the others wait for it."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """The flights under way in this process, by key. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[bytes, Future[T]] = {}

    def join(self, key: bytes) -> tuple[Future[T], bool]:
        """Return the flight of this key, and whether the caller has started it and must settle it."""
        with self._lock:
            flight = self._under_way.get(key)
            if flight is not None:
                return flight, False
            flight = self._under_way[key] = Future()
            return flight, True

    def settle(self, key: bytes, flight: Future[T], outcome: T | BaseException) -> bool:
        """Pass the outcome, or raise the error, to all waiting callers. Later callers start a new flight.

        Only the first outcome of a flight counts; return whether this one is the first.
        """
        with self._lock:
            if flight.done():
                return False
            if self._under_way.get(key) is flight:
                del self._under_way[key]
            if isinstance(outcome, BaseException):
                flight.set_exception(outcome)
            else:
                flight.set_result(outcome)
            return True

    def settle_after(
        self, seconds: float, key: bytes, flight: Future[T], outcome: T, on_late: Callable[[], None]
    ) -> threading.Timer:
        """Settle the flight in `seconds` seconds, and call `on_late`, unless it is settled by then.

        Returns the timer that does so, for the caller to cancel.
        """

        def settle() -> None:
            if self.settle(key, flight, outcome):
                on_late()

        timer = threading.Timer(seconds, settle)
        timer.daemon = True
        timer.start()
        return timer
