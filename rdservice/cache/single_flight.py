"""One caller of a key at a time in this process: the others wait for what it finds."""

import threading
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """The questions under way in this process, by key. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[bytes, Future[T]] = {}

    def join(self, key: bytes) -> tuple[Future[T], bool]:
        """Return the flight of this key, and whether the caller began it and so must settle it."""
        with self._lock:
            flight = self._under_way.get(key)
            if flight is not None:
                return flight, False
            flight = self._under_way[key] = Future()
            return flight, True

    def settle(self, key: bytes, flight: Future[T], outcome: T | BaseException) -> None:
        """Let everyone who waits have the outcome; who comes later begins a new flight."""
        with self._lock:
            if self._under_way.get(key) is flight:
                del self._under_way[key]
        if isinstance(outcome, BaseException):
            flight.set_exception(outcome)
        else:
            flight.set_result(outcome)
