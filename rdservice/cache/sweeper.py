"""Removes content from a process's memory that it may no longer serve, even without any requests."""

import threading
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from rdservice.cache import table
from rdservice.cache.memory import CacheMemory
from rdservice.database import outage
from rdservice.database.pool import UNAVAILABLE, transaction

EVERY_S = 10.0


class Sweeper:
    """A thread that compares the memory with the accounts' rows every `EVERY_S` seconds.

    It makes no query while the memory is empty.
    """

    def __init__(self, memory: CacheMemory, pool: ConnectionPool[psycopg.Connection[Any]]) -> None:
        self._memory = memory
        self._pool = pool
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cache sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def sweep(self) -> None:
        """Drop entries that are too old, or whose account is gone or has another version. Raises UNAVAILABLE."""
        self._memory.drop_older_than(table.CEILING_S)
        remembered = self._memory.versions()
        if not remembered:
            return
        with transaction(self._pool) as conn:
            current = table.versions(conn, list(remembered))
        for account_id, version in remembered.items():
            if current.get(account_id) != version:
                self._memory.drop_version(account_id, version)

    def _run(self) -> None:
        while not self._closing.wait(EVERY_S):
            try:
                self.sweep()
            except (psycopg.Error, *UNAVAILABLE) as error:
                # Harmless: without the database nothing is served from memory either.
                outage.log.warning(
                    "the memory of leads was not swept (%s): trying again", type(error).__name__
                )
