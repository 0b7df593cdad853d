"""Operators' passwords: rules for new ones, and Argon2id hashes (RFC 9106)."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from rdservice.errors import InvalidField, TooManyRequests
from rdservice.text.catalogue import message

MIN_LENGTH = 12
"""In characters."""
MAX_BYTES = 1000
"""In UTF-8. A longer password only makes hashing more expensive."""

PLACES = 8
"""Concurrent log-ins per process: one hashes, the others wait. Each occupies one of the web server's 64 threads. A hash
takes about 0.1 s of CPU, so the last in line waits about a second."""

_hasher = PasswordHasher()
# A hash takes 64 MiB of memory. Hashing one at a time keeps a burst of log-ins from exhausting a small machine.
_one_at_a_time = threading.Lock()
_places = threading.BoundedSemaphore(PLACES)


@contextmanager
def place_in_line() -> Iterator[None]:
    """Occupy one of the process's PLACES for a log-in until the block ends.

    Raises TooManyRequests when all are taken: a flood of log-ins must not use up threads and memory.
    """
    if not _places.acquire(blocking=False):
        raise TooManyRequests("Too many log-ins at once. Try again in a second.", retry_after_s=1)
    try:
        yield
    finally:
        _places.release()


def check_rules(password: str) -> None:
    """Raise InvalidField when `password` breaks the rules: under 12 characters, or over 1000 bytes in UTF-8."""
    if len(password) < MIN_LENGTH:
        raise InvalidField(
            message("The password must have at least %(least)s characters."),
            values={"least": MIN_LENGTH},
            extra={"field": "password"},
        )
    if len(_encode(password)) > MAX_BYTES:
        raise InvalidField(
            message("The password must have at most %(most)s bytes in UTF-8."),
            values={"most": MAX_BYTES},
            extra={"field": "password"},
        )


def hash_password(password: str) -> str:
    """Return the Argon2id hash of `password` in the PHC string format. Raises InvalidField like `check_rules`."""
    check_rules(password)
    return _hash(_encode(password))


def verify(password_hash: str | None, password: str) -> bool:
    """Return whether `password` matches `password_hash`.

    For an operator that does not exist, pass None: the result is False and takes as long as a real check, so timing
    does not reveal which operators exist.
    """
    secret = _encode(password)
    if len(secret) > MAX_BYTES:
        # No stored password is this long. Known and unknown operators take the same path, so timing reveals nothing.
        return False
    with _one_at_a_time:
        if password_hash is None:
            _hasher.hash(secret)
            return False
        try:
            return _hasher.verify(password_hash, secret)
        except (VerificationError, InvalidHashError):
            return False


def needs_rehash(password_hash: str) -> bool:
    """Return whether the hash was made with parameters other than the current ones."""
    return _hasher.check_needs_rehash(password_hash)


def rehash(password: str) -> str:
    """Hash a password that was just verified with the current parameters, without applying the rules for new ones."""
    return _hash(_encode(password))


def _hash(secret: bytes) -> str:
    with _one_at_a_time:
        return _hasher.hash(secret)


def _encode(password: str) -> bytes:
    # A terminal with another encoding yields lone surrogates, which UTF-8 cannot encode.
    return password.encode("utf-8", "surrogatepass")
