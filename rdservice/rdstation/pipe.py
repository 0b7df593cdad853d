"""A bounded queue that passes bytes from one thread to another."""

import threading
import time
from collections import deque

PIECES = 4
"""Capacity of the pipe: a writer blocks when the reader falls behind."""


class Pipe:
    """One thread puts pieces in, another takes them out. Deadlines are times of the monotonic clock."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._ended = False
        self._error: Exception | None = None
        self._abandoned = False

    def put(self, piece: bytes, deadline: float) -> bool:
        """Add a piece, waiting for room. Returns False if the reader has abandoned the pipe or `deadline` passed."""
        with self._changed:
            self._changed.wait_for(self._has_room, max(0.0, deadline - time.monotonic()))
            if self._abandoned or not self._has_room():
                return False
            self._pieces.append(piece)
            self._changed.notify_all()
            return True

    def end(self, error: Exception | None = None) -> None:
        """Mark the end; with an `error` if the pieces so far are not all. Only the first call counts."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
            self._changed.notify_all()

    def wait(self, deadline: float) -> bool:
        """Wait for the next piece or the end; return whether one of them has come."""
        with self._changed:
            return self._changed.wait_for(self._has_news, max(0.0, deadline - time.monotonic()))

    def take(self, deadline: float) -> bytes | None:
        """Return the next piece, or None at the end. Raises TimeoutError, or the error given to `end`."""
        with self._changed:
            arrived = self._changed.wait_for(self._has_news, max(0.0, deadline - time.monotonic()))
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
        """Tell the writer that the reader takes no more pieces."""
        with self._changed:
            self._abandoned = True
            self._pieces.clear()
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._abandoned or len(self._pieces) < PIECES

    def _has_news(self) -> bool:
        return bool(self._pieces) or self._ended
