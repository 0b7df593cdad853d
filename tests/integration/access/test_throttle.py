"""Limits on failed attempts."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from rdservice.access import throttle
from rdservice.database.pool import transaction
from rdservice.errors import TooManyRequests

SECRET = "0123456789abcdef0123456789abcdef"
Conn = psycopg.Connection[Any]
Pool = ConnectionPool[Conn]


@pytest.fixture
def attempts(pool: Pool) -> "Attempts":
    return Attempts(pool)


class Attempts:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def login(self, address: str, email: str = "ana@example.com") -> bool:
        """Count a failed log-in; return whether it was let through."""
        return self._count(throttle.login_limits(SECRET, address, email))

    def key(self, address: str) -> bool:
        return self._count(throttle.key_limits(SECRET, address))

    def _count(self, limits: list[throttle.Limit]) -> bool:
        try:
            with transaction(self._pool) as conn:
                throttle.count_attempt(conn, limits)
        except TooManyRequests:
            return False
        return True


def test_attempts_for_one_e_mail_from_one_address_are_limited(attempts: Attempts) -> None:
    outcomes = [attempts.login("192.0.2.1") for _ in range(throttle.LOGINS_PER_ADDRESS_AND_EMAIL + 3)]
    assert outcomes == [True] * throttle.LOGINS_PER_ADDRESS_AND_EMAIL + [False] * 3


def test_a_refusal_says_how_long_the_window_lasts(attempts: Attempts, pool: Pool) -> None:
    while attempts.key("192.0.2.1"):
        pass
    with pytest.raises(TooManyRequests) as caught, transaction(pool) as conn:
        throttle.count_attempt(conn, throttle.key_limits(SECRET, "192.0.2.1"))
    assert caught.value.retry_after_s is not None
    assert throttle.WINDOW_S - 60 < caught.value.retry_after_s <= throttle.WINDOW_S


def test_nobody_locks_an_operator_out_from_another_address(attempts: Attempts) -> None:
    while attempts.login("192.0.2.1"):
        pass
    assert attempts.login("192.0.2.2")


def test_an_address_that_tries_many_e_mails_is_limited(attempts: Attempts) -> None:
    let_through = sum(attempts.login("192.0.2.1", f"user{number}@example.com") for number in range(60))
    assert let_through == throttle.LOGINS_PER_ADDRESS


def test_stubbornness_with_one_e_mail_does_not_spend_the_address_s_limit(attempts: Attempts) -> None:
    for _ in range(throttle.LOGINS_PER_ADDRESS * 2):
        attempts.login("192.0.2.1", "old@example.com")
    assert attempts.login("192.0.2.1", "new@example.com")


def test_refused_keys_and_log_ins_are_counted_apart(attempts: Attempts) -> None:
    while attempts.key("192.0.2.1"):
        pass
    assert attempts.login("192.0.2.1")


def test_a_window_ends_and_old_rows_go(attempts: Attempts, conn: Conn) -> None:
    while attempts.login("192.0.2.1"):
        pass
    conn.execute(
        "UPDATE rdservice_access_failures SET window_ends_at = window_ends_at - %s",
        [timedelta(seconds=throttle.WINDOW_S)],
    )
    assert attempts.login("192.0.2.9", "other@example.com")
    assert throttle.prune(conn) == 2
    row = conn.execute("SELECT count(*) FROM rdservice_access_failures").fetchone()
    assert row == (2,)
    assert attempts.login("192.0.2.1")


def test_an_attack_from_ever_new_addresses_does_not_fill_the_disk_and_what_is_newest_counts_on(
    attempts: Attempts, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "MOST_SUBJECTS", 20)
    for number in range(30):
        attempts.key(f"198.51.100.{number}")
    while attempts.key("192.0.2.1"):
        pass
    assert throttle.prune(conn, batch=4) == 4
    assert throttle.prune(conn) == 7
    assert throttle.prune(conn) == 0
    assert conn.execute("SELECT count(*) FROM rdservice_access_failures").fetchone() == (20,)
    assert not attempts.key("192.0.2.1")


def test_pruning_waits_for_no_row_that_is_being_counted(attempts: Attempts, pool: Pool, conn: Conn) -> None:
    attempts.key("192.0.2.1")
    attempts.key("192.0.2.2")
    conn.execute("UPDATE rdservice_access_failures SET window_ends_at = rd_now() - interval '1 s'")
    with transaction(pool) as other:
        throttle.count_attempt(other, throttle.key_limits(SECRET, "192.0.2.1"))
        conn.execute("SET lock_timeout = '1s'")
        assert throttle.prune(conn) == 1


def test_an_ended_window_begins_anew_with_one_failure(attempts: Attempts, conn: Conn) -> None:
    attempts.key("192.0.2.1")
    conn.execute(
        "UPDATE rdservice_access_failures SET failures = 40, window_ends_at = rd_now() - interval '1 s'"
    )
    assert attempts.key("192.0.2.1")
    row = conn.execute("SELECT failures FROM rdservice_access_failures").fetchone()
    assert row in {(1,), None}


def test_a_success_is_not_counted(attempts: Attempts, pool: Pool) -> None:
    limits = throttle.login_limits(SECRET, "192.0.2.1", "ana@example.com")
    for _ in range(throttle.LOGINS_PER_ADDRESS * 2):
        with transaction(pool) as conn:
            throttle.count_attempt(conn, limits)
            throttle.forgive(conn, limits)
    assert attempts.login("192.0.2.1")


def test_attempts_at_the_same_moment_do_not_pass_the_limit(attempts: Attempts) -> None:
    start = threading.Barrier(5)

    def try_often() -> int:
        start.wait(10)
        return sum(attempts.login("192.0.2.1") for _ in range(8))

    with ThreadPoolExecutor(5) as threads:
        outcomes = [future.result() for future in [threads.submit(try_often) for _ in range(5)]]
    assert sum(outcomes) == throttle.LOGINS_PER_ADDRESS_AND_EMAIL


def test_an_ipv6_client_is_known_by_its_network(attempts: Attempts) -> None:
    while attempts.key("2001:db8:1:2::1"):
        pass
    assert not attempts.key("2001:db8:1:2:ffff::9")
    assert attempts.key("2001:db8:1:3::1")
    assert throttle.key_limits(SECRET, "::ffff:192.0.2.1") == throttle.key_limits(SECRET, "192.0.2.1")


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("192.0.2.1:4711", "192.0.2.1"),
        ("[2001:db8:1:2::1]:4711", "2001:db8:1:2::1"),
        ("[2001:db8:1:2::1]", "2001:db8:1:2::1"),
        ("2001:DB8:1:2:0:0:0:1", "2001:db8:1:2::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
        # No addresses: the quote of a client, which swallows what its proxy added, and other inventions.
        ('"1.1.1.1, 192.0.2.1', "unknown"),
        ("a-new-name-each-time", "unknown"),
        ("192.0.2.1:x", "unknown"),
        ("192.0.2.256:80", "unknown"),
        ("", "unknown"),
    ],
)
def test_however_an_address_is_written_it_is_one_client_and_whatever_is_none_is_one_too(
    written: str, address: str
) -> None:
    assert throttle.key_limits(SECRET, written) == throttle.key_limits(SECRET, address)
    assert throttle.login_limits(SECRET, written, "a@b") == throttle.login_limits(SECRET, address, "a@b")


def test_rows_name_neither_address_nor_e_mail(attempts: Attempts, conn: Conn) -> None:
    attempts.login("192.0.2.1", "ana@example.com")
    rows = conn.execute("SELECT f::text, subject FROM rdservice_access_failures f").fetchall()
    assert len(rows) == 2
    for text, subject in rows:
        assert "192.0.2.1" not in text
        assert b"ana" not in subject
        assert len(subject) == 32
    other_key = throttle.login_limits("another secret key, also 32 long!", "192.0.2.1", "ana@example.com")
    assert {bytes(subject) for _, subject in rows}.isdisjoint({limit.subject for limit in other_key})
