"""What needs a person: one incident for an account, one for the settings. The only owner of `rdservice_incidents`.

Incidents are found by comparing the tokens' state with the incidents that are open, so that it makes no difference
which process looks, how many there are, or what was restarted in between.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.rows import class_row

Kind = Literal["reauthorization_required", "expiring", "credentials_refused"]

WELL_FOR_S = 300
"""How long all must be well before an incident is over: what comes and goes is one incident."""
GATHER_S = 15
"""How long a first incident waits for others of the same cause, so that one message tells of them all."""
MOST_OPEN = 10_000
"""So many incidents are open at the most, which bounds what a look costs: where more accounts need somebody, the
others get theirs as these end."""
KEEP_DAYS = 90
SHOWN_OF_EACH = 10
"""So many accounts of a kind are named in a message; of the others it gives the number."""

WATCH_LOCK = 0x5244_4E46
"""Key of the advisory lock of whoever compares ("RDNF")."""

# A token is renewed with 35 to 40 % of its life left. RD Station's live for a day: the bound by hours lets the index on
# (status, expires_at) find the few rows that may be meant.
HORIZON = "interval '6 hours'"
EXPIRING = f"""
(t.expires_at < rd_now() + LEAST((t.expires_at - t.issued_at) / 4, {HORIZON})
 AND (t.failures > 0 OR t.due_at < rd_now() - interval '10 minutes'))
"""
WELL = f"(t.status = 'connected' AND NOT {EXPIRING})"

TRY_LOCK = "SELECT pg_try_advisory_xact_lock(%(key)s)"
MARK_ACCOUNTS = f"""
UPDATE rdservice_incidents i SET well_since = CASE WHEN {WELL} THEN rd_now() END
  FROM rdstation_tokens t
 WHERE i.closed_at IS NULL AND t.account_id = i.account_id AND {WELL} <> (i.well_since IS NOT NULL)
"""  # noqa: S608 - only texts of this module
MARK_SETTINGS = """
WITH judged AS (SELECT NOT EXISTS (SELECT FROM rdstation_tokens WHERE status = 'credentials_refused') AS well)
UPDATE rdservice_incidents i SET well_since = CASE WHEN well THEN rd_now() END
  FROM judged
 WHERE i.closed_at IS NULL AND i.account_id IS NULL AND well <> (i.well_since IS NOT NULL)
"""
CLOSE_WELL = """
UPDATE rdservice_incidents i
   SET closed_at = rd_now(),
       ending = CASE WHEN i.account_id IS NOT NULL OR EXISTS (
           SELECT FROM rdstation_client_credentials c WHERE c.refused_since IS NULL AND c.last_success_at > i.opened_at)
           THEN 'recovered' ELSE 'gone' END
 WHERE i.closed_at IS NULL AND i.well_since <= rd_now() - make_interval(secs => %(well_for_s)s)
"""
CLOSE_GONE = """
UPDATE rdservice_incidents i SET closed_at = rd_now(), ending = 'gone'
 WHERE i.closed_at IS NULL AND i.account_id IS NOT NULL
   AND NOT EXISTS (SELECT FROM rdstation_tokens t WHERE t.account_id = i.account_id)
"""
# What a person has to do is another thing now, and is told anew.
CLOSE_REPLACED = """
UPDATE rdservice_incidents i SET closed_at = rd_now(), ending = 'replaced'
  FROM rdstation_tokens t
 WHERE i.closed_at IS NULL AND i.kind = 'expiring'
   AND t.account_id = i.account_id AND t.status = 'reauthorization_required'
"""
# NOT IN: PostgreSQL makes a hash of the incidents, whatever it believes about their number.
OPEN = f"""
WITH known AS MATERIALIZED (
    SELECT account_id FROM rdservice_incidents WHERE closed_at IS NULL AND account_id IS NOT NULL)
INSERT INTO rdservice_incidents (kind, account_id, opened_at)
(SELECT 'credentials_refused', NULL, rd_now()
  WHERE EXISTS (SELECT FROM rdstation_tokens WHERE status = 'credentials_refused'))
UNION ALL
(SELECT * FROM (
    SELECT 'reauthorization_required', t.account_id, rd_now() FROM rdstation_tokens t
     WHERE t.status = 'reauthorization_required' AND t.account_id NOT IN (SELECT account_id FROM known)
    UNION ALL
    SELECT 'expiring', t.account_id, rd_now() FROM rdstation_tokens t
     WHERE t.status IN ('connected', 'unverified') AND t.expires_at < rd_now() + {HORIZON} AND {EXPIRING}
       AND t.account_id NOT IN (SELECT account_id FROM known)) AS accounts
  LIMIT %(free)s)
ON CONFLICT (account_id) WHERE closed_at IS NULL DO NOTHING
"""  # noqa: S608 - only texts of this module
COUNT_OPEN = "SELECT count(*) FROM rdservice_incidents WHERE closed_at IS NULL"
ANY_UNTOLD = """
SELECT EXISTS (SELECT FROM rdservice_incidents
                WHERE opened_in IS NULL AND closed_at IS NULL
                  AND opened_at <= rd_now() - make_interval(secs => %(gather_s)s))
    OR EXISTS (SELECT FROM rdservice_incidents
                WHERE ending = 'recovered' AND opened_in IS NOT NULL AND recovered_in IS NULL)
"""
PUT_OPENED = """
UPDATE rdservice_incidents SET opened_in = %(notification)s WHERE opened_in IS NULL AND closed_at IS NULL
"""
PUT_RECOVERED = """
UPDATE rdservice_incidents SET recovered_in = %(notification)s
 WHERE ending = 'recovered' AND opened_in IS NOT NULL AND recovered_in IS NULL
"""
# Told of its end is only who was told of its beginning, and of a beginning only while it has not ended.
TOLD_IN = """
WITH meant AS (
    SELECT false AS recovered, * FROM rdservice_incidents WHERE opened_in = %(notification)s AND closed_at IS NULL
    UNION ALL
    SELECT true, i.* FROM rdservice_incidents i
     WHERE i.recovered_in = %(notification)s
       AND EXISTS (SELECT FROM rdservice_deliveries d
                    WHERE d.notification_id = i.opened_in AND d.target = %(target)s AND d.outcome = 'sent')),
numbered AS (
    SELECT *, row_number() OVER same AS place, count(*) OVER (PARTITION BY recovered, kind) AS of_its_kind
      FROM meant WINDOW same AS (PARTITION BY recovered, kind ORDER BY account_id))
SELECT n.recovered, n.kind, n.account_id, t.name, n.of_its_kind, t.expires_at
  FROM numbered n LEFT JOIN rdstation_tokens t USING (account_id)
 WHERE n.place <= %(shown)s
 ORDER BY n.recovered, n.kind, n.place
"""
OPEN_NOW = """
SELECT i.kind, i.account_id, t.name, i.opened_at, i.well_since, i.opened_in IS NOT NULL AS told
  FROM rdservice_incidents i LEFT JOIN rdstation_tokens t USING (account_id)
 WHERE i.closed_at IS NULL ORDER BY i.opened_at DESC, i.incident_id DESC LIMIT %(limit)s
"""
PRUNE = """
DELETE FROM rdservice_incidents WHERE incident_id = ANY (ARRAY(
    SELECT incident_id FROM rdservice_incidents
     WHERE closed_at < rd_now() - make_interval(days => %(days)s)
     ORDER BY closed_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An incident as a message tells of it. `of_its_kind`: how many the message is about, named or not."""

    recovered: bool
    kind: Kind
    account_id: str | None
    name: str | None = field(repr=False)
    of_its_kind: int
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenIncident:
    """An incident that is not over. `told`: a message about it was written."""

    kind: Kind
    account_id: str | None
    name: str | None = field(repr=False)
    opened_at: datetime
    well_since: datetime | None
    told: bool


def compare(conn: psycopg.Connection[Any]) -> bool:
    """Open and close incidents by the state of the tokens.

    Returns False, and does nothing, while another process does it. Lasts until the end of the caller's transaction.
    """
    if conn.execute(TRY_LOCK, {"key": WATCH_LOCK}).fetchone() != (True,):
        return False
    conn.execute(CLOSE_GONE)
    conn.execute(CLOSE_REPLACED)
    conn.execute(MARK_ACCOUNTS)
    conn.execute(MARK_SETTINGS)
    conn.execute(CLOSE_WELL, {"well_for_s": WELL_FOR_S})
    counted = conn.execute(COUNT_OPEN).fetchone()
    conn.execute(OPEN, {"free": max(MOST_OPEN - (counted[0] if counted else 0), 0)})
    return True


def any_untold(conn: psycopg.Connection[Any]) -> bool:
    """Return whether something has to be told: a beginning, or the end of what was told."""
    return conn.execute(ANY_UNTOLD, {"gather_s": GATHER_S}).fetchone() == (True,)


def put_into(conn: psycopg.Connection[Any], notification_id: int) -> None:
    """Let one message tell of everything that has to be told."""
    conn.execute(PUT_OPENED, {"notification": notification_id})
    conn.execute(PUT_RECOVERED, {"notification": notification_id})


def told_in(conn: psycopg.Connection[Any], notification_id: int, target: str) -> list[Told]:
    """Return what a message has to tell a target now: nothing, when all has become well before it was sent."""
    values = {"notification": notification_id, "target": target, "shown": SHOWN_OF_EACH}
    with conn.cursor(row_factory=class_row(Told)) as cursor:
        return cursor.execute(TOLD_IN, values).fetchall()


def open_now(conn: psycopg.Connection[Any], *, limit: int) -> list[OpenIncident]:
    """Return up to `limit` incidents that are not over, newest first."""
    with conn.cursor(row_factory=class_row(OpenIncident)) as cursor:
        return cursor.execute(OPEN_NOW, {"limit": limit}).fetchall()


def prune(conn: psycopg.Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` incidents that ended 90 days ago; return how many."""
    return conn.execute(PRUNE, {"days": KEEP_DAYS, "batch": batch}).rowcount
