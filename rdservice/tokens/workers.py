"""Heartbeats of the worker processes."""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row

BEAT = """
INSERT INTO rdstation_workers (worker, started_at, beat_at) VALUES (%(worker)s, rd_now(), rd_now())
ON CONFLICT (worker) DO UPDATE SET beat_at = rd_now()
"""
PRUNE = """
DELETE FROM rdstation_workers WHERE worker = ANY (ARRAY(
    SELECT worker FROM rdstation_workers
     WHERE beat_at < rd_now() - interval '1 day' ORDER BY beat_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
"""
LAST_BEAT = "SELECT EXTRACT(epoch FROM rd_now() - max(beat_at))::float8 FROM rdstation_workers"

NEWEST = """
SELECT EXTRACT(epoch FROM rd_now() - beat_at)::float8 AS silent_s,
       EXTRACT(epoch FROM beat_at - started_at)::float8 AS ran_s
  FROM rdstation_workers ORDER BY beat_at DESC LIMIT %(limit)s
"""


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """A worker process: seconds since its last heartbeat, and from its first heartbeat to its last."""

    silent_s: float
    ran_s: float


def beat(conn: psycopg.Connection[Any], worker: str) -> None:
    """Record a heartbeat of the worker process with this name."""
    conn.execute(BEAT, {"worker": worker})


def seconds_since_last_beat(conn: psycopg.Connection[Any]) -> float | None:
    """Return the seconds since the newest heartbeat of any worker, or None without any."""
    row = conn.execute(LAST_BEAT).fetchone()
    return None if row is None or row[0] is None else float(row[0])


def heartbeats(conn: psycopg.Connection[Any], *, limit: int) -> list[Heartbeat]:
    """Return up to `limit` workers of the last day, ordered by their last heartbeat, newest first."""
    with conn.cursor(row_factory=class_row(Heartbeat)) as cur:
        return cur.execute(NEWEST, {"limit": limit}).fetchall()


def prune(conn: psycopg.Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` workers whose last heartbeat is over a day old; return the number deleted."""
    return conn.execute(PRUNE, {"batch": batch}).rowcount
