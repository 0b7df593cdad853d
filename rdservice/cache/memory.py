"""The first level: content in the memory of this process, as plain bytes, within a bound.

An entry belongs to one version of its account, which is read from the account's row: whoever looks here has just seen
the row. A connection that was replaced, or an epoch that was raised, ends all entries of the account. An entry
may be served for half a second after the table has confirmed it: so long may one process still serve what another one
has dropped or replaced.
"""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from rdservice.cache.entries import Content
from rdservice.tokens import memory as token_memory

MAX_BYTES = 16 * 1024 * 1024
ENTRY_BYTES = 1024
"""What an entry takes beside its body, roughly."""

Version = tuple[UUID, int]
"""Connection id and epoch."""
Name = tuple[str, tuple[str | int | None, ...]]
"""Operation and parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Content that was fetched at `fetched_at` by the database's clock, at `born` by this process's monotonic one.

    `confirmed_at`: when the table last had it, by the monotonic clock.
    """

    content: Content
    fetched_at: datetime
    born: float
    confirmed_at: float

    def age_s(self) -> float:
        return max(0.0, time.monotonic() - self.born)

    def is_confirmed(self) -> bool:
        """Return whether the entry may be served without another look at the table."""
        return time.monotonic() - self.confirmed_at < token_memory.REMEMBER_S


class CacheMemory:
    """Safe to use from many threads. What was not used for longest goes first."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, Name], Entry] = OrderedDict()
        self._versions: dict[str, Version] = {}

    def get(self, account_id: str, version: Version, name: Name) -> Entry | None:
        """Return the entry of this version of the account, however old."""
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
        """Keep an entry, unless the account has moved on from `version`, or a newer entry is there."""
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
        """Forget one entry."""
        with self._lock:
            self._remove((account_id, name))

    def drop(self, account_id: str) -> None:
        """Forget all that is known of an account."""
        with self._lock:
            if self._versions.pop(account_id, None) is not None:
                self._drop(account_id)

    def versions(self) -> dict[str, Version]:
        """Return the accounts of which something is remembered, each with its version."""
        with self._lock:
            return {account_id: self._versions[account_id] for account_id, _ in self._entries}

    def drop_version(self, account_id: str, version: Version) -> None:
        """Forget an account unless it has moved on from `version` meanwhile."""
        with self._lock:
            if self._versions.get(account_id) == version:
                del self._versions[account_id]
                self._drop(account_id)

    def drop_older_than(self, seconds: float) -> None:
        """Forget the entries that were fetched longer ago."""
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
