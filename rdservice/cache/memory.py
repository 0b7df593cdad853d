"""The first level of the cache: content in this process's memory, unencrypted, of limited size.

An entry belongs to one version (connection ID and epoch) of its account. Callers read the account's row first; when its
version differs, all entries of the account are dropped. An entry may be served for half a second after the table has
confirmed it, so a process may still serve content for that long after another one has dropped or replaced it.
"""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from rdservice.cache.entries import Content, Served, State
from rdservice.tokens import memory as token_memory

MAX_BYTES = 16 * 1024 * 1024
ENTRY_BYTES = 1024
"""Approximate memory of an entry without its body."""

Version = tuple[UUID, int]
"""Connection id and epoch."""
Name = tuple[str, tuple[str | int | None, ...]]
"""Operation and parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Content in memory.

    `fetched_at`: when the fetch began, by the database's clock; `born`: the same by this process's monotonic clock.
    `confirmed_at`: when this process last found the content in the table, by the monotonic clock.
    """

    content: Content
    fetched_at: datetime
    born: float
    confirmed_at: float

    def age_s(self) -> float:
        return max(0.0, time.monotonic() - self.born)

    def served(self, state: State) -> Served:
        return Served(content=self.content, age_s=self.age_s(), state=state)

    def is_confirmed(self) -> bool:
        """Return whether the entry may be served without reading the table again."""
        return time.monotonic() - self.confirmed_at < token_memory.REMEMBER_S


class CacheMemory:
    """Entries up to `max_bytes`; the least recently used go first. Safe to use from many threads."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, Name], Entry] = OrderedDict()
        self._versions: dict[str, Version] = {}

    def get(self, account_id: str, version: Version, name: Name) -> Entry | None:
        """Return the entry of this version of the account, of any age. Drops all entries of another version."""
        with self._lock:
            if self._versions.get(account_id) != version:
                self._drop(account_id)
                self._versions[account_id] = version
                return None
            entry = self._entries.get((account_id, name))
            if entry is not None:
                self._entries.move_to_end((account_id, name))
            return entry

    def put(self, account_id: str, version: Version, name: Name, entry: Entry) -> None:
        """Store an entry, unless the account has another version by now, or the memory has a newer entry."""
        with self._lock:
            if self._versions.get(account_id) != version:
                return
            known = self._entries.get((account_id, name))
            if known is not None and known.fetched_at > entry.fetched_at:
                return
            self._remove((account_id, name))
            self._entries[account_id, name] = entry
            self._bytes += _size(entry)
            while self._bytes > self._max_bytes:
                self._remove(next(iter(self._entries)))

    def remove(self, account_id: str, name: Name) -> None:
        """Delete one entry."""
        with self._lock:
            self._remove((account_id, name))

    def drop(self, account_id: str) -> None:
        """Delete all entries of an account."""
        with self._lock:
            if self._versions.pop(account_id, None) is not None:
                self._drop(account_id)

    def versions(self) -> dict[str, Version]:
        """Return the version of each account that has entries."""
        with self._lock:
            return {account_id: self._versions[account_id] for account_id, _ in self._entries}

    def drop_version(self, account_id: str, version: Version) -> None:
        """Delete all entries of an account if they are still of this version."""
        with self._lock:
            if self._versions.get(account_id) == version:
                del self._versions[account_id]
                self._drop(account_id)

    def drop_older_than(self, seconds: float) -> None:
        """Delete the entries that were fetched over `seconds` ago."""
        with self._lock:
            for key in [key for key, entry in self._entries.items() if entry.age_s() > seconds]:
                self._remove(key)

    def _drop(self, account_id: str) -> None:
        for key in [key for key in self._entries if key[0] == account_id]:
            self._remove(key)

    def _remove(self, key: tuple[str, Name]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= _size(entry)


def _size(entry: Entry) -> int:
    return len(entry.content.body) + ENTRY_BYTES
