"""A process's memory of rows, so that most reads of a token need no query.

A row is remembered for half a second, counted from before the query; a missing row is never remembered. So a deletion
takes effect in all processes within a second.
"""

import dataclasses
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from rdservice.database.pool import transaction
from rdservice.encryption import KeyRing
from rdservice.tokens import store
from rdservice.tokens.store import StoredToken

REMEMBER_S = 0.5
MAX_ACCOUNTS = 2_000
WAIT_S = 0.1
"""Longest wait of a thread for another one that reads the same row, in seconds."""


@dataclass(slots=True)
class _Known:
    """A remembered row. `asked_at` is read before `token` and written after it: it never seems newer than it is."""

    token: StoredToken
    asked_at: float
    asking: threading.Lock = field(default_factory=threading.Lock)

    def fresh_token(self, now: float) -> StoredToken | None:
        age_s = now - self.asked_at
        return _aged(self.token, age_s) if age_s < REMEMBER_S else None

    def is_fresh(self, now: float) -> bool:
        return now - self.asked_at < REMEMBER_S


class TokenMemory:
    """Reads rows through a memory of the last `MAX_ACCOUNTS` accounts. Safe to use from many threads."""

    def __init__(
        self,
        pool: ConnectionPool[psycopg.Connection[Any]],
        keys: KeyRing,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._keys = keys
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def fresh(self, account_id: str) -> StoredToken | None:
        """Return what `get` would return if that needs no query, else None."""
        known = self._known.get(account_id)
        return None if known is None else known.fresh_token(self._monotonic())

    def seen(self, account_id: str) -> StoredToken | None:
        """Return what `fresh` returns, but `life_left_s` and `retry_in_s` as they were when the row was read."""
        known = self._known.get(account_id)
        return known.token if known is not None and known.is_fresh(self._monotonic()) else None

    def get(self, account_id: str) -> StoredToken | None:
        """Return the token, with `life_left_s` and `retry_in_s` counted from now, or None without a row.

        When the memory of a busy account expires, one thread queries the database, and the others wait for it for up to
        `WAIT_S`. Raises KeyMissing, ValueDamaged, or what `database.pool.transaction` raises.
        """
        known = self._known.get(account_id)
        if known is None:
            return self.read(account_id)
        token = known.fresh_token(self._monotonic())
        if token is not None:
            return token
        held = known.asking.acquire(timeout=WAIT_S)
        try:
            return known.fresh_token(self._monotonic()) or self.read(account_id)
        finally:
            if held:
                known.asking.release()

    def read(self, account_id: str) -> StoredToken | None:
        """Read the token from the database and remember it. Returns and raises what `get` does."""
        asked_at = self._monotonic()
        with transaction(self._pool) as conn:
            token = store.read_token(conn, self._keys, account_id)
        with self._lock:
            if token is None:
                self._known.pop(account_id, None)
                return None
            self._remember(token, asked_at)
        return _aged(token, self._monotonic() - asked_at)

    def _remember(self, token: StoredToken, asked_at: float) -> None:
        known = self._known.get(token.account_id)
        if known is None:
            self._known[token.account_id] = _Known(token, asked_at)
        elif known.asked_at < asked_at:
            known.token, known.asked_at = token, asked_at
        self._known.move_to_end(token.account_id)
        if len(self._known) > MAX_ACCOUNTS:
            self._known.popitem(last=False)

    def forget(self, account_id: str) -> None:
        """Forget the account, so that the next read queries the database."""
        with self._lock:
            known = self._known.pop(account_id, None)
            if known is not None:
                # Waiting threads still have this object.
                known.asked_at = -math.inf


def _aged(token: StoredToken, age_s: float) -> StoredToken:
    return dataclasses.replace(
        token, life_left_s=token.life_left_s - age_s, retry_in_s=max(0.0, token.retry_in_s - age_s)
    )
