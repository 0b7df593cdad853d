"""The parts of a running process, put together once: web processes, the worker and commands all start from here."""

import threading
from dataclasses import dataclass
from typing import Any, Self

import psycopg
from psycopg_pool import ConnectionPool

from rdservice import database
from rdservice.access_tokens import AccessTokens
from rdservice.encryption import KeyRing
from rdservice.rdstation import RDStation
from rdservice.refresh import Refresher
from rdservice.settings import Settings
from rdservice.tokens import credentials
from rdservice.tokens.memory import TokenMemory


@dataclass(frozen=True, kw_only=True)
class Services:
    """What requests and refreshes work with."""

    settings: Settings
    pool: ConnectionPool[psycopg.Connection[Any]]
    keys: KeyRing
    rdstation: RDStation
    memory: TokenMemory
    refresher: Refresher
    access_tokens: AccessTokens

    @classmethod
    def start(cls, settings: Settings, *, name: str, pool_size: int = 5) -> Self:
        """Open the pool (in the background: a database that is down does not prevent the start) and build the rest."""
        pool = database.create_pool(settings.database_url, max_size=pool_size, name=name)
        keys = KeyRing(settings.encryption_keys)
        rdstation = RDStation(settings)
        memory = TokenMemory(pool, keys)
        refresher = Refresher(
            pool=pool,
            keys=keys,
            rdstation=rdstation,
            fingerprint=credentials.fingerprint(settings),
            must_end=threading.Event(),
        )
        return cls(
            settings=settings,
            pool=pool,
            keys=keys,
            rdstation=rdstation,
            memory=memory,
            refresher=refresher,
            access_tokens=AccessTokens(settings, memory, refresher),
        )

    def close(self) -> None:
        """Wait for refreshes under way and close all connections."""
        self.access_tokens.close()
        self.pool.close()
        self.rdstation.close()
