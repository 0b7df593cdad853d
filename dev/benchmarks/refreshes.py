"""Refreshes per second of a worker, compared with the limit of its slots: concurrency ÷ latency of RD Station."""

import os
import subprocess
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from dev.benchmarks import accounts
from dev.benchmarks.processes import cpu_seconds, tree
from dev.benchmarks.report import Measure, at_least
from dev.benchmarks.stage import BenchError, Load, Stage, wait_until
from rdservice.worker.auto_refresh import CONCURRENCY
from scripts.local.embedded_postgres import EmbeddedPostgres

LATENCY_S = 0.2
IDEAL = CONCURRENCY / LATENCY_S
"""Refreshes per second of a worker that only waits for RD Station."""
FINISH_WITHIN_S = 60.0
GOAL = at_least(0.9)
TWICE = at_least(1.9)

MAKE_DUE = """
UPDATE rdstation_tokens SET refresh_after = rd_now()
 WHERE account_id IN (SELECT account_id FROM rdstation_tokens ORDER BY account_id LIMIT %s)
"""
STORED = "SELECT count(*) FROM rdstation_refresh_attempts WHERE outcome = 'stored'"
ENDED_OTHERWISE = "SELECT outcome, error FROM rdstation_refresh_attempts WHERE outcome <> 'stored' LIMIT 1"
FIRST_STARTS = "SELECT min(started_at) FROM rdstation_refresh_attempts GROUP BY claimed_by"
FINISHED_AFTER = (
    "SELECT finished_at FROM rdstation_refresh_attempts WHERE finished_at > %s ORDER BY finished_at"
)


class CpuTimes(NamedTuple):
    """Processor time for one refresh, in milliseconds."""

    worker: float
    postgres: float
    sandbox: float


class Run(NamedTuple):
    """The result of one run."""

    per_second: float
    cpu_ms: CpuTimes


def measure(postgres: EmbeddedPostgres, folder: Path, load: Load) -> list[Measure]:
    """Let one worker, then two, refresh accounts that are all due, in alternating rounds."""
    batches = load.choose(35, 6)
    with Stage(postgres, "refreshes", folder) as stage:
        accounts.connect(stage, *(f"account-{number:05}" for number in range(2 * batches * CONCURRENCY)))
        stage.sandbox.patch(latency_ms=LATENCY_S * 1000)
        rounds = [
            (
                _refresh(stage, postgres, workers=1, batches=batches),
                _refresh(stage, postgres, workers=2, batches=batches),
            )
            for _ in range(load.choose(3, 1))
        ]
    return [*_speeds(rounds), *_costs([two.cpu_ms for _, two in rounds])]


def _speeds(rounds: Sequence[tuple[Run, Run]]) -> list[Measure]:
    ones = [one.per_second for one, _ in rounds]
    twos = [two.per_second for _, two in rounds]
    setting = f"{CONCURRENCY} at once, {LATENCY_S * 1000:.0f} ms"
    return [
        Measure.of_rounds(
            "one_worker_ratio",
            f"refreshes ÷ (concurrency ÷ latency), one worker, {setting}",
            [one / IDEAL for one in ones],
            goal=GOAL,
        ),
        Measure.of_rounds(
            "two_workers_ratio",
            "two workers ÷ one",
            [two / one for one, two in zip(ones, twos, strict=True)],
            goal=TWICE,
        ),
        Measure.of_rounds("one_worker_rate", "one worker", ones, unit="/s"),
        Measure.of_rounds("two_workers_rate", "two workers", twos, unit="/s"),
    ]


def _costs(of_rounds: Sequence[CpuTimes]) -> list[Measure]:
    """Cost of a refresh while two workers run, and the share of this machine that two workers at full speed need.

    With more than about two thirds of it they wait for the processors, however good they are.
    """
    share = 2 * IDEAL / 1000 / (os.cpu_count() or 1)
    return [
        *(
            Measure.of_rounds(
                f"{name}_cpu",
                f"processor time of {whose} per refresh",
                [getattr(cpu_ms, name) for cpu_ms in of_rounds],
                unit="ms",
            )
            for name, whose in (
                ("worker", "the worker"),
                ("postgres", "PostgreSQL"),
                ("sandbox", "the sandbox"),
            )
        ),
        Measure.of_rounds(
            "needed",
            f"share of this machine that {2 * IDEAL:.0f} refreshes a second need",
            [sum(cpu_ms) * share for cpu_ms in of_rounds],
        ),
    ]


def refresh(stage: Stage, count: int) -> None:
    """Make `count` accounts due and wait until the running workers have refreshed them."""
    before = _stored(stage)
    stage.conn.execute(MAKE_DUE, [count])
    wait_until(lambda: _stored(stage) == before + count, f"{count} refreshes", FINISH_WITHIN_S)


def _refresh(stage: Stage, postgres: EmbeddedPostgres, *, workers: int, batches: int) -> Run:
    """Make accounts due for `batches` times each slot of the workers; let the workers refresh them."""
    slots = workers * CONCURRENCY
    count = slots * batches
    stage.conn.execute("TRUNCATE rdstation_refresh_attempts")
    stage.conn.execute("VACUUM ANALYZE rdstation_tokens")
    running = [stage.worker() for _ in range(workers)]
    before = _used_s(stage, postgres, running)
    refresh(stage, count)
    used = zip(before, _used_s(stage, postgres, running), strict=True)
    cpu_ms = CpuTimes(*((after - then) / count * 1000 for then, after in used))
    stage.stop(*running)
    first_starts = [started for (started,) in stage.conn.execute(FIRST_STARTS)]
    if len(first_starts) != workers:
        raise BenchError(f"{len(first_starts)} of {workers} workers took part")
    finished = [at for (at,) in stage.conn.execute(FINISHED_AFTER, [max(first_starts)])]
    return Run(_per_second(finished, slots), cpu_ms)


def _used_s(
    stage: Stage, postgres: EmbeddedPostgres, workers: Sequence[subprocess.Popen[bytes]]
) -> tuple[float, float, float]:
    """Processor time, in seconds, that the workers, PostgreSQL and the sandbox have used until now."""
    if postgres.pid is None:
        raise BenchError("PostgreSQL has ended")
    return (
        cpu_seconds(worker.pid for worker in workers),
        cpu_seconds(tree(postgres.pid)),
        cpu_seconds(tree(stage.sandbox.pid)),
    )


def _stored(stage: Stage) -> int:
    otherwise = stage.conn.execute(ENDED_OTHERWISE).fetchone()
    if otherwise is not None:
        raise BenchError(f"a refresh ended as {otherwise[0]} ({otherwise[1]})")
    row = stage.conn.execute(STORED).fetchone()
    return 0 if row is None else int(row[0])


def _per_second(finished: Sequence[datetime], slots: int) -> float:
    """Refreshes per second while all slots were busy: without the first and the last batch.

    In whole batches, because refreshes that start together end together.
    """
    batches = (len(finished) - 1) // slots - 2
    if batches < 1:
        raise BenchError("the workers were not busy at the same time for long enough")
    took = finished[(1 + batches) * slots] - finished[slots]
    return batches * slots / took.total_seconds()
