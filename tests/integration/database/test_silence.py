"""A server that accepts what is sent to it and never responds."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from rdservice.config.settings import ROOT
from rdservice.database import connection
from rdservice.database import pool as database
from tests.support.database_proxy import DatabaseProxy, Where
from tests.support.waiting import wait_until

ANSWERS = 32
WRITE = "INSERT INTO rdstation_workers (worker) VALUES (%s) ON CONFLICT DO NOTHING"
SETUP = """
import sys, time
from rdservice.database import connection
connection.TICK_S, connection.HANGING_TICKS = 0.1, 10
connection.watchdog.start()
"""


@pytest.fixture
def proxy(database_url: str) -> Iterator[DatabaseProxy]:
    with DatabaseProxy(database_url) as running:
        yield running


@pytest.mark.parametrize("where", [Where.STATEMENT, Where.COMMIT])
def test_answers_in_hand_are_written_although_every_old_connection_is_silent(
    proxy: DatabaseProxy, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, where: Where
) -> None:
    monkeypatch.setattr(connection, "RESPONSE_S", 1.0)
    pool = database.create_pool(proxy.url, max_size=4, name="test")
    held = proxy.hold("INSERT INTO rdstation_workers", where, times=4)
    never = threading.Event()

    def write(number: int) -> None:
        database.write_for_sure(
            pool, lambda writing: writing.execute(WRITE, [str(number)]), give_up=never, timeout_s=30
        )

    with ThreadPoolExecutor(ANSWERS) as threads:
        list(threads.map(write, range(ANSWERS)))
    assert held.happened == 4
    assert conn.execute("SELECT count(*) FROM rdstation_workers").fetchone() == (ANSWERS,)
    pool.close()


def test_a_silent_connection_is_closed_and_takes_the_other_old_ones_with_it(
    proxy: DatabaseProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = database.create_pool(proxy.url, max_size=2, name="test")
    with database.transaction(pool) as one, database.transaction(pool) as two:
        old = {one, two}
    monkeypatch.setattr(connection, "RESPONSE_S", 0.5)
    proxy.hold("SELECT 42")
    with pytest.raises(connection.Silent), database.transaction(pool) as conn:
        conn.execute("SELECT 42")
    wait_until(lambda: all(each.closed for each in old), "the old ones are closed")
    with database.transaction(pool) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    pool.close()


def start(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SETUP + script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_call_that_does_not_return_ends_the_process() -> None:
    process = start("connection.watchdog.watch(lambda: time.sleep(60))")
    _, said = process.communicate(timeout=30)
    assert process.returncode == os.EX_TEMPFAIL
    assert "has not returned" in said


def test_a_loop_that_pauses_and_tries_again_is_never_ended() -> None:
    process = start("for _ in range(15): connection.watchdog.watch(lambda: time.sleep(0.2))\nprint('done')")
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "done\n")


def test_a_process_that_was_suspended_in_a_call_goes_on() -> None:
    process = start(
        "connection.watchdog.watch(lambda: (print('in', flush=True), time.sleep(0.3)))\nprint('done')"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(3)
    process.send_signal(signal.SIGCONT)
    said, _ = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "done\n")
