"""Incidents: what needs a person's attention, one per account and one for the settings. Owns `rdservice_incidents`.

They are derived by comparing the tokens' state with the open incidents. So it does not matter which process compares,
how many there are, or what was restarted in between.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.rows import class_row

Kind = Literal["reauthorization_required", "expiring", "credentials_refused"]

WELL_FOR_S = 300
"""How long the state must be good before an incident ends, so that a flapping state is one incident."""
GATHER_S = 15
"""How long a new incident waits for others with the same cause, so that one message reports them all."""
MOST_OPEN = 10_000
"""Maximum number of open incidents, which bounds the cost of a comparison. Further accounts get an incident when others
end."""
KEEP_DAYS = 90
SHOWN_OF_EACH = 10
"""Maximum number of accounts of a kind that a message names; it gives the number of the rest."""

WATCH_LOCK = 0x5244_4E46
"""Key of the advisory lock that serializes comparisons ("RDNF" in ASCII)."""

# A token is refreshed with 35 to 40 % of its lifetime left. RD Station's tokens live for a day; the bound in hours lets
# PostgreSQL find the few candidate rows by the index on (status, expires_at).
HORIZON = "interval '6 hours'"
EXPIRING = f"""
(t.expires_at < rd_now() + LEAST((t.expires_at - t.issued_at) / 4, {HORIZON})
 AND (t.failures > 0 OR t.due_at < rd_now() - interval '10 minutes'))
"""
# A refusal may be RD Station's mistake, so it is reported once the first second look is refused too, or before, when
# the access token ends within the hour or there will be no second look.
REFUSED = """
(t.status = 'reauthorization_required'
 AND (t.second_look_at IS NULL OR t.second_looks > 0 OR t.expires_at < rd_now() + interval '1 hour'))
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
# A person now has to do something else, so a new incident reports it.
CLOSE_REPLACED = f"""
UPDATE rdservice_incidents i SET closed_at = rd_now(), ending = 'replaced'
  FROM rdstation_tokens t
 WHERE i.closed_at IS NULL AND i.kind = 'expiring' AND t.account_id = i.account_id AND {REFUSED}
"""  # noqa: S608 - only texts of this module
# NOT IN: PostgreSQL always hashes the incidents then, whatever its row estimate.
OPEN = f"""
WITH known AS MATERIALIZED (
    SELECT account_id FROM rdservice_incidents WHERE closed_at IS NULL AND account_id IS NOT NULL)
INSERT INTO rdservice_incidents (kind, account_id, opened_at)
(SELECT 'credentials_refused', NULL, rd_now()
  WHERE EXISTS (SELECT FROM rdstation_tokens WHERE status = 'credentials_refused'))
UNION ALL
(SELECT * FROM (
    SELECT 'reauthorization_required', t.account_id, rd_now() FROM rdstation_tokens t
     WHERE {REFUSED} AND t.account_id NOT IN (SELECT account_id FROM known)
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
# A target is told of an end only if it was told of the beginning, and of a beginning only while the incident is open.
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
    """An incident in a message. `of_its_kind`: how many of its kind the message reports, named or not."""

    recovered: bool
    kind: Kind
    account_id: str | None
    name: str | None = field(repr=False)
    of_its_kind: int
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenIncident:
    """An open incident. `told`: a message about it was created."""

    kind: Kind
    account_id: str | None
    name: str | None = field(repr=False)
    opened_at: datetime
    well_since: datetime | None
    told: bool


def compare(conn: psycopg.Connection[Any]) -> bool:
    """Open and close incidents according to the state of the tokens.

    Takes an advisory lock until the end of the caller's transaction. Returns False, and does nothing, while another
    process holds it.
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
    """Return whether there is something to report: a beginning, or the end of a reported incident."""
    return conn.execute(ANY_UNTOLD, {"gather_s": GATHER_S}).fetchone() == (True,)


def put_into(conn: psycopg.Connection[Any], notification_id: int) -> None:
    """Assign all unreported beginnings and ends to one message."""
    conn.execute(PUT_OPENED, {"notification": notification_id})
    conn.execute(PUT_RECOVERED, {"notification": notification_id})


def told_in(conn: psycopg.Connection[Any], notification_id: int, target: str) -> list[Told]:
    """Return what a message reports to a target now; an empty list when every incident ended before it was sent."""
    values = {"notification": notification_id, "target": target, "shown": SHOWN_OF_EACH}
    with conn.cursor(row_factory=class_row(Told)) as cursor:
        return cursor.execute(TOLD_IN, values).fetchall()


def open_now(conn: psycopg.Connection[Any], *, limit: int) -> list[OpenIncident]:
    """Return up to `limit` open incidents, newest first."""
    with conn.cursor(row_factory=class_row(OpenIncident)) as cursor:
        return cursor.execute(OPEN_NOW, {"limit": limit}).fetchall()


def prune(conn: psycopg.Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` incidents that ended more than 90 days ago; return how many were deleted."""
    return conn.execute(PRUNE, {"days": KEEP_DAYS, "batch": batch}).rowcount
