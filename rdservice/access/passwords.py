"""Passwords of operators: the rules for new ones, and their Argon2id hashes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from rdservice.errors import InvalidField, TooManyRequests

MIN_LENGTH = 12
"""In characters."""
MAX_BYTES = 1000
"""In UTF-8. A longer one would only make hashing dearer."""

PLACES = 8
"""Log-ins at once in a process, of which one hashes and the others wait for it. Each takes one of the web server's
threads (64), and a hash some 0.1 s of a processor: the last one in line waits under a second or so."""

_hasher = PasswordHasher()
# A hash takes 64 MiB. One at a time in a process, or a burst of log-ins uses up a small machine's memory.
_one_at_a_time = threading.Lock()
_places = threading.BoundedSemaphore(PLACES)


@contextmanager
def place_in_line() -> Iterator[None]:
    """Hold a place among those who log in at this moment.

    Raises TooManyRequests when all are taken: a flood of log-ins must leave threads and memory to everyone else.
    """
    if not _places.acquire(blocking=False):
        raise TooManyRequests("Too many log-ins at this moment. Try again.", retry_after_s=1)
    try:
        yield
    finally:
        _places.release()


def check_rules(password: str) -> None:
    """Raise InvalidField when `password` cannot be chosen: under 12 characters or over 1000 bytes."""
    if len(password) < MIN_LENGTH:
        raise InvalidField(
            f"The password must have at least {MIN_LENGTH} characters.", extra={"field": "password"}
        )
    if len(_encode(password)) > MAX_BYTES:
        raise InvalidField(
            f"The password must have at most {MAX_BYTES} bytes in UTF-8.", extra={"field": "password"}
        )


def hash_password(password: str) -> str:
    """Return the Argon2id hash of `password`, in the PHC string format. Raises InvalidField, see `check_rules`."""
    check_rules(password)
    return _hash(_encode(password))


def verify(password_hash: str | None, password: str) -> bool:
    """Return whether `password` belongs to `password_hash`.

    None stands for an operator that does not exist: the answer is False and takes as long as any other.
    """
    secret = _encode(password)
    if len(secret) > MAX_BYTES:
        # Said without hashing, for known and unknown operators alike: nobody has such a password.
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
    """Return whether the hash was made with other parameters than today's."""
    return _hasher.check_needs_rehash(password_hash)


def rehash(password: str) -> str:
    """Return a hash with today's parameters of a password that was just verified, whatever today's rules."""
    return _hash(_encode(password))


def _hash(secret: bytes) -> str:
    with _one_at_a_time:
        return _hasher.hash(secret)


def _encode(password: str) -> bytes:
    # A terminal with another encoding yields lone surrogates, which plain UTF-8 cannot express.
    return password.encode("utf-8", "surrogatepass")
