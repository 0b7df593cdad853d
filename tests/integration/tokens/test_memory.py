"""The memory of rows: presence for half a second, absence never."""

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from rdservice.config.settings import Settings
from rdservice.services import Services
from rdservice.tokens import memory as memory_module
from rdservice.tokens import store
from rdservice.tokens.memory import TokenMemory
from tests.support.accounts import connect_account

Conn = psycopg.Connection[Any]


class FakeTime:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(services: Services, monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(services.memory, "_monotonic", fake.monotonic)
    return fake


def access_token(memory: TokenMemory, account_id: str = "default") -> str | None:
    token = memory.get(account_id)
    return None if token is None else token.access_token


def test_presence_is_remembered_for_half_a_second_and_not_longer(
    services: Services, conn: Conn, time: FakeTime
) -> None:
    connect_account(services)
    assert access_token(services.memory) == "access-of-default"
    conn.execute("DELETE FROM rdstation_tokens")
    time.now += 0.49
    assert access_token(services.memory) == "access-of-default"
    time.now += 0.02
    assert access_token(services.memory) is None


def test_the_half_second_counts_from_before_the_query(
    services: Services, conn: Conn, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_account(services)
    real = store.read_token

    def slow(*args: Any) -> Any:
        token = real(*args)
        time.now += 0.45
        return token

    monkeypatch.setattr(store, "read_token", slow)
    token = services.memory.get("default")
    assert token is not None
    conn.execute("DELETE FROM rdstation_tokens")
    time.now += 0.1
    assert access_token(services.memory) is None


def test_absence_is_never_remembered(services: Services, time: FakeTime) -> None:
    assert services.memory.get("default") is None
    connect_account(services)
    assert access_token(services.memory) == "access-of-default"


def test_what_is_left_of_the_life_shrinks_while_it_is_remembered(
    services: Services, conn: Conn, time: FakeTime
) -> None:
    connect_account(services)
    conn.execute("UPDATE rdstation_tokens SET retry_at = now() + interval '0.3 seconds'")
    first = services.memory.get("default")
    time.now += 0.4
    second = services.memory.get("default")
    assert first is not None
    assert second is not None
    assert second.life_left_s == pytest.approx(first.life_left_s - 0.4)
    assert 0 < first.retry_in_s <= 0.3
    assert second.retry_in_s == 0


def test_a_slow_query_counts_against_the_life_that_is_left(
    services: Services, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_account(services, lifetime_s=100)
    real = store.read_token

    def slow(*args: Any) -> Any:
        token = real(*args)
        time.now += 30
        return token

    monkeypatch.setattr(store, "read_token", slow)
    token = services.memory.get("default")
    assert token is not None
    assert token.life_left_s <= 70


def test_a_remembered_row_costs_no_query(
    services: Services, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_account(services)
    services.memory.get("default")

    def refuse(*args: Any) -> Any:
        raise AssertionError("the database was asked")

    monkeypatch.setattr(store, "read_token", refuse)
    assert access_token(services.memory) == "access-of-default"


def test_when_the_memory_ends_one_of_many_threads_asks_the_database(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_module, "WAIT_S", 30)
    connect_account(services, due=False)
    services.memory.get("default")
    services.memory._known["default"].asked_at -= memory_module.REMEMBER_S
    together, asked = threading.Barrier(10), []
    really_read = store.read_token

    def read(*args: Any) -> Any:
        asked.append(1)
        return really_read(*args)

    def get() -> None:
        together.wait()
        assert services.memory.get("default") is not None

    monkeypatch.setattr(store, "read_token", read)
    threads = [threading.Thread(target=get) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 1


def test_forgetting_asks_the_database_the_next_time(services: Services, conn: Conn, time: FakeTime) -> None:
    connect_account(services)
    services.memory.get("default")
    conn.execute("DELETE FROM rdstation_tokens")
    services.memory.forget("default")
    services.memory.forget("unknown")
    assert services.memory.get("default") is None


def test_reading_asks_the_database_and_remembers(services: Services, conn: Conn, time: FakeTime) -> None:
    connect_account(services)
    services.memory.get("default")
    conn.execute("DELETE FROM rdstation_tokens")
    assert services.memory.read("default") is None
    assert services.memory.get("default") is None


def test_a_delete_by_sql_works_within_a_second_in_every_process(
    make_services: Callable[[Settings], Services], settings: Settings, conn: Conn
) -> None:
    processes = [make_services(settings) for _ in range(3)]
    connect_account(processes[0])
    for process in processes:
        assert access_token(process.memory) == "access-of-default"
    conn.execute("DELETE FROM rdstation_tokens WHERE account_id = 'default'")
    # The real clock, and no more than the second that is promised.
    assert not threading.Event().wait(0.6)
    for process in processes:
        assert process.memory.get("default") is None


def test_the_memory_is_bounded(services: Services, monkeypatch: pytest.MonkeyPatch, time: FakeTime) -> None:
    monkeypatch.setattr(memory_module, "MAX_ACCOUNTS", 3)
    for number in range(6):
        connect_account(services, account_id=f"account-{number}")
        services.memory.get(f"account-{number}")
    asked: list[str] = []
    real = store.read_token

    def count(conn: Conn, keys: Any, account_id: str) -> Any:
        asked.append(account_id)
        return real(conn, keys, account_id)

    monkeypatch.setattr(store, "read_token", count)
    for number in (5, 4, 3, 0):
        services.memory.get(f"account-{number}")
    assert asked == ["account-0"]


def test_no_token_stands_in_the_repr_of_what_is_remembered(services: Services) -> None:
    connect_account(services)
    assert "access-of-default" not in repr(services.memory.get("default"))
    assert "access-of-default" not in repr(services.memory)
