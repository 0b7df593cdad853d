"""How many connections a process opens, keeps and closes, and how PostgreSQL shows them."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import psycopg.conninfo
import pytest
from psycopg_pool import ConnectionPool, PoolTimeout

from rdservice.config.problems import SettingsError
from rdservice.config.settings import Settings
from rdservice.database import pool as database
from rdservice.database import usage
from rdservice.worker.run import pool_size
from tests.support.waiting import wait_until

OPEN = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
Conn = psycopg.Connection[Any]
Pool = ConnectionPool[Conn]


def opened(conn: Conn, name: str) -> int:
    found = conn.execute(OPEN, [f"rdservice {name}"]).fetchone()
    assert found is not None
    return int(found[0])


def use_all(pool: Pool, size: int) -> None:
    with ExitStack() as at_once:
        for _ in range(size):
            at_once.enter_context(database.transaction(pool))


@pytest.fixture
def few(server_role: str) -> Iterator[Pool]:
    pool = database.create_pool(server_role, max_size=2, name="few")
    yield pool
    pool.close()


@pytest.fixture
def server_role(database_url: str, conn: Conn) -> Iterator[str]:
    """The URL of a role that may have no connection."""
    conn.execute("CREATE ROLE crowded LOGIN PASSWORD 'a-password' CONNECTION LIMIT 0")
    yield psycopg.conninfo.make_conninfo(database_url, user="crowded", password="a-password")
    conn.execute("DROP ROLE crowded")


@pytest.mark.parametrize(("size", "keep"), [(16, 1), (2, 1), (3, 0)])
def test_unused_connections_are_closed_within_30_seconds_all_but_those_to_keep(
    database_url: str, conn: Conn, size: int, keep: int
) -> None:
    pool = database.create_pool(database_url, max_size=size, min_size=keep, name="idle")
    use_all(pool, size)
    assert opened(conn, "idle") == size
    wait_until(lambda: opened(conn, "idle") == keep, "the unused ones are closed", seconds=30)
    pool.close()


def test_a_refusal_of_the_server_is_the_reason_of_the_failure(few: Pool) -> None:
    with (
        pytest.raises(PoolTimeout, match='too many connections for role "crowded"'),
        database.transaction(few),
    ):
        pass


@pytest.mark.parametrize(("size", "of_worker"), [("1", 1), ("2", 1), ("16", 8)])
def test_a_worker_opens_half_as_many_connections_as_a_web_process_and_at_least_one(
    variables: dict[str, str], size: str, of_worker: int
) -> None:
    settings = Settings.from_mapping(variables | {"DATABASE_POOL_SIZE": size})
    assert (settings.database_pool_size, pool_size(settings)) == (int(size), of_worker)


def test_four_web_dynos_and_two_workers_leave_two_of_20_connections(settings: Settings) -> None:
    web = settings.database_pool_size
    assert 4 * 2 * web + 2 * pool_size(settings) == 18


def test_the_connections_are_counted_by_process_and_the_smallest_limit_says_how_many_are_free(
    database_url: str, conn: Conn
) -> None:
    conn.execute("CREATE ROLE counted LOGIN PASSWORD 'a-password' CONNECTION LIMIT 5")
    url = psycopg.conninfo.make_conninfo(database_url, user="counted", password="a-password")
    pool = database.create_pool(url, max_size=3, name="worker")
    try:
        with psycopg.connect(url), ExitStack() as at_once:
            for _ in range(3):
                last = at_once.enter_context(database.transaction(pool))
            found = usage.read(last)
        assert found.by_process == {"web": 0, "worker": 3, "command": 0, "other": 1}
        assert found.free == 1
    finally:
        pool.close()
        wait_until(lambda: opened(conn, "worker") == 0, "the pool has ended")
        conn.execute("DROP ROLE counted")


@pytest.mark.parametrize("size", ["0", "101", "many"])
def test_a_size_out_of_bounds_is_a_problem(variables: dict[str, str], size: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_POOL_SIZE: not_a_whole_number"):
        Settings.from_mapping(variables | {"DATABASE_POOL_SIZE": size})
