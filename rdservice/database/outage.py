"""What a process logs while the database is away: at most one line in ten seconds, however many threads wait."""

import logging
import threading
import time

EVERY_S = 10.0


class Sparse(logging.Filter):
    """Passes one line in `EVERY_S` seconds, with what was left out since the last one."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._next_at = 0.0
        self._left_out: dict[str, str] = {}
        """The last line of each kind: there are as many kinds as there are places that log."""

    def filter(self, record: logging.LogRecord) -> bool:
        message, kind, now = record.getMessage(), str(record.msg), time.monotonic()
        with self._lock:
            if now < self._next_at:
                self._left_out[kind] = message
                return False
            self._next_at = now + EVERY_S
            self._left_out.pop(kind, None)
            others, self._left_out = list(self._left_out.values()), {}
        if others:
            record.msg, record.args = "%s; before this: %s", (message, "; ".join(others))
        return True


log = logging.getLogger(__name__)
"""For every line that an absent or unwilling database causes, and that each waiting thread would repeat."""
log.addFilter(Sparse())
