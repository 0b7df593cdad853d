"""Bytes on their way from one thread to another, a few pieces at a time."""

import threading
import time
from collections import deque

PIECES = 4
"""How many pieces wait at most: who writes faster than the other side reads has to wait."""


class Pipe:
    """One thread puts pieces in, another takes them out. Moments (`until`) are those of the monotonic clock."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._ended = False
        self._error: Exception | None = None
        self._abandoned = False

    def put(self, piece: bytes, until: float) -> bool:
        """Add a piece, waiting for room. False: nobody takes any more, or not before `until`."""
        with self._changed:
            self._changed.wait_for(self._has_room, max(0.0, until - time.monotonic()))
            if self._abandoned or not self._has_room():
                return False
            self._pieces.append(piece)
            self._changed.notify_all()
            return True

    def end(self, error: Exception | None = None) -> None:
        """Say that no piece follows; with an `error`, that those so far are not all. The first word counts."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
            self._changed.notify_all()

    def wait(self, until: float) -> bool:
        """Wait for the next piece or the end; return whether there is either."""
        with self._changed:
            return self._changed.wait_for(self._has_news, max(0.0, until - time.monotonic()))

    def take(self, until: float) -> bytes | None:
        """Return the next piece, or None at the end. Raises TimeoutError, or the error with which the pipe ended."""
        with self._changed:
            arrived = self._changed.wait_for(self._has_news, max(0.0, until - time.monotonic()))
            if self._pieces:
                piece = self._pieces.popleft()
                self._changed.notify_all()
                return piece
            if not arrived:
                raise TimeoutError("nothing came in time")
            if self._error is not None:
                raise self._error
            return None

    def abandon(self) -> None:
        """Say that nothing is taken any more."""
        with self._changed:
            self._abandoned = True
            self._pieces.clear()
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._abandoned or len(self._pieces) < PIECES

    def _has_news(self) -> bool:
        return bool(self._pieces) or self._ended
