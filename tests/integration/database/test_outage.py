"""While the database is away, a process pauses between tries and says so now and then."""

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from rdservice.database import outage
from rdservice.database import pool as database
from tests.support.database_proxy import DatabaseProxy
from tests.support.waiting import wait_until

SECONDS = 12.0
THREADS = 32
LONGER_THAN_THE_TEST = 10**9


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged about outages, after the filter, and by the pool itself."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                said.append(record.getMessage())

    listener = Listener()
    logging.getLogger().addHandler(listener)
    yield said
    logging.getLogger().removeHandler(listener)


@pytest.fixture
def proxy(database_url: str) -> Iterator[DatabaseProxy]:
    with DatabaseProxy(database_url) as running:
        yield running


def work_through_an_outage(url: str) -> int:
    """Let threads write for `SECONDS`, as refreshes with a response do; return the number of failed transactions."""
    pool = database.create_pool(url, max_size=4, name="test")
    stop = threading.Event()
    failed = []

    def change(conn: psycopg.Connection[Any]) -> None:
        conn.execute("SELECT 1")

    def write() -> None:
        try:
            database.write_for_sure(pool, change, give_up=stop, timeout_s=SECONDS)
        except (psycopg.Error, PoolTimeout) as error:
            failed.append(error)

    with ThreadPoolExecutor(THREADS) as threads:
        for _ in range(THREADS):
            threads.submit(write)
        stop.wait(SECONDS)
        stop.set()
    pool.close()
    return len(failed)


def test_behind_a_pooler_whose_server_is_away_there_is_a_pause_between_tries(
    proxy: DatabaseProxy, lines: list[str]
) -> None:
    """The pooler accepts connections and ends each at its first statement, as PgBouncer does."""
    ended = proxy.cut("", times=LONGER_THAN_THE_TEST)
    used, began = time.process_time(), time.monotonic()
    assert work_through_an_outage(proxy.url) == THREADS
    took_s = time.monotonic() - began
    assert ended.happened < 8 * took_s
    assert time.process_time() - used < 0.1 * took_s
    assert 1 <= len(lines) <= 1 + took_s / outage.EVERY_S, lines


def test_without_a_server_there_is_a_pause_between_tries(lines: list[str]) -> None:
    began = time.monotonic()
    assert work_through_an_outage("postgresql://u:a-password@127.0.0.1:9/none") == THREADS
    assert 1 <= len(lines) <= 1 + (time.monotonic() - began) / outage.EVERY_S, lines
    assert "Connection refused" in "".join(lines)
    assert "a-password" not in "".join(lines)


def test_connections_that_die_in_every_transaction_are_reported_now_and_then(
    proxy: DatabaseProxy, lines: list[str]
) -> None:
    proxy.cut("SELECT 1", times=LONGER_THAN_THE_TEST)
    began = time.monotonic()
    assert work_through_an_outage(proxy.url) == THREADS
    assert 1 <= len(lines) <= 1 + (time.monotonic() - began) / outage.EVERY_S, lines


def test_a_line_names_what_was_left_out_before_it(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    outage.log.warning("first %s", 1)
    for number in range(3):
        outage.log.warning("second %s", number)
    assert lines == ["first 1"]
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + outage.EVERY_S + 1)
    outage.log.warning("first %s", 2)
    assert lines == ["first 1", "first 2; before this: second 2"]


def test_a_line_that_was_left_out_is_told_although_nothing_follows(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "EVERY_S", 0.2)
    outage.log.warning("first")
    outage.log.warning("second")
    wait_until(lambda: lines == ["first", "second"], "the second line is told")
