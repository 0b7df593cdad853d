"""Whether RD Station accepts the client id and secrets, shared by all processes.

When it refuses them all, the settings are wrong and no account is to blame: the gate closes, and one process asks
again every 5 minutes, with one account's token, instead of every account on its own. A list of secrets is known by its
fingerprint, so a changed list starts with an open gate.
"""

import hashlib
from typing import Any

import psycopg

from rdservice.config.settings import Settings

PROBE_EVERY_S = 300
PROVEN_FOR_S = 3600
"""A refusal within this time of a success may be the matter of one account; after it the settings are to blame."""

CLOSED_FOR = """
SELECT GREATEST(EXTRACT(epoch FROM probe_after - rd_now()), 0)::float8
  FROM rdstation_client_credentials
 WHERE fingerprint = %(fingerprint)s AND refused_since IS NOT NULL
"""
TAKE_PROBE = """
UPDATE rdstation_client_credentials
   SET probe_after = rd_now() + make_interval(secs => %(every_s)s)
 WHERE fingerprint = (
       SELECT fingerprint FROM rdstation_client_credentials
        WHERE fingerprint = %(fingerprint)s AND refused_since IS NOT NULL AND probe_after <= rd_now()
          FOR UPDATE SKIP LOCKED)
RETURNING 1
"""
GIVE_PROBE_BACK = """
UPDATE rdstation_client_credentials SET probe_after = rd_now()
 WHERE fingerprint = %(fingerprint)s AND refused_since IS NOT NULL AND probe_after > rd_now()
"""
RECENTLY_PROVEN = """
SELECT 1 FROM rdstation_client_credentials
 WHERE fingerprint = %(fingerprint)s AND refused_since IS NULL
   AND last_success_at > rd_now() - make_interval(secs => %(within_s)s)
"""
RECORD_SUCCESS = """
INSERT INTO rdstation_client_credentials AS known (fingerprint, last_success_at, first_seen_at)
VALUES (%(fingerprint)s, rd_now(), rd_now())
ON CONFLICT (fingerprint) DO UPDATE
   SET last_success_at = rd_now(), refused_since = NULL, probe_after = NULL
"""
RECORD_REFUSAL = """
INSERT INTO rdstation_client_credentials AS known (fingerprint, refused_since, probe_after, first_seen_at)
VALUES (%(fingerprint)s, rd_now(), rd_now() + make_interval(secs => %(every_s)s), rd_now())
ON CONFLICT (fingerprint) DO UPDATE
   SET refused_since = COALESCE(known.refused_since, rd_now()),
       probe_after = GREATEST(known.probe_after, EXCLUDED.probe_after)
"""


def fingerprint(settings: Settings) -> str:
    """Return a name for the client id and its list of secrets that tells nothing of them: 16 hexadecimal digits."""
    text = "\0".join([settings.client_id, *settings.client_secrets])
    return hashlib.sha256(b"rdservice client credentials\0" + text.encode()).hexdigest()[:16]


def closed_for(conn: psycopg.Connection[Any], fingerprint: str) -> float | None:
    """Return the seconds until the next probe while RD Station refuses these credentials, else None."""
    row = conn.execute(CLOSED_FOR, {"fingerprint": fingerprint}).fetchone()
    return None if row is None else float(row[0])


def take_probe(conn: psycopg.Connection[Any], fingerprint: str) -> bool:
    """Take the one attempt that is allowed while the gate is closed; return whether it was free and due."""
    row = conn.execute(TAKE_PROBE, {"fingerprint": fingerprint, "every_s": PROBE_EVERY_S}).fetchone()
    return row is not None


def give_probe_back(conn: psycopg.Connection[Any], fingerprint: str) -> None:
    """Let the next attempt probe at once, if the gate is closed: the one that had the probe could not send anything."""
    conn.execute(GIVE_PROBE_BACK, {"fingerprint": fingerprint})


def record_success(conn: psycopg.Connection[Any], fingerprint: str) -> None:
    """Note that RD Station accepted these credentials. Written at most once a minute, not once a refresh."""
    values = {"fingerprint": fingerprint, "within_s": 60}
    if conn.execute(RECENTLY_PROVEN, values).fetchone() is None:
        conn.execute(RECORD_SUCCESS, values)


def record_refusal(conn: psycopg.Connection[Any], fingerprint: str) -> bool:
    """Note that RD Station refused all secrets of the list; return whether the settings are to blame.

    False means that the same credentials worked within the hour: then it may be about one account, or they have just
    been changed. Neither says anything of a refresh token.
    """
    values = {"fingerprint": fingerprint, "within_s": PROVEN_FOR_S, "every_s": PROBE_EVERY_S}
    if conn.execute(RECENTLY_PROVEN, values).fetchone() is not None:
        return False
    conn.execute(RECORD_REFUSAL, values)
    return True
