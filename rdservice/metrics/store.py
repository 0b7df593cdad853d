"""The sums of what all processes have counted. Owns the tables `rdservice_metric_*`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from rdservice.metrics.definitions import Series

KEEP_PROCESSES_DAYS = 7
HOURS = 24
AN_HOUR = timedelta(hours=1)

# ORDER BY: two processes that add to the same rows in different orders would deadlock.
ADD = """
WITH turn AS (
    INSERT INTO rdservice_metric_processes AS p (process, sequence, seen_at)
    VALUES (%(process)s, %(sequence)s, rd_now())
    ON CONFLICT (process) DO UPDATE SET sequence = EXCLUDED.sequence, seen_at = EXCLUDED.seen_at
     WHERE p.sequence < EXCLUDED.sequence
    RETURNING 1)
INSERT INTO rdservice_metric_totals AS totals (key, value)
SELECT key, value FROM unnest(%(keys)s::text[], %(values)s::float8[]) AS delta (key, value)
 WHERE EXISTS (SELECT FROM turn)
 ORDER BY key COLLATE "C"
ON CONFLICT (key) DO UPDATE SET value = totals.value + EXCLUDED.value
"""
TOTALS = "SELECT key, value FROM rdservice_metric_totals"
# Series that the status page shows for the past day. The rows of an hour hold the sums from before its first count; an
# hour without rows had no counts.
SHOWN = ['["rdstation_leads_served_total", %', '["rdstation_api_requests_total", %']
# A series that is counted for the first time is included with 0: otherwise its first hour would have no row.
REMEMBER_HOUR = """
INSERT INTO rdservice_metric_hours (hour, key, value, taken_at)
SELECT date_trunc('hour', rd_now()), key, COALESCE(totals.value, 0), rd_now()
  FROM rdservice_metric_totals totals FULL JOIN unnest(%(keys)s::text[]) AS counted (key) USING (key)
 WHERE key LIKE ANY (%(shown)s)
   AND NOT EXISTS (SELECT FROM rdservice_metric_hours WHERE hour = date_trunc('hour', rd_now()))
 ORDER BY key COLLATE "C"
ON CONFLICT DO NOTHING
"""
PRUNE_HOURS = """
WITH old AS MATERIALIZED (
    SELECT hour, key FROM rdservice_metric_hours
     WHERE hour < rd_now() - interval '2 days' ORDER BY hour, key LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
DELETE FROM rdservice_metric_hours h USING old WHERE (h.hour, h.key) = (old.hour, old.key)
"""
# The rows of each hour, and the current sums as the end of the current hour. `kind` is the label with the outcome.
HOURLY = """
WITH kinds AS (
    SELECT key, key::jsonb ->> 0 AS name,
           COALESCE(key::jsonb -> 1 ->> 'cache', key::jsonb -> 1 ->> 'status_class') AS kind
      FROM rdservice_metric_totals WHERE key LIKE ANY (%(shown)s)),
marks AS (
    SELECT hour, key, value FROM rdservice_metric_hours
     WHERE hour > date_trunc('hour', rd_now()) - interval '24 hours'
    UNION ALL
    SELECT date_trunc('hour', rd_now()) + interval '1 hour', key, value FROM rdservice_metric_totals)
SELECT hour, name, kind, sum(value) FROM marks JOIN kinds USING (key) GROUP BY hour, name, kind ORDER BY hour
"""
THIS_HOUR = "SELECT date_trunc('hour', rd_now())"
PRUNE_PROCESSES = """
DELETE FROM rdservice_metric_processes WHERE process = ANY (ARRAY(
    SELECT process FROM rdservice_metric_processes
     WHERE seen_at < rd_now() - make_interval(days => %(days)s) ORDER BY seen_at LIMIT %(batch)s
       FOR UPDATE SKIP LOCKED))
"""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A process's counts since its previous batch. `sequence` numbers the batches of a process from 1."""

    process: UUID
    sequence: int
    deltas: Mapping[Series, float]


def add(conn: psycopg.Connection[Any], batch: Batch) -> None:
    """Add a batch to the sums, unless it was added before. Safe to repeat."""
    keys = [_key(series) for series in batch.deltas]
    conn.execute(REMEMBER_HOUR, {"shown": SHOWN, "keys": keys})
    conn.execute(
        ADD,
        {
            "process": batch.process,
            "sequence": batch.sequence,
            "keys": keys,
            "values": list(batch.deltas.values()),
        },
    )


def totals(conn: psycopg.Connection[Any]) -> dict[Series, float]:
    """Return all sums."""
    return {_series(key): value for key, value in conn.execute(TOTALS)}


def prune_hours(conn: psycopg.Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` hourly rows older than two days; return how many were deleted."""
    return conn.execute(PRUNE_HOURS, {"batch": batch}).rowcount


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """The counts of the hour that began at `start`, by metric name and outcome.

    The outcome is `hit`, `miss` or `stale` for leads served, and the status class, such as `2xx`, for calls to RD
    Station.
    """

    start: datetime
    counts: dict[tuple[str, str], float]


def hourly(conn: psycopg.Connection[Any]) -> list[Hour]:
    """Return the leads served and the calls to RD Station in each of the last 24 hours, the current hour last."""
    (this_hour,) = conn.execute(THIS_HOUR).fetchone() or (None,)
    marks: dict[datetime, dict[tuple[str, str], float]] = {}
    for hour, name, kind, value in conn.execute(HOURLY, {"shown": SHOWN}):
        marks.setdefault(hour, {})[name, kind] = value
    if this_hour is None:
        raise RuntimeError("SELECT without FROM returned no row")
    found = []
    after = marks.get(this_hour + AN_HOUR, {})
    for ago in range(HOURS):
        start = this_hour - ago * AN_HOUR
        # Without rows, nothing was counted until the next hour that has rows.
        before = marks.get(start, after)
        counts = {of: value - before.get(of, 0.0) for of, value in after.items()}
        found.append(Hour(start=start, counts=counts))
        after = before
    return found[::-1]


def prune_processes(conn: psycopg.Connection[Any], *, batch: int = 1000) -> int:
    """Delete up to `batch` processes silent for a week; return how many. The sums keep their counts."""
    return conn.execute(PRUNE_PROCESSES, {"days": KEEP_PROCESSES_DAYS, "batch": batch}).rowcount


def _key(series: Series) -> str:
    name, labels = series
    return json.dumps([name, dict(labels)], ensure_ascii=False)


def _series(key: str) -> Series:
    name, labels = json.loads(key)
    return name, tuple(sorted(labels.items()))
