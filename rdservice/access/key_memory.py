"""A per-process cache of valid API keys, so that a busy client does not cost one query per request."""

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rdservice.access.keys import ApiKey

MAX_AGE_S = 0.5
"""Counted from before the query, so that every process refuses a revoked key well within a second."""
MAX_ENTRIES = 1000
WAIT_S = 0.1
"""How long a request waits for another request's query for the same key."""


@dataclass(slots=True)
class _Entry:
    key: ApiKey
    asked_at: float
    asking: threading.Lock = field(default_factory=threading.Lock)

    def fresh_key(self) -> ApiKey | None:
        return self.key if time.monotonic() - self.asked_at < MAX_AGE_S else None


class KeyMemory:
    """Remembers valid keys, never invalid ones. Stores only their SHA-256. Thread-safe."""

    def __init__(self) -> None:
        self._entries: dict[bytes, _Entry] = {}
        self._changing = threading.Lock()

    def fresh(self, text: str) -> ApiKey | None:
        """Return the API key with this text if the memory holds it and it is under MAX_AGE_S old, else None."""
        entry = self._entries.get(_digest(text))
        return None if entry is None else entry.fresh_key()

    def find(self, text: str, ask: Callable[[], ApiKey | None]) -> ApiKey | None:
        """Return the API key with this text, from memory or by calling `ask`; None when `ask` returns None.

        When an entry expires, one thread calls `ask` and the others wait up to WAIT_S for it, then call `ask`
        themselves: a slow database must not queue requests behind one another. Exceptions of `ask` propagate.
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
        """Remove the entry that was added first when the memory is full."""
        if len(self._entries) >= MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
