"""The sums of what all processes have counted. Owns the tables `rdservice_metric_*`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from rdservice.metrics.definitions import Series

KEEP_PROCESSES_DAYS = 7

# Sorted: two processes that add to the same rows in different orders would deadlock.
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
# What the status page shows of the past day.
SHOWN_LATELY = ['["rdstation_leads_served_total", %', '["rdstation_api_requests_total", %']
REMEMBER_HOUR = """
INSERT INTO rdservice_metric_hours (hour, key, value, taken_at)
SELECT date_trunc('hour', rd_now()), key, value, rd_now() FROM rdservice_metric_totals
 WHERE key LIKE ANY (%(shown)s)
   AND NOT EXISTS (SELECT FROM rdservice_metric_hours WHERE hour = date_trunc('hour', rd_now()))
ON CONFLICT DO NOTHING
"""
FORGET_HOURS = """
WITH old AS MATERIALIZED (
    SELECT hour, key FROM rdservice_metric_hours
     WHERE hour < rd_now() - interval '2 days' ORDER BY hour, key LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
DELETE FROM rdservice_metric_hours h USING old WHERE (h.hour, h.key) = (old.hour, old.key)
"""
LATELY = """
WITH start AS (
    SELECT hour, max(taken_at) AS taken_at FROM rdservice_metric_hours
     WHERE hour <= rd_now() - interval '1 day' GROUP BY hour ORDER BY hour DESC LIMIT 1)
SELECT t.key, t.value - COALESCE(h.value, 0), (SELECT taken_at FROM start)
  FROM rdservice_metric_totals t
  LEFT JOIN rdservice_metric_hours h ON h.key = t.key AND h.hour = (SELECT hour FROM start)
 WHERE t.key LIKE ANY (%(shown)s)
"""
PRUNE_PROCESSES = """
DELETE FROM rdservice_metric_processes WHERE process = ANY (ARRAY(
    SELECT process FROM rdservice_metric_processes
     WHERE seen_at < rd_now() - make_interval(days => %(days)s) ORDER BY seen_at LIMIT %(batch)s
       FOR UPDATE SKIP LOCKED))
"""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a process has counted since the batch before. `sequence` numbers the batches of a process from 1."""

    process: UUID
    sequence: int
    deltas: Mapping[Series, float]


def add(conn: psycopg.Connection[Any], batch: Batch) -> None:
    """Add a batch to the sums, unless it was added before: adding one again is safe."""
    conn.execute(
        ADD,
        {
            "process": batch.process,
            "sequence": batch.sequence,
            "keys": [_key(series) for series in batch.deltas],
            "values": list(batch.deltas.values()),
        },
    )


def totals(conn: psycopg.Connection[Any]) -> dict[Series, float]:
    """Return all sums."""
    return {_series(key): value for key, value in conn.execute(TOTALS)}


def remember_hour(conn: psycopg.Connection[Any], *, batch: int = 1000) -> int:
    """Note once an hour what the sums are that `lately` tells of; delete up to `batch` notes of two days ago.

    Returns how many were deleted.
    """
    conn.execute(REMEMBER_HOUR, {"shown": SHOWN_LATELY})
    return conn.execute(FORGET_HOURS, {"batch": batch}).rowcount


@dataclass(frozen=True, kw_only=True)
class Lately:
    """What was counted since `since`, about a day ago; None: since counting began."""

    since: datetime | None
    counts: dict[Series, float]


def lately(conn: psycopg.Connection[Any]) -> Lately:
    """Return the leads served and the calls to RD Station of the past day, or of all time where that is shorter."""
    rows = conn.execute(LATELY, {"shown": SHOWN_LATELY}).fetchall()
    return Lately(since=rows[0][2] if rows else None, counts={_series(key): value for key, value, _ in rows})


def prune_processes(conn: psycopg.Connection[Any], *, batch: int = 1000) -> int:
    """Forget up to `batch` processes that have added nothing for a week; return how many. Their counts stay."""
    return conn.execute(PRUNE_PROCESSES, {"days": KEEP_PROCESSES_DAYS, "batch": batch}).rowcount


def _key(series: Series) -> str:
    name, labels = series
    return json.dumps([name, dict(labels)], ensure_ascii=False)


def _series(key: str) -> Series:
    name, labels = json.loads(key)
    return name, tuple(sorted(labels.items()))
