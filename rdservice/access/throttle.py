"""Limits on failed attempts, counted in PostgreSQL across all processes. Owns `rdservice_access_failures`.

Failures are counted in windows of 15 minutes that begin with a subject's first failure. Log-ins are counted per client
address and e-mail, and per client address: this stops an attacker who guesses passwords, but not the operator, who logs
in from another address. Refused API keys are counted per client address. A valid key is accepted before the counter is
read, so failures of others cannot block it. Guessing 256 random bits is hopeless anyway: that limit only saves work.
"""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from rdservice.errors import TooManyRequests

WINDOW_S = 900
LOGINS_PER_ADDRESS_AND_EMAIL = 10
LOGINS_PER_ADDRESS = 50
KEYS_PER_ADDRESS = 50
MOST_SUBJECTS = 100_000
"""Rows to keep, about 20 MB with indexes, so that an attack from ever-changing addresses cannot fill the disk."""

WITH_PORT = re.compile(r"\[(?P<v6>[0-9A-Fa-f:.]+)\](?::[0-9]+)?|(?P<v4>[0-9.]+):[0-9]+")
"""Some proxies append the port, which differs for each connection."""

SPENT = """
SELECT ceil(extract(epoch FROM f.window_ends_at - rd_now()))::integer
  FROM unnest(%(subjects)s::bytea[], %(limits)s::integer[]) AS l (subject, allowed)
  JOIN rdservice_access_failures f USING (subject)
 WHERE f.failures >= l.allowed AND f.window_ends_at > rd_now()
 ORDER BY 1 DESC
 LIMIT 1
"""

# Locks rows in the order of the subjects, so that two requests cannot deadlock.
COUNT = """
INSERT INTO rdservice_access_failures AS f (subject, failures, window_ends_at)
SELECT subject, 1, rd_now() + %(window_s)s * interval '1 second'
  FROM unnest(%(subjects)s::bytea[]) AS l (subject)
 ORDER BY subject
ON CONFLICT (subject) DO UPDATE
   SET failures = CASE WHEN f.window_ends_at > rd_now() THEN f.failures + 1 ELSE 1 END,
       window_ends_at = CASE WHEN f.window_ends_at > rd_now() THEN f.window_ends_at ELSE excluded.window_ends_at END
RETURNING subject, failures, ceil(extract(epoch FROM window_ends_at - rd_now()))::integer
"""

FORGIVE = """
UPDATE rdservice_access_failures f
   SET failures = GREATEST(f.failures - 1, 0)
  FROM (SELECT subject FROM rdservice_access_failures
         WHERE subject = ANY (%(subjects)s) ORDER BY subject FOR UPDATE) AS locked
 WHERE f.subject = locked.subject
"""

PRUNE = """
DELETE FROM rdservice_access_failures WHERE subject = ANY (ARRAY(
    SELECT subject FROM rdservice_access_failures
     WHERE window_ends_at < rd_now() ORDER BY window_ends_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
"""

# Keeps the newest. An attacker with this many addresses gains nothing when an old window is dropped.
TRIM = """
DELETE FROM rdservice_access_failures WHERE subject = ANY (ARRAY(
    SELECT subject FROM rdservice_access_failures
     WHERE window_ends_at <= (SELECT window_ends_at FROM rdservice_access_failures
                               ORDER BY window_ends_at DESC OFFSET %(most)s LIMIT 1)
     ORDER BY window_ends_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
"""


@dataclass(frozen=True, slots=True)
class Limit:
    """How many failures a subject may have in a window. `subject` is a keyed hash."""

    subject: bytes
    allowed: int


def login_limits(secret_key: str, address: str, email: str) -> list[Limit]:
    """Return the limits on log-ins from the client `address` as `email`."""
    network = _network(address)
    return [
        Limit(_subject(secret_key, "login", network, email), LOGINS_PER_ADDRESS_AND_EMAIL),
        Limit(_subject(secret_key, "login", network), LOGINS_PER_ADDRESS),
    ]


def key_limits(secret_key: str, address: str) -> list[Limit]:
    """Return the limits on refused API keys from the client `address`."""
    return [Limit(_subject(secret_key, "key", _network(address)), KEYS_PER_ADDRESS)]


def count_attempt(conn: Connection[Any], limits: Sequence[Limit]) -> None:
    """Count an attempt as failed before its outcome is known. Raises TooManyRequests when a limit is reached.

    Counting first makes the limit exact for concurrent attempts; after a success, `forgive` undoes the count.
    An attempt over a limit is not counted: the exception rolls back the caller's transaction. So an attacker
    who continues under one subject does not use up the limit of another.
    """
    subjects = [limit.subject for limit in limits]
    allowed = {limit.subject: limit.allowed for limit in limits}
    spent = conn.execute(SPENT, {"subjects": subjects, "limits": list(allowed.values())}).fetchone()
    if spent is not None:
        raise _too_many(spent[0])
    rows = conn.execute(COUNT, {"subjects": subjects, "window_s": WINDOW_S}).fetchall()
    over = [seconds for subject, failures, seconds in rows if failures > allowed[bytes(subject)]]
    if over:
        raise _too_many(max(over))


def forgive(conn: Connection[Any], limits: Sequence[Limit]) -> None:
    """Undo `count_attempt` for an attempt that succeeded."""
    conn.execute(FORGIVE, {"subjects": [limit.subject for limit in limits]})


def prune(conn: Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` windows: ended ones, then the oldest beyond MOST_SUBJECTS. Return how many were deleted."""
    ended = conn.execute(PRUNE, {"batch": batch}).rowcount
    return ended + conn.execute(TRIM, {"most": MOST_SUBJECTS, "batch": batch - ended}).rowcount


def _too_many(seconds: int) -> TooManyRequests:
    return TooManyRequests(
        "Too many failed attempts from this address. Wait for the time in Retry-After.",
        retry_after_s=max(seconds, 1),
    )


def _network(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 network of an IPv6 address.

    All text that is not an address counts as one client, so that a client that can choose the text cannot pose as a
    new client each time.
    """
    match = WITH_PORT.fullmatch(address)
    try:
        ip = ipaddress.ip_address(address if match is None else match["v6"] or match["v4"])
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((int(ip), 64), strict=False))


def _subject(secret_key: str, *parts: str) -> bytes:
    message = "\0".join(("access failures", *parts)).encode("utf-8", "surrogatepass")
    return hmac.digest(secret_key.encode(), message, hashlib.sha256)
