"""What a process remembers of a row, so that reading a token seldom asks the database.

Presence is remembered for half a second, counted from before the query; absence never. So a deleted row is without
effect everywhere within a second.
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
"""How long a thread waits for another one that is reading the same row."""


@dataclass(slots=True)
class _Known:
    """`asked_at` is read before and written after `token`: a token never looks younger than it is."""

    token: StoredToken
    asked_at: float
    asking: threading.Lock = field(default_factory=threading.Lock)

    def fresh_token(self, now: float) -> StoredToken | None:
        age_s = now - self.asked_at
        return _aged(self.token, age_s) if age_s < REMEMBER_S else None

    def is_fresh(self, now: float) -> bool:
        return now - self.asked_at < REMEMBER_S


class TokenMemory:
    """Reads rows through a small memory. Safe to use from many threads."""

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
        """Return what `get` would return, if the database need not be asked for it at this moment."""
        known = self._known.get(account_id)
        return None if known is None else known.fresh_token(self._monotonic())

    def seen(self, account_id: str) -> StoredToken | None:
        """Return what `fresh` returns, but `life_left_s` and `retry_in_s` as they were when the row was read."""
        known = self._known.get(account_id)
        return known.token if known is not None and known.is_fresh(self._monotonic()) else None

    def get(self, account_id: str) -> StoredToken | None:
        """Return the token, `life_left_s` and `retry_in_s` counted from now; None without a row.

        When the memory of a busy account ends, one thread asks the database and the others wait for it, but not for
        long. Raises KeyMissing, ValueDamaged, or what `database.transaction` raises.
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
        """Return the token from the database, and remember it."""
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
        """Ask the database the next time."""
        with self._lock:
            known = self._known.pop(account_id, None)
            if known is not None:
                # Threads that wait hold it still.
                known.asked_at = -math.inf


def _aged(token: StoredToken, age_s: float) -> StoredToken:
    return dataclasses.replace(
        token, life_left_s=token.life_left_s - age_s, retry_in_s=max(0.0, token.retry_in_s - age_s)
    )
