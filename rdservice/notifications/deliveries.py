"""Notifications and their delivery to each target. Owns `rdservice_notifications` and `rdservice_deliveries`.

A worker leases a delivery, sends it outside of any transaction and records the outcome, so two workers never send the
same delivery at once. If the worker dies between sending and recording, the delivery is sent again after the lease.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from rdservice.errors import TooManyRequests
from rdservice.notifications import incidents
from rdservice.notifications.targets import Target
from rdservice.text.catalogue import message

NotificationKind = Literal["incidents", "test"]
Outcome = Literal["sent", "given_up", "not_needed"]

LEASE_S = 120
RETRY_FOR_S = 86_400
RETRY_TEST_FOR_S = 600
FIRST_PAUSE_S, LONGEST_PAUSE_S = 30, 3600
TEST_EVERY_S = 30
KEEP_DAYS = 90
APART_S, MOST_APART_S = 300, 3600
"""Minimum interval between two messages: five minutes for each message of the last six hours, at most an hour."""

TEST_LOCK = 0x5244_5445
"""Key of the advisory lock that serializes the start of tests ("RDTE" in ASCII)."""

MAY_TELL = """
SELECT COALESCE(max(created_at) + LEAST(count(*) * make_interval(secs => %(apart_s)s),
                                        make_interval(secs => %(most_apart_s)s)) <= rd_now(), true)
  FROM rdservice_notifications
 WHERE kind = 'incidents' AND created_at > rd_now() - interval '6 hours'
"""
CREATE = """
INSERT INTO rdservice_notifications (kind, created_at) VALUES (%(kind)s, rd_now()) RETURNING notification_id
"""
ADDRESS = """
INSERT INTO rdservice_deliveries (notification_id, target, label, next_attempt_at)
SELECT %(notification)s, target, label, rd_now()
  FROM unnest(%(targets)s::text[], %(labels)s::text[]) AS t (target, label)
"""
LAST_TEST_AGO = """
SELECT EXTRACT(epoch FROM rd_now() - max(created_at))::float8 FROM rdservice_notifications
 WHERE kind = 'test' AND created_at > rd_now() - make_interval(secs => %(within_s)s)
"""
LEASE = """
WITH picked AS (
    SELECT notification_id, target FROM rdservice_deliveries
     WHERE outcome IS NULL AND next_attempt_at <= rd_now() AND target = ANY (%(targets)s)
       AND notification_id = COALESCE(%(notification)s, notification_id)
     ORDER BY next_attempt_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
UPDATE rdservice_deliveries d
   SET holder = gen_random_uuid(), attempts = attempts + 1, attempted_at = rd_now(),
       next_attempt_at = rd_now() + make_interval(secs => %(lease_s)s)
  FROM picked, rdservice_notifications n
 WHERE d.notification_id = picked.notification_id AND d.target = picked.target
   AND n.notification_id = d.notification_id
RETURNING d.notification_id, d.target, d.holder, n.kind
"""
END = """
UPDATE rdservice_deliveries SET outcome = %(outcome)s, holder = NULL, error = NULL
 WHERE notification_id = %(notification)s AND target = %(target)s AND holder = %(holder)s AND outcome IS NULL
"""
FAIL = """
UPDATE rdservice_deliveries
   SET holder = NULL, error = %(error)s,
       outcome = CASE WHEN %(last)s THEN 'given_up' END,
       next_attempt_at = rd_now() + make_interval(
           secs => LEAST(%(longest_s)s, %(first_s)s * 2 ^ LEAST(attempts - 1, 10)))
 WHERE notification_id = %(notification)s AND target = %(target)s AND holder = %(holder)s AND outcome IS NULL
"""
GIVE_UP = """
UPDATE rdservice_deliveries d
   SET outcome = 'given_up', holder = NULL, error = COALESCE(d.error, 'not_tried')
  FROM rdservice_notifications n
 WHERE n.notification_id = d.notification_id AND d.outcome IS NULL AND d.next_attempt_at <= rd_now()
   AND n.created_at < rd_now() - make_interval(
       secs => CASE n.kind WHEN 'test' THEN %(test_s)s ELSE %(retry_s)s END)
"""
NEWEST = """
SELECT n.notification_id, n.kind, n.created_at, d.label, d.outcome, d.attempts, d.attempted_at, d.error,
       d.next_attempt_at
  FROM (SELECT * FROM rdservice_notifications ORDER BY notification_id DESC LIMIT %(limit)s) n
  JOIN rdservice_deliveries d USING (notification_id)
 ORDER BY n.notification_id DESC, d.label, d.target
"""
OF_ONE = """
SELECT n.notification_id, n.kind, n.created_at, d.label, d.outcome, d.attempts, d.attempted_at, d.error,
       d.next_attempt_at
  FROM rdservice_notifications n JOIN rdservice_deliveries d USING (notification_id)
 WHERE n.notification_id = %(notification)s ORDER BY d.label, d.target
"""
# A later test that all receivers accepted shows that the cause is fixed.
FAILED = """
SELECT d.error FROM rdservice_deliveries d JOIN rdservice_notifications n USING (notification_id)
 WHERE n.kind = 'incidents' AND n.created_at > rd_now() - interval '2 days' AND d.error IS NOT NULL
   AND (d.outcome IS NULL OR d.outcome = 'given_up' AND d.attempted_at > rd_now() - interval '1 day')
   AND NOT EXISTS (
       SELECT FROM rdservice_notifications t
        WHERE t.kind = 'test' AND t.created_at > d.attempted_at AND t.created_at > rd_now() - interval '2 days'
          AND NOT EXISTS (SELECT FROM rdservice_deliveries r
                           WHERE r.notification_id = t.notification_id AND r.outcome IS DISTINCT FROM 'sent'))
 ORDER BY d.notification_id, d.target
"""
# Keeps messages that opened an incident while it lasts: they say who is told of its end.
PRUNE = """
DELETE FROM rdservice_notifications WHERE notification_id = ANY (ARRAY(
    SELECT notification_id FROM rdservice_notifications n
     WHERE created_at < rd_now() - make_interval(days => %(days)s)
       AND NOT EXISTS (SELECT FROM rdservice_incidents i WHERE i.opened_in = n.notification_id AND i.closed_at IS NULL)
     ORDER BY created_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased:
    """A delivery that this process has leased. `holder` is the lease's nonce."""

    notification_id: int
    target: str
    holder: UUID
    kind: NotificationKind

    @property
    def only_attempt(self) -> bool:
        """Whether a failure is final: a person waits for the result of a test."""
        return self.kind == "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message to one target, for display. `outcome` is None until it is sent or given up."""

    notification_id: int
    kind: NotificationKind
    created_at: datetime
    label: str
    outcome: Outcome | None
    attempts: int
    attempted_at: datetime | None
    error: str | None
    next_attempt_at: datetime = field(repr=False)


def tell(conn: psycopg.Connection[Any], targets: Sequence[Target]) -> None:
    """Create one message about all unreported changes, unless the minimum interval since the last one still runs.

    The caller holds the lock of `incidents.compare`, so no change is reported twice.
    """
    values = {"apart_s": APART_S, "most_apart_s": MOST_APART_S}
    if targets and incidents.any_untold(conn) and conn.execute(MAY_TELL, values).fetchone() == (True,):
        incidents.put_into(conn, _create(conn, "incidents", targets))


def begin_test(conn: psycopg.Connection[Any], targets: Sequence[Target]) -> int:
    """Create a test message to all targets and return its number.

    Raises TooManyRequests within TEST_EVERY_S seconds after another test.
    """
    conn.execute("SELECT pg_advisory_xact_lock(%s)", [TEST_LOCK])
    last = conn.execute(LAST_TEST_AGO, {"within_s": TEST_EVERY_S}).fetchone()
    if last is not None and last[0] is not None:
        raise TooManyRequests(
            message(
                "A test was sent less than %(seconds)s seconds ago. Look at its result, or try again later."
            ),
            values={"seconds": TEST_EVERY_S},
            retry_after_s=max(int(TEST_EVERY_S - last[0]), 1),
        )
    return _create(conn, "test", targets)


def lease(
    conn: psycopg.Connection[Any], targets: Sequence[Target], notification_id: int | None = None
) -> Leased | None:
    """Lease the next due delivery to one of `targets`, if given only of the message `notification_id`.

    Returns None when no delivery is due.
    """
    values = {
        "targets": [target.key for target in targets],
        "notification": notification_id,
        "lease_s": LEASE_S,
    }
    with conn.cursor(row_factory=class_row(Leased)) as cursor:
        return cursor.execute(LEASE, values).fetchone()


def end(conn: psycopg.Connection[Any], leased: Leased, outcome: Outcome) -> None:
    """Record a delivery's outcome. Does nothing when another process has taken over the lease."""
    conn.execute(END, _values(leased) | {"outcome": outcome})


def fail(conn: psycopg.Connection[Any], leased: Leased, error: str) -> None:
    """Record a failed attempt and schedule the next one with exponential back-off; a test is given up at once.

    Does nothing when another process has taken over the lease.
    """
    pauses = {"first_s": FIRST_PAUSE_S, "longest_s": LONGEST_PAUSE_S, "last": leased.only_attempt}
    conn.execute(FAIL, _values(leased) | pauses | {"error": error})


def give_up(conn: psycopg.Connection[Any]) -> int:
    """Give up due deliveries of messages older than a day, and tests older than ten minutes; return how many."""
    return conn.execute(GIVE_UP, {"test_s": RETRY_TEST_FOR_S, "retry_s": RETRY_FOR_S}).rowcount


def newest(conn: psycopg.Connection[Any], *, limit: int) -> list[Delivery]:
    """Return the deliveries of the `limit` newest messages, newest first."""
    with conn.cursor(row_factory=class_row(Delivery)) as cursor:
        return cursor.execute(NEWEST, {"limit": limit}).fetchall()


def of_notification(conn: psycopg.Connection[Any], notification_id: int) -> list[Delivery]:
    """Return the deliveries of one message."""
    with conn.cursor(row_factory=class_row(Delivery)) as cursor:
        return cursor.execute(OF_ONE, {"notification": notification_id}).fetchall()


def failed(conn: psycopg.Connection[Any]) -> list[str]:
    """Return the last error of each delivery of the last day that its receiver has not accepted.

    Does not include tests, nor deliveries before a test that all receivers accepted.
    """
    return [error for (error,) in conn.execute(FAILED)]


def prune(conn: psycopg.Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` messages older than 90 days, with their deliveries; return how many were deleted."""
    return conn.execute(PRUNE, {"days": KEEP_DAYS, "batch": batch}).rowcount


def _create(conn: psycopg.Connection[Any], kind: NotificationKind, targets: Sequence[Target]) -> int:
    row = conn.execute(CREATE, {"kind": kind}).fetchone()
    if row is None:
        raise RuntimeError("INSERT … RETURNING returned no row")
    conn.execute(
        ADDRESS,
        {
            "notification": row[0],
            "targets": [target.key for target in targets],
            "labels": [target.label for target in targets],
        },
    )
    return int(row[0])


def _values(leased: Leased) -> dict[str, Any]:
    return {"notification": leased.notification_id, "target": leased.target, "holder": leased.holder}
