"""Limits on failed attempts, counted in PostgreSQL across all processes. The only owner of `rdservice_access_failures`.

Failures are counted in windows of 15 minutes, which begin with a subject's first failure. Log-ins are counted by client
address and e-mail together, and by client address alone: whoever tries passwords is stopped, and the operator, coming
from another address, is not. Refused API keys are counted by client address; a valid key is judged before the counter
is looked at, so nobody's failures stop it, and guessing at 256 random bits is hopeless anyway: the limit saves work.
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
"""Rows that are kept, some 20 MB with their indexes: an attack from ever new addresses must not fill the disk."""

WITH_PORT = re.compile(r"\[(?P<v6>[0-9A-Fa-f:.]+)\](?::[0-9]+)?|(?P<v4>[0-9.]+):[0-9]+")
"""As some proxies write addresses: with the port, which is another for each connection."""

SPENT = """
SELECT ceil(extract(epoch FROM f.window_ends_at - rd_now()))::integer
  FROM unnest(%(subjects)s::bytea[], %(limits)s::integer[]) AS l (subject, allowed)
  JOIN rdservice_access_failures f USING (subject)
 WHERE f.failures >= l.allowed AND f.window_ends_at > rd_now()
 ORDER BY 1 DESC
 LIMIT 1
"""

# In the order of the subjects, so that two requests never wait for each other's rows.
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

# The newest stay. Whoever has addresses enough to get here gains nothing by a window that is forgotten.
TRIM = """
DELETE FROM rdservice_access_failures WHERE subject = ANY (ARRAY(
    SELECT subject FROM rdservice_access_failures
     WHERE window_ends_at <= (SELECT window_ends_at FROM rdservice_access_failures
                               ORDER BY window_ends_at DESC OFFSET %(most)s LIMIT 1)
     ORDER BY window_ends_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
"""


@dataclass(frozen=True, slots=True)
class Limit:
    """How many failures a subject is allowed in a window. `subject` is a keyed hash."""

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
    """Count an attempt as failed, before its outcome is known, or raise TooManyRequests when a limit is spent.

    Counting first makes the limit exact for attempts at the same moment; a success is taken back with `forgive`.
    An attempt over a limit is not counted (the raise rolls the caller's transaction back), so that one subject's
    stubbornness does not spend another's limit.
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
    """Take back an attempt that `count_attempt` counted: it succeeded."""
    conn.execute(FORGIVE, {"subjects": [limit.subject for limit in limits]})


def prune(conn: Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` windows that are over, or the oldest beyond MOST_SUBJECTS; return how many."""
    ended = conn.execute(PRUNE, {"batch": batch}).rowcount
    return ended + conn.execute(TRIM, {"most": MOST_SUBJECTS, "batch": batch - ended}).rowcount


def _too_many(seconds: int) -> TooManyRequests:
    return TooManyRequests(
        "Too many failed attempts from here. Wait as long as Retry-After says.", retry_after_s=max(seconds, 1)
    )


def _network(address: str) -> str:
    """Return what is counted as one client: an IPv4 address, or the /64 that an IPv6 client can roam in.

    All that is no address is one client: whoever can choose such a text must not be a new one each time.
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
