"""Cost of a worker's look at the table, by the size of the table."""

import time
from pathlib import Path
from statistics import median
from typing import Any, Self

import psycopg
from cryptography.fernet import Fernet
from psycopg_pool import ConnectionPool

from dev.benchmarks import accounts
from dev.benchmarks.report import Measure, at_most
from dev.benchmarks.stage import BenchError, Load, new_database
from rdservice.database.pool import create_pool, transaction
from rdservice.encryption import KeyRing
from rdservice.tokens import leases
from rdservice.worker.auto_refresh import CONCURRENCY
from scripts.local.embedded_postgres import EmbeddedPostgres

SMALL = 1_000
EVERYTHING_IS_DUE = (
    "CREATE OR REPLACE FUNCTION rd_now() RETURNS timestamptz LANGUAGE sql STABLE AS"
    " $$SELECT now() + interval '1 day'$$"
)
GOAL = at_most(1.2)


class Table:
    """A database that contains only connected accounts."""

    def __init__(self, postgres: EmbeddedPostgres, size: int) -> None:
        self.size = size
        self._url = new_database(postgres, f"claims_{size}")
        with psycopg.connect(self._url, autocommit=True) as conn:
            accounts.fill(conn, KeyRing([Fernet.generate_key()]), size)
        self._pool: ConnectionPool[psycopg.Connection[Any]] = create_pool(self._url, max_size=1, name="bench")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def make_everything_due(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as conn:
            conn.execute(EVERYTHING_IS_DUE)

    def claim_ms(self, *, expected: int) -> float:
        """Lease as the worker does, including transaction and commit; return the duration in milliseconds."""
        started = time.perf_counter()
        with transaction(self._pool) as conn:
            leased = leases.lease_due(
                conn,
                started=time.monotonic(),
                fingerprint="bench",
                slots=CONCURRENCY,
                claimed_by="bench",
                backlog=expected == CONCURRENCY,
            )
        took = time.perf_counter() - started
        if len(leased) != expected:
            raise BenchError(f"a lease returned {len(leased)} accounts instead of {expected}")
        return took * 1000


def measure(postgres: EmbeddedPostgres, _folder: Path, load: Load) -> list[Measure]:
    """Compare the tables. A round is the median of several leases."""
    large_size = load.choose(1_000_000, 20_000)
    with Table(postgres, SMALL) as small, Table(postgres, large_size) as large:
        none_due = _rounds(small, large, rounds=load.choose(15, 5), calls=20, expected=0)
        small.make_everything_due()
        large.make_everything_due()
        # In total fewer than the small table's rows: a leased row is not due again until its lease ends.
        all_due = _rounds(small, large, rounds=5, calls=6, expected=CONCURRENCY)
    return [
        *_compare("none_due", "with none due", large_size, none_due),
        *_compare("all_due", f"of {CONCURRENCY} with all due", large_size, all_due),
    ]


def _rounds(
    small: Table, large: Table, *, rounds: int, calls: int, expected: int
) -> list[tuple[float, float]]:
    """The medians of `calls` leases on each table, in turns, after a warm-up."""
    for table in (small, large):
        table.claim_ms(expected=expected)
    return [_round(small, large, calls, expected) for _ in range(rounds)]


def _round(small: Table, large: Table, calls: int, expected: int) -> tuple[float, float]:
    pairs = [(small.claim_ms(expected=expected), large.claim_ms(expected=expected)) for _ in range(calls)]
    return median(of_small for of_small, _ in pairs), median(of_large for _, of_large in pairs)


def _compare(key: str, text: str, large_size: int, rounds: list[tuple[float, float]]) -> list[Measure]:
    sizes = f"{large_size:,} ÷ {SMALL:,} tokens"
    ratios = [large / small for small, large in rounds]
    return [
        Measure.of_rounds(f"{key}_ratio", f"lease {text}, {sizes}", ratios, goal=GOAL),
        Measure.of_rounds(
            f"{key}_ms", f"lease {text}, {large_size:,} tokens", [large for _, large in rounds], unit="ms"
        ),
    ]
