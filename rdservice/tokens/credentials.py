"""Whether RD Station accepts the client ID and secrets. All processes share what one has learned.

If RD Station refuses all secrets, the settings are wrong, and no account is to blame. The gate then closes: instead of
one attempt per account, one process makes one attempt every 5 minutes, the probe, with one account's refresh token. The
state belongs to the fingerprint of ID and secrets, so after a change of either the gate is open.
"""

import hashlib
from typing import Any

import psycopg

from rdservice.config.settings import Settings

PROBE_EVERY_S = 300
PROVEN_FOR_S = 3600
"""A refusal within this time after a success may concern one account only; a later one means wrong settings."""

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
    """Return 16 hexadecimal digits that identify the client ID and its list of secrets without revealing them."""
    text = "\0".join([settings.client_id, *settings.client_secrets])
    return hashlib.sha256(b"rdservice client credentials\0" + text.encode()).hexdigest()[:16]


def closed_for(conn: psycopg.Connection[Any], fingerprint: str) -> float | None:
    """Return the seconds until the next probe if the gate is closed, or None if it is open."""
    row = conn.execute(CLOSED_FOR, {"fingerprint": fingerprint}).fetchone()
    return None if row is None else float(row[0])


def take_probe(conn: psycopg.Connection[Any], fingerprint: str) -> bool:
    """Take the probe; return whether it was due and no other process had it."""
    row = conn.execute(TAKE_PROBE, {"fingerprint": fingerprint, "every_s": PROBE_EVERY_S}).fetchone()
    return row is not None


def give_probe_back(conn: psycopg.Connection[Any], fingerprint: str) -> None:
    """Make the probe due again if the gate is closed: the process that had taken it could not send anything."""
    conn.execute(GIVE_PROBE_BACK, {"fingerprint": fingerprint})


def record_success(conn: psycopg.Connection[Any], fingerprint: str) -> None:
    """Record that RD Station accepted these credentials, and open the gate. Writes at most once a minute."""
    values = {"fingerprint": fingerprint, "within_s": 60}
    if conn.execute(RECENTLY_PROVEN, values).fetchone() is None:
        conn.execute(RECORD_SUCCESS, values)


def worked_recently(conn: psycopg.Connection[Any], fingerprint: str) -> bool:
    """Return whether these credentials worked within the last hour.

    Then a refusal of all secrets may concern one account only, or someone has just changed them at RD Station. Neither
    says anything about the refresh token.
    """
    values = {"fingerprint": fingerprint, "within_s": PROVEN_FOR_S}
    return conn.execute(RECENTLY_PROVEN, values).fetchone() is not None


def record_refusal(conn: psycopg.Connection[Any], fingerprint: str) -> None:
    """Record that RD Station refused all secrets, which means wrong settings, and close the gate."""
    conn.execute(RECORD_REFUSAL, {"fingerprint": fingerprint, "every_s": PROBE_EVERY_S})
