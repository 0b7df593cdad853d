"""What checking a password costs, and how many are checked at once."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest
from argon2 import PasswordHasher, low_level

from rdservice.access import passwords
from rdservice.errors import TooManyRequests

PASSWORD = "correct horse battery"


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What Argon2 is asked to do: the operation, and the length of the password in bytes."""
    done: list[tuple[str, int]] = []
    real_hash, real_verify = low_level.hash_secret, low_level.verify_secret

    def hash_secret(secret: bytes, *args: object, **named: object) -> bytes:
        done.append(("argon2", len(secret)))
        return real_hash(secret, *args, **named)  # type: ignore[arg-type]

    def verify_secret(hashed: bytes, secret: bytes, *args: object) -> bool:
        done.append(("argon2", len(secret)))
        return real_verify(hashed, secret, *args)  # type: ignore[arg-type]

    monkeypatch.setattr("argon2._password_hasher.hash_secret", hash_secret)
    monkeypatch.setattr("argon2._password_hasher.verify_secret", verify_secret)
    return done


@pytest.mark.parametrize("password", ["", "wrong password", "é" * 500])
def test_an_unknown_operator_costs_what_a_wrong_password_costs(
    work: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    parameters: list[tuple[int, int, int]] = []

    class Noting(PasswordHasher):
        """Notes with which parameters it is asked to work."""

        def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
            parameters.append((self.time_cost, self.memory_cost, self.parallelism))
            return super().hash(password, salt=salt)

        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 - as in the base class
            found = low_level_parameters(str(hash))
            parameters.append(found)
            return super().verify(hash, password)

    monkeypatch.setattr(passwords, "_hasher", Noting(time_cost=2, memory_cost=128, parallelism=2))
    stored = passwords.hash_password(PASSWORD)
    work.clear()
    parameters.clear()
    assert not passwords.verify(stored, password)
    known = list(work)
    work.clear()
    assert not passwords.verify(None, password)
    assert work == known == [("argon2", len(password.encode()))]
    assert parameters == [(2, 128, 2)] * 2


def low_level_parameters(password_hash: str) -> tuple[int, int, int]:
    """Return time, memory and parallelism as the PHC string of a hash tells them."""
    told = dict(part.split("=") for part in password_hash.split("$")[3].split(","))
    return int(told["t"]), int(told["m"]), int(told["p"])


def test_a_password_that_nobody_can_have_costs_nothing_for_anyone(work: list[tuple[str, int]]) -> None:
    too_long = "x" * (passwords.MAX_BYTES + 1)
    assert not passwords.verify(None, too_long)
    assert not passwords.verify("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaA", too_long)
    assert work == []


class Held(PasswordHasher):
    """Works only when it is let, and counts how many work at once."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=64, parallelism=1)
        self.may_work = threading.Event()
        self.at_work = 0
        self.most_at_work = 0

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        assert self.may_work.wait(30)
        self.at_work -= 1
        return super().hash(password, salt=salt)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    hasher = Held()
    monkeypatch.setattr(passwords, "_hasher", hasher)
    yield hasher
    hasher.may_work.set()


def test_one_password_is_checked_at_a_time_and_only_a_few_may_wait(held: Held) -> None:
    in_line = threading.Semaphore(0)

    def log_in() -> bool:
        with passwords.place_in_line():
            in_line.release()
            return passwords.verify(None, "wrong password")

    with ThreadPoolExecutor(passwords.PLACES) as threads:
        waiting = [threads.submit(log_in) for _ in range(passwords.PLACES)]
        for _ in range(passwords.PLACES):
            assert in_line.acquire(timeout=30)
        for _ in range(3):
            with pytest.raises(TooManyRequests) as refused, passwords.place_in_line():
                pass
            assert refused.value.retry_after_s == 1
        held.may_work.set()
        assert [one.result() for one in waiting] == [False] * passwords.PLACES
    assert held.most_at_work == 1
    # All places are free again.
    assert log_in() is False


def test_a_place_is_given_back_whatever_happens() -> None:
    for _ in range(passwords.PLACES * 2):
        with pytest.raises(ZeroDivisionError), passwords.place_in_line():
            raise ZeroDivisionError
