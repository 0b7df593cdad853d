"""The sums of what all processes have counted. Owns `rdservice_metric_totals` and `rdservice_metric_processes`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
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
FORGET_PROCESSES = """
DELETE FROM rdservice_metric_processes WHERE seen_at < rd_now() - make_interval(days => %(days)s)
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


def forget_processes(conn: psycopg.Connection[Any]) -> None:
    """Delete what is known of processes that have added nothing for a week. Their counts stay."""
    conn.execute(FORGET_PROCESSES, {"days": KEEP_PROCESSES_DAYS})


def _key(series: Series) -> str:
    name, labels = series
    return json.dumps([name, dict(labels)], ensure_ascii=False)


def _series(key: str) -> Series:
    name, labels = json.loads(key)
    return name, tuple(sorted(labels.items()))
