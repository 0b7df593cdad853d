"""API keys."""

import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from rdservice.access import key_memory, keys, operators, sessions
from rdservice.access.key_memory import KeyMemory
from rdservice.errors import InvalidField

Conn = psycopg.Connection[Any]


def create(conn: Conn, *scopes: str) -> str:
    return keys.create(conn, "a program", scopes or ["tokens:read"], created_by="test")


def test_a_key_has_the_documented_form_and_is_found(conn: Conn) -> None:
    text = create(conn, "leads:read", "tokens:write")
    assert re.fullmatch(r"rdk_[a-z2-7]{8}_[A-Za-z0-9_-]{43}", text)
    found = keys.find(conn, text)
    assert found == keys.ApiKey(
        key_id=text[4:12], name="a program", scopes=frozenset({"leads:read", "tokens:write"})
    )


def test_keys_and_sessions_are_found_in_a_database_that_takes_no_writes(conn: Conn) -> None:
    text = create(conn)
    operator = operators.create(conn, "ana@example.com", "hash")
    assert operator is not None
    token = sessions.start(conn, operator.operator_id, verified_hash="hash")
    assert token is not None
    conn.execute("UPDATE rdservice_sessions SET last_seen_at = rd_now() - interval '1 hour'")
    with conn.transaction():
        conn.execute("SET TRANSACTION READ ONLY")
        assert keys.find(conn, text) is not None
        assert sessions.find(conn, token) is not None


def test_keys_differ(conn: Conn) -> None:
    assert len({create(conn)[4:] for _ in range(20)}) == 20


def test_the_table_does_not_hold_the_secret(conn: Conn) -> None:
    text = create(conn)
    row = conn.execute("SELECT k::text, secret_hash FROM rdservice_api_keys k").fetchone()
    assert row is not None
    secret = text[13:]
    assert secret not in row[0]
    assert secret.encode() not in bytes(row[1])
    assert secret not in repr(keys.find(conn, text))
    assert secret not in repr(keys.list_all(conn))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-1] + ("A" if text[-1] != "A" else "B"),
        lambda text: text + "A",
        lambda text: text[:-1],
        lambda text: text.upper(),
        lambda text: " " + text,
        lambda text: text + "\n",
        lambda text: "rdk_aaaaaaaa_" + text[13:],
        lambda _: "",
        lambda _: "rdk_" + "\0" * 8 + "_" + "A" * 43,
    ],
)
def test_what_is_not_the_key_is_not_found(conn: Conn, spoil: Callable[[str], str]) -> None:
    assert keys.find(conn, spoil(create(conn))) is None


def test_a_revoked_key_is_not_found_and_stays_listed(conn: Conn) -> None:
    first, second = create(conn), create(conn)
    assert keys.revoke(conn, first[4:12])
    assert keys.find(conn, first) is None
    assert keys.find(conn, second) is not None
    assert [record.key_id for record in keys.list_all(conn)] == [second[4:12], first[4:12]]
    revoked_at = keys.list_all(conn)[1].revoked_at
    assert keys.revoke(conn, first[4:12])
    assert keys.list_all(conn)[1].revoked_at == revoked_at
    assert not keys.revoke(conn, "aaaaaaaa")


def test_use_is_noted_at_most_once_a_minute(conn: Conn) -> None:
    text = create(conn)
    assert keys.list_all(conn)[0].last_used_at is None
    keys.find(conn, text)
    first = keys.list_all(conn)[0].last_used_at
    assert first is not None
    keys.find(conn, text)
    assert keys.list_all(conn)[0].last_used_at == first
    conn.execute("UPDATE rdservice_api_keys SET last_used_at = rd_now() - interval '61 s'")
    keys.find(conn, text)
    again = keys.list_all(conn)[0].last_used_at
    assert again is not None
    assert again > first


def test_noting_the_use_waits_for_nobody(conn: Conn, database_url: str) -> None:
    text = create(conn)
    with psycopg.connect(database_url) as other:
        other.execute("SELECT key_id FROM rdservice_api_keys FOR UPDATE")
        conn.execute("SET lock_timeout = '2s'")
        assert keys.find(conn, text) is not None


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "two\nlines", "\0"])
def test_a_key_needs_a_plain_name(conn: Conn, name: str) -> None:
    with pytest.raises(InvalidField, match="name"):
        keys.create(conn, name, ["tokens:read"], created_by="test")


@pytest.mark.parametrize("scopes", [[], ["tokens:all"], ["tokens:read", ""]])
def test_a_key_needs_known_scopes(conn: Conn, scopes: list[str]) -> None:
    with pytest.raises(InvalidField, match="tokens:write"):
        keys.create(conn, "a program", scopes, created_by="test")


KEY = keys.ApiKey(key_id="aaaaaaaa", name="a program", scopes=frozenset())


class Source:
    """Answers like the database and counts how often it is asked."""

    def __init__(self, response: keys.ApiKey | None) -> None:
        self.response = response
        self.asked = 0

    def __call__(self) -> keys.ApiKey | None:
        self.asked += 1
        return self.response


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("rdservice.access.key_memory.time.monotonic", lambda: now[0])
    return now


def test_the_memory_asks_again_after_half_a_second(clock: list[float]) -> None:
    memory, source = KeyMemory(), Source(KEY)
    assert memory.find("k", source) == KEY
    clock[0] += 0.49
    assert memory.find("k", source) == KEY
    assert source.asked == 1
    source.response = None
    clock[0] += 0.02
    assert memory.find("k", source) is None


def test_the_memory_counts_from_before_the_question(clock: list[float]) -> None:
    memory = KeyMemory()

    def slowly() -> keys.ApiKey:
        clock[0] += 0.4
        return KEY

    memory.find("k", slowly)
    clock[0] += 0.2
    source = Source(None)
    assert memory.find("k", source) is None
    assert source.asked == 1


def test_the_memory_never_remembers_absence(clock: list[float]) -> None:
    del clock
    memory, source = KeyMemory(), Source(None)
    assert memory.find("k", source) is None
    source.response = KEY
    assert memory.find("k", source) == KEY


def test_the_memory_is_bounded_and_keeps_no_key_in_plain_text(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    del clock
    monkeypatch.setattr(key_memory, "MAX_ENTRIES", 3)
    memory = KeyMemory()
    for number in range(10):
        memory.find(f"key number {number}", Source(KEY))
    assert len(memory._entries) == 3
    assert "key number" not in repr(vars(memory))


def test_a_stuck_question_does_not_stop_the_others(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_memory, "WAIT_S", 0.01)
    memory, source = KeyMemory(), Source(KEY)
    memory.find("k", source)
    clock[0] += 1

    def ask_while_another_asks() -> keys.ApiKey | None:
        # The first question is still under way here.
        assert memory.find("k", source) == KEY
        return KEY

    assert memory.find("k", ask_while_another_asks) == KEY
    assert source.asked == 2


def test_a_question_that_fails_is_asked_again(clock: list[float]) -> None:
    memory, source = KeyMemory(), Source(KEY)
    memory.find("k", source)
    clock[0] += 1

    def fail() -> keys.ApiKey:
        raise psycopg.OperationalError("down")

    with pytest.raises(psycopg.OperationalError):
        memory.find("k", fail)
    assert memory.find("k", source) == KEY
