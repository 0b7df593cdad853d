"""What a report may reveal about a secret: its length, and a fingerprint for comparing two machines."""

import hashlib
from typing import Any

LABEL = b"rdservice diagnosis\0"
SHORTEST = 16
DIGITS = 4


def fingerprint(secret: str) -> str | None:
    """Return 4 hexadecimal digits for comparing a secret on two machines; None for a secret under 16 characters.

    The fingerprint must not help to guess the secret. 16 bits of a hash do not confirm a guess: about 15,000 of a
    billion dictionary words share a fingerprint. They save an attacker 16 bits of a brute-force search, which leaves
    112 of the 128 bits of RD Station's secrets and tokens. For shorter secrets, such as a password that a person made
    up, the remaining work could be too little, so they get none. Two different secrets share a fingerprint with a
    probability of 1 in 65,536.
    """
    if len(secret) < SHORTEST:
        return None
    return hashlib.sha256(LABEL + secret.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def described(secret: str) -> dict[str, Any]:
    """Return a secret's `length`, and its `fingerprint` if it has one."""
    mark = fingerprint(secret)
    return {"length": len(secret)} | ({} if mark is None else {"fingerprint": mark})
