"""Transactions, on connections that the server may have ended meanwhile."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool, PoolTimeout

from rdservice.database import pool as database

SIZE = 5
Pool = ConnectionPool[psycopg.Connection[Any]]
TERMINATE_OTHERS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
 WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


@pytest.fixture
def full_pool(database_url: str) -> Iterator[Pool]:
    """A pool with as many open connections as it may have, all of them idle."""
    pool = database.create_pool(database_url, max_size=SIZE, name="test")
    with ExitStack() as at_once:
        for _ in range(SIZE):
            at_once.enter_context(database.transaction(pool))
    assert pool.get_stats()["pool_available"] == SIZE
    yield pool
    pool.close()


def test_a_transaction_begins_although_the_server_ended_every_idle_connection(
    full_pool: Pool, conn: psycopg.Connection[Any]
) -> None:
    conn.execute(TERMINATE_OTHERS)
    with database.transaction(full_pool) as again:
        assert again.execute("SELECT 1").fetchone() == (1,)


def test_a_connection_that_dies_in_a_transaction_fails_it_and_is_replaced(
    full_pool: Pool, conn: psycopg.Connection[Any]
) -> None:
    def die() -> None:
        with database.transaction(full_pool) as dying:
            conn.execute(TERMINATE_OTHERS)
            dying.execute("SELECT 1")

    with pytest.raises(psycopg.OperationalError):
        die()
    with ExitStack() as at_once:
        for _ in range(SIZE):
            at_once.enter_context(database.transaction(full_pool))
        assert full_pool.get_stats()["pool_size"] == SIZE


def test_an_exception_rolls_back_and_gives_the_connection_back(
    full_pool: Pool, conn: psycopg.Connection[Any]
) -> None:
    def fail() -> None:
        with database.transaction(full_pool) as failing:
            failing.execute("INSERT INTO rdstation_workers (worker) VALUES ('w')")
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert conn.execute("SELECT count(*) FROM rdstation_workers").fetchone() == (0,)
    assert full_pool.get_stats()["pool_available"] == SIZE


def test_without_a_free_connection_a_transaction_is_given_up(
    full_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "POOL_TIMEOUT_S", 0.2)
    with ExitStack() as at_once:
        for _ in range(SIZE):
            at_once.enter_context(database.transaction(full_pool))
        with pytest.raises(PoolTimeout):
            at_once.enter_context(database.transaction(full_pool))
