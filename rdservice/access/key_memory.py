"""A short memory of valid API keys in one process, so that a busy program does not cost a query for each request."""

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rdservice.access.keys import ApiKey

MAX_AGE_S = 0.5
"""Counted from before the query: a revoked key is refused everywhere well within a second."""
MAX_ENTRIES = 1000
WAIT_S = 0.1
"""How long a request waits for another one that is asking for the same key."""


@dataclass(slots=True)
class _Entry:
    key: ApiKey
    asked_at: float
    asking: threading.Lock = field(default_factory=threading.Lock)

    def fresh_key(self) -> ApiKey | None:
        return self.key if time.monotonic() - self.asked_at < MAX_AGE_S else None


class KeyMemory:
    """Remembers that a key is valid, never that one is not. Knows keys by their SHA-256 only. Safe between threads."""

    def __init__(self) -> None:
        self._entries: dict[bytes, _Entry] = {}
        self._changing = threading.Lock()

    def fresh(self, text: str) -> ApiKey | None:
        """Return the key that `text` is, if it need not be asked for at this moment."""
        entry = self._entries.get(_digest(text))
        return None if entry is None else entry.fresh_key()

    def find(self, text: str, ask: Callable[[], ApiKey | None]) -> ApiKey | None:
        """Return the key that `text` is, from memory or by calling `ask`; None when `ask` finds none.

        When the memory of a key in use ends, one thread asks and the others wait for it, but not for long: a slow
        database must not make them stand in line. What `ask` raises is passed on.
        """
        digest = _digest(text)
        entry = self._entries.get(digest)
        if entry is None:
            return self._ask(digest, ask)
        key = entry.fresh_key()
        if key is not None:
            return key
        held = entry.asking.acquire(timeout=WAIT_S)
        try:
            return entry.fresh_key() or self._ask(digest, ask)
        finally:
            if held:
                entry.asking.release()

    def _ask(self, digest: bytes, ask: Callable[[], ApiKey | None]) -> ApiKey | None:
        asked_at = time.monotonic()
        key = ask()
        with self._changing:
            entry = self._entries.get(digest)
            if key is None:
                self._entries.pop(digest, None)
            elif entry is None:
                self._make_room()
                self._entries[digest] = _Entry(key, asked_at)
            elif entry.asked_at < asked_at:
                entry.key, entry.asked_at = key, asked_at
        return key

    def _make_room(self) -> None:
        """Forget the oldest entry, in the order of arrival, when the memory is full."""
        if len(self._entries) >= MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
