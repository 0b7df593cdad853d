"""What a process logs while the database is away: at most one line in ten seconds, however many threads wait."""

import logging
import threading
import time

EVERY_S = 10.0


class Sparse(logging.Filter):
    """Passes one line in `EVERY_S` seconds. What it leaves out is named in the next one, at the latest then."""

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
                if not self._left_out:
                    self._start_timer(self._next_at - now)
                self._left_out[kind] = message
                return False
            self._next_at = now + EVERY_S
            self._left_out.pop(kind, None)
            others, self._left_out = list(self._left_out.values()), {}
        if others:
            record.msg, record.args = "%s; before this: %s", (message, "; ".join(others))
        return True

    def _start_timer(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._tell)
        timer.daemon = True
        timer.start()

    def _tell(self) -> None:
        """Log what was left out, unless another line has named it."""
        with self._lock:
            left_out, self._left_out = list(self._left_out.values()), {}
            self._next_at = 0.0
        if left_out and self in log.filters:
            log.warning("%s", "; ".join(left_out))


log = logging.getLogger(__name__)
"""For every line that an absent or unwilling database causes, and that each waiting thread would repeat."""
log.addFilter(Sparse())
