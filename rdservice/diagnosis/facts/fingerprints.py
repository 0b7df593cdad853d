"""What a report may say of a secret: how long it is, and a mark by which two machines can be compared."""

import hashlib
from typing import Any

LABEL = b"rdservice diagnosis\0"
SHORTEST = 16
DIGITS = 4


def fingerprint(secret: str) -> str | None:
    """Return 4 hexadecimal digits by which people compare a secret on two machines, None for a short one.

    It must not help to guess the secret. 16 bits of a hash do not confirm a guess: of a dictionary's billion words some
    15,000 have the same mark. They take 16 bits off the work of who tries all values, which leaves 112 of the 128 that
    RD Station's secrets and tokens have. Of less than 16 characters, such as a password that a person made up, the
    work that is left could be too little, so there is no mark of it. Equal marks of two different secrets are had by
    chance once in 65,536.
    """
    if len(secret) < SHORTEST:
        return None
    return hashlib.sha256(LABEL + secret.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def described(secret: str) -> dict[str, Any]:
    """Return a secret's length, and its fingerprint where it has one."""
    mark = fingerprint(secret)
    return {"length": len(secret)} | ({} if mark is None else {"fingerprint": mark})
