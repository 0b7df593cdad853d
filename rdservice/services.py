"""Assembles the parts of a process. Web processes, the worker and commands all start here."""

import threading
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import psycopg
from psycopg_pool import ConnectionPool

from rdservice.account_calls.calls import AccountCalls
from rdservice.cache.cache import Cache
from rdservice.config.settings import Settings
from rdservice.database import usage
from rdservice.database.pool import create_pool
from rdservice.encryption import KeyRing
from rdservice.metrics.definitions import Metrics
from rdservice.metrics.flusher import Flusher
from rdservice.metrics.state import State
from rdservice.notifications import deliveries
from rdservice.rdstation import call_metrics
from rdservice.rdstation.client import RDStation
from rdservice.rdstation.rate_budget import RateBudget
from rdservice.rdstation.streaming import StreamedCalls
from rdservice.tokens import credentials, overview
from rdservice.tokens.access_tokens import AccessTokens
from rdservice.tokens.memory import TokenMemory
from rdservice.tokens.refresh import Refresher


@dataclass(frozen=True, kw_only=True)
class Services:
    """The parts of a running process."""

    settings: Settings
    pool: ConnectionPool[psycopg.Connection[Any]]
    keys: KeyRing
    metrics: Metrics
    metrics_flusher: Flusher
    rdstation: RDStation
    streamed_calls: StreamedCalls
    memory: TokenMemory
    refresher: Refresher
    access_tokens: AccessTokens
    rate_budget: RateBudget
    account_calls: AccountCalls
    cache: Cache

    @classmethod
    def start(cls, settings: Settings, *, name: str, pool_size: int | None = None, keep: int = 1) -> Self:
        """Create the parts of a process. PostgreSQL shows `name` as the application_name of its connections.

        `pool_size`: most connections; None: as many as the settings say. `keep`: how many stay open when idle.
        The pool opens in the background, so the process starts even if the database is down.
        """
        pool = create_pool(
            settings.database_url,
            max_size=pool_size or settings.database_pool_size,
            min_size=keep,
            name=name,
        )
        keys = KeyRing(settings.encryption_keys)
        metrics = Metrics()
        metrics_flusher = Flusher(metrics, pool, read_state)
        metrics_flusher.start()
        count = partial(call_metrics.count, metrics, metrics_flusher.hurry)
        rdstation = RDStation(settings, on_call=count)
        memory = TokenMemory(pool, keys)
        refresher = Refresher(
            pool=pool,
            keys=keys,
            rdstation=rdstation,
            metrics=metrics,
            fingerprint=credentials.fingerprint(settings),
            must_end=threading.Event(),
        )
        access_tokens = AccessTokens(settings, memory, refresher)
        rate_budget = RateBudget(pool, settings.rate_limit, on_lost_note=metrics.note_lost)
        return cls(
            settings=settings,
            pool=pool,
            keys=keys,
            metrics=metrics,
            metrics_flusher=metrics_flusher,
            rdstation=rdstation,
            streamed_calls=StreamedCalls(settings, on_call=count),
            memory=memory,
            refresher=refresher,
            access_tokens=access_tokens,
            rate_budget=rate_budget,
            account_calls=AccountCalls(access_tokens, rate_budget),
            cache=Cache(
                pool=pool,
                keys=keys,
                tokens=memory,
                access_tokens=access_tokens,
                secret_key=settings.secret_key,
                max_age_s=settings.cache_ttl_s,
                must_end=refresher.must_end,
                on_lost_note=metrics.note_lost,
            ),
        )

    def close(self) -> None:
        """Wait for the fetches and refreshes under way, flush the last metrics, and close all connections."""
        self.cache.close()
        self.access_tokens.close()
        self.metrics_flusher.close()
        self.pool.close()
        self.rdstation.close()


def read_state(conn: psycopg.Connection[Any]) -> State:
    """Read the state that `/metrics` exposes."""
    return State(
        overview=overview.read(conn),
        failing_notifications=len(deliveries.failed(conn)),
        connections=usage.read(conn),
    )
