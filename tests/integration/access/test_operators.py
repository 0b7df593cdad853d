"""Operators, their passwords and sessions."""

import threading
from typing import Any

import psycopg
import pytest

from rdservice.access import operators, passwords, sessions
from rdservice.errors import InvalidField

Conn = psycopg.Connection[Any]
HASH = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$invalid"


def add(conn: Conn, email: str = "ana@example.com") -> operators.Operator:
    created = operators.create(conn, email, HASH)
    assert created is not None
    return created


def test_an_e_mail_is_unique_whatever_its_case_and_form(conn: Conn) -> None:
    assert add(conn, " José@Example.COM ").email == "josé@example.com"
    assert operators.create(conn, "JOSE\u0301@EXAMPLE.COM", HASH) is None
    found = operators.find_credentials(conn, "Jose\u0301@example.com")
    assert found is not None
    assert found.email == "josé@example.com"
    assert [operator.email for operator in operators.list_all(conn)] == ["josé@example.com"]


@pytest.mark.parametrize("email", ["", "ana", "ana@", "@x", "a b@x", "a@b@c", "a@\0", "a" * 250 + "@x.br"])
def test_what_is_no_e_mail_is_refused_and_belongs_to_nobody(conn: Conn, email: str) -> None:
    with pytest.raises(InvalidField):
        operators.create(conn, email, HASH)
    assert operators.find_credentials(conn, email) is None


def test_a_password_hash_is_left_out_of_repr(conn: Conn) -> None:
    add(conn)
    found = operators.find_credentials(conn, "ana@example.com")
    assert found is not None
    assert found.password_hash == HASH
    assert HASH not in repr(found)


def test_an_operator_is_removed_once_with_all_sessions(conn: Conn) -> None:
    operator = add(conn)
    token = sessions.start(conn, operator.operator_id, verified_hash=HASH)
    assert token is not None
    assert operators.remove(conn, "ANA@example.com")
    assert sessions.find(conn, token) is None
    assert not operators.remove(conn, "ana@example.com")


def test_a_password_is_verified_with_its_own_hash_only() -> None:
    password_hash = passwords.hash_password("correct horse battery")
    assert password_hash.startswith("$argon2id$")
    assert passwords.verify(password_hash, "correct horse battery")
    assert not passwords.verify(password_hash, "correct horse batterY")
    assert not passwords.verify(password_hash, "")
    assert not passwords.verify(password_hash, "x" * 5000)
    assert not passwords.verify("no hash at all", "correct horse battery")
    assert not passwords.verify(None, "correct horse battery")


@pytest.mark.parametrize("password", ["", "a" * 11, "é" * 11, "a" * 1001, "é" * 501])
def test_a_password_too_short_or_too_long_is_refused(password: str) -> None:
    with pytest.raises(InvalidField) as caught:
        passwords.hash_password(password)
    assert password == "" or password not in str(caught.value)


@pytest.mark.parametrize("password", ["é" * 12, "a" * 1000, "\ud800 lone surrogate", "with \0 inside it"])
def test_a_password_may_have_any_characters(password: str) -> None:
    assert passwords.verify(passwords.hash_password(password), password)


def test_a_session_is_found_by_its_token_and_stored_only_as_a_hash(conn: Conn) -> None:
    operator = add(conn)
    token = sessions.start(conn, operator.operator_id, verified_hash=HASH)
    assert token is not None
    found = sessions.find(conn, token)
    assert found is not None
    assert (found.operator_id, found.email) == (operator.operator_id, operator.email)
    row = conn.execute("SELECT s::text, token_hash FROM rdservice_sessions s").fetchone()
    assert row is not None
    assert token not in row[0]
    assert bytes(row[1]).hex() == found.session_id
    assert token not in repr(found)


@pytest.mark.parametrize("token", ["", "x", "A" * 43, "\0" * 43, "\ud800" * 43])
def test_no_other_token_opens_a_session(conn: Conn, token: str) -> None:
    operator = add(conn)
    sessions.start(conn, operator.operator_id, verified_hash=HASH)
    assert sessions.find(conn, token) is None


def test_no_session_begins_with_a_password_that_was_changed_meanwhile(conn: Conn) -> None:
    operator = add(conn)
    operators.reset_password(conn, operator.email, "another hash")
    assert sessions.start(conn, operator.operator_id, verified_hash=HASH) is None


def test_a_log_in_during_a_password_reset_waits_for_it_and_fails(conn: Conn, database_url: str) -> None:
    operator = add(conn)
    outcome: list[str | None] = []

    def log_in() -> None:
        with psycopg.connect(database_url, autocommit=True) as other:
            outcome.append(sessions.start(other, operator.operator_id, verified_hash=HASH))

    with psycopg.connect(database_url) as resetting:
        operators.reset_password(resetting, operator.email, "another hash")
        sessions.end_all(resetting, operator.operator_id)
        thread = threading.Thread(target=log_in)
        thread.start()
        wait_for_blocked(conn)
        resetting.commit()
        thread.join(10)
    assert outcome == [None]


def wait_for_blocked(conn: Conn) -> None:
    """Return when some connection waits for a lock."""
    for _ in range(1000):
        row = conn.execute(
            "SELECT pg_sleep(0.01), count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        ).fetchone()
        if row is not None and row[1]:
            return
    raise AssertionError("nobody waits for a lock")


def test_being_seen_is_noted_at_most_once_a_minute_and_keeps_the_session(conn: Conn) -> None:
    operator = add(conn)
    token = sessions.start(conn, operator.operator_id, verified_hash=HASH)
    assert token is not None

    def last_seen() -> Any:
        row = conn.execute("SELECT last_seen_at FROM rdservice_sessions").fetchone()
        assert row is not None
        return row[0]

    first = last_seen()
    assert sessions.find(conn, token)
    assert last_seen() == first
    conn.execute("UPDATE rdservice_sessions SET last_seen_at = rd_now() - interval '11 h'")
    assert sessions.find(conn, token)
    assert last_seen() > first


def test_ending_all_sessions_leaves_other_operators_alone(conn: Conn) -> None:
    ana, bia = add(conn), add(conn, "bia@example.com")
    for operator in (ana, ana, bia):
        sessions.start(conn, operator.operator_id, verified_hash=HASH)
    assert sessions.end_all(conn, ana.operator_id) == 2
    row = conn.execute("SELECT operator_id::text FROM rdservice_sessions").fetchone()
    assert row == (bia.operator_id,)
