"""Heartbeats of the worker processes."""

from typing import Any

import psycopg

BEAT = """
INSERT INTO rdstation_workers (worker, started_at, beat_at) VALUES (%(worker)s, rd_now(), rd_now())
ON CONFLICT (worker) DO UPDATE SET beat_at = rd_now()
"""
FORGET_STALE = "DELETE FROM rdstation_workers WHERE beat_at < rd_now() - interval '1 day'"
LAST_BEAT = "SELECT EXTRACT(epoch FROM rd_now() - max(beat_at))::float8 FROM rdstation_workers"


def beat(conn: psycopg.Connection[Any], worker: str) -> None:
    """Note that the worker process of this name is alive; forget those that were silent for a day."""
    conn.execute(BEAT, {"worker": worker})
    conn.execute(FORGET_STALE)


def seconds_since_last_beat(conn: psycopg.Connection[Any]) -> float | None:
    """Return the age in seconds of the newest heartbeat of any worker, or None when none is known."""
    row = conn.execute(LAST_BEAT).fetchone()
    return None if row is None or row[0] is None else float(row[0])
