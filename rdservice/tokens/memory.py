"""What a process remembers of a row, so that reading a token seldom asks the database.

Presence is remembered for half a second, counted from before the query; absence never. So a deleted row is without
effect everywhere within a second.
"""

import dataclasses
import threading
import time
from collections import OrderedDict
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from rdservice import database
from rdservice.encryption import KeyRing
from rdservice.tokens import store
from rdservice.tokens.store import StoredToken

REMEMBER_S = 0.5
MAX_ACCOUNTS = 2_000


class TokenMemory:
    """Reads rows through a small memory. Safe to use from many threads."""

    def __init__(self, pool: ConnectionPool[psycopg.Connection[Any]], keys: KeyRing) -> None:
        self._pool = pool
        self._keys = keys
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, StoredToken]] = OrderedDict()

    def get(self, account_id: str) -> StoredToken | None:
        """Return the token, `life_left_s` and `retry_in_s` counted from now; None without a row.

        Raises KeyMissing, ValueDamaged, or what `database.transaction` raises.
        """
        with self._lock:
            known = self._known.get(account_id)
        if known is not None:
            age_s = time.monotonic() - known[0]
            if age_s < REMEMBER_S:
                return _aged(known[1], age_s)
        return self.read(account_id)

    def read(self, account_id: str) -> StoredToken | None:
        """Return the token from the database, and remember it."""
        asked_at = time.monotonic()
        with database.transaction(self._pool) as conn:
            token = store.read_token(conn, self._keys, account_id)
        with self._lock:
            if token is None:
                self._known.pop(account_id, None)
                return None
            self._known[account_id] = (asked_at, token)
            self._known.move_to_end(account_id)
            if len(self._known) > MAX_ACCOUNTS:
                self._known.popitem(last=False)
        return _aged(token, time.monotonic() - asked_at)

    def forget(self, account_id: str) -> None:
        """Ask the database the next time."""
        with self._lock:
            self._known.pop(account_id, None)


def _aged(token: StoredToken, age_s: float) -> StoredToken:
    return dataclasses.replace(
        token, life_left_s=token.life_left_s - age_s, retry_in_s=max(0.0, token.retry_in_s - age_s)
    )
