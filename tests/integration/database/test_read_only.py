"""Connections that refuse writes: of a demoted primary, of a standby, of a server that protects a full disk."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient
from psycopg_pool import ConnectionPool

from rdservice.config.settings import Settings
from rdservice.database import migrate
from rdservice.database import pool as database
from rdservice.services import Services
from rdservice.web import create_app
from scripts.local.embedded_postgres import EmbeddedPostgres
from tests.support.scraping import scrape, take_down
from tests.support.waiting import wait_until

SIZE = 4
Pool = ConnectionPool[psycopg.Connection[Any]]
WRITE = "INSERT INTO rdstation_workers (worker) VALUES (pg_backend_pid()::text)"


@pytest.fixture
def own_postgres(new_postgres: Callable[[], EmbeddedPostgres]) -> Iterator[EmbeddedPostgres]:
    """A server of this test, with the service's tables."""
    with new_postgres() as server:
        with psycopg.connect(server.url, autocommit=True) as conn:
            migrate.migrate(conn)
        yield server


@pytest.fixture
def own_client(
    own_postgres: EmbeddedPostgres, make_services: Callable[[Settings], Services], variables: dict[str, str]
) -> FlaskClient:
    """A client of a process that uses this test's server."""
    settings = Settings.from_mapping(variables | {"DATABASE_URL": own_postgres.url})
    return create_app(make_services(settings)).test_client()


@pytest.fixture
def full_pool(database_url: str) -> Iterator[Pool]:
    """A pool with as many open connections as it may have, all of them idle."""
    pool = database.create_pool(database_url, max_size=SIZE, name="test")
    on_all_connections(pool, "SELECT 1")
    yield pool
    pool.close()


def on_all_connections(pool: Pool, statement: str) -> set[int]:
    """Run `statement` on as many connections as the pool may have, at once; return the servers' process ids."""
    with ExitStack() as at_once:
        all_of_them = [at_once.enter_context(database.transaction(pool)) for _ in range(SIZE)]
        for conn in all_of_them:
            conn.execute(statement.encode())
        return {conn.info.backend_pid for conn in all_of_them}


def make_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every connection be older than one that is kept while the whole database is read-only."""
    monkeypatch.setattr(database, "KEEP_READ_ONLY_S", 0.0)


def test_a_connection_that_became_read_only_is_replaced_before_a_transaction_fails_on_it(
    full_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_only = on_all_connections(full_pool, "SET default_transaction_read_only = on")
    make_old(monkeypatch)
    assert on_all_connections(full_pool, WRITE).isdisjoint(read_only)


def set_read_only(server: EmbeddedPostgres, value: str) -> None:
    with psycopg.connect(server.url, autocommit=True) as conn:
        conn.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
        conn.execute("SELECT pg_reload_conf()")
        wait_until(
            lambda: conn.execute("SHOW default_transaction_read_only").fetchone() == (value,),
            "the server has read its settings",
        )


def wait_until_up(client: FlaskClient, *, up: bool) -> None:
    """Wait until the readiness check and the gauge say so. Each session of the server reads its settings by itself."""
    wait_until(
        lambda: (
            (client.get("/readyz").status_code == 200, scrape(client).value("rdstation_database_up"))
            == (up, float(up))
        ),
        f"both say {up}",
        seconds=10,
    )


def test_a_read_only_database_is_not_ready_and_not_up_until_it_takes_writes_again(
    own_postgres: EmbeddedPostgres, own_client: FlaskClient
) -> None:
    wait_until_up(own_client, up=True)
    set_read_only(own_postgres, "on")
    wait_until_up(own_client, up=False)
    response = own_client.get("/readyz")
    assert (response.status_code, response.get_json()["code"]) == (503, "database_unavailable")
    assert "read-only" in response.get_json()["detail"]
    # What can be read is still shown.
    assert "rdstation_notifications_failing" in scrape(own_client).names
    set_read_only(own_postgres, "off")
    wait_until_up(own_client, up=True)


def test_a_standby_is_not_ready_and_not_up_until_it_is_promoted(
    own_postgres: EmbeddedPostgres, own_client: FlaskClient
) -> None:
    wait_until_up(own_client, up=True)
    take_down(own_postgres)
    (own_postgres.log_file.parent / "cluster" / "standby.signal").touch()
    own_postgres.start()
    wait_until(lambda: own_client.get("/readyz").status_code == 503, "the standby is not ready")
    wait_until_up(own_client, up=False)
    with psycopg.connect(own_postgres.url, autocommit=True) as conn:
        conn.execute("SELECT pg_promote()")
    wait_until_up(own_client, up=True)
