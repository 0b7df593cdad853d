"""Single flight: of all concurrent callers with the same key in this process, one works and the others wait for it."""

import threading
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

    def settle(self, key: bytes, flight: Future[T], outcome: T | BaseException) -> None:
        """Pass the outcome, or raise the error, to all waiting callers. Later callers start a new flight."""
        with self._lock:
            if self._under_way.get(key) is flight:
                del self._under_way[key]
        if isinstance(outcome, BaseException):
            flight.set_exception(outcome)
        else:
            flight.set_result(outcome)
