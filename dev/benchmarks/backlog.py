"""Checks that a backlog is cleared without avoidable lapses: how many tokens lapse, and how many must.

The leases are the worker's own. RD Station's responses and the passing of time are simulated, so that minutes take
seconds: after each lease the database's clock advances by the time that the exchanges of a worker at full speed take.
"""

import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, LiteralString, Self

import psycopg
from cryptography.fernet import Fernet
from psycopg import sql

from dev.benchmarks.refreshes import IDEAL
from dev.benchmarks.report import Measure, at_most
from dev.benchmarks.stage import BenchError, Load, new_database
from rdservice.encryption import KeyRing
from rdservice.tokens import leases
from rdservice.worker.auto_refresh import CONCURRENCY
from scripts.local.embedded_postgres import EmbeddedPostgres

STEP_S = CONCURRENCY / IDEAL
"""Duration of one lease of all slots."""
DAY_S = 86_400.0

# All overdue, as after an outage of RD Station: each somewhere in the last hours of its life, and due since its share
# of the lifetime less the random part. The nearest to expiry fill so many minutes that not all of them can be saved.
FILL: LiteralString = """
INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, issued_at, expires_at, refresh_after)
SELECT 'account-' || n, %(access_token)s, %(refresh_token)s, at - interval '1 day', at,
       at - interval '1 day' * (1 - %(share)s + %(spread)s * random())
  FROM (SELECT n, rd_now() + make_interval(secs => left_s) AS at
          FROM unnest(%(left_s)s::float8[]) WITH ORDINALITY AS made (left_s, n)) AS all_of_them
"""
# The effect of `leases.store` on a row, for all leases at once.
REFRESH: LiteralString = """
UPDATE rdstation_tokens
   SET issued_at = rd_now(), expires_at = rd_now() + interval '1 day',
       refresh_after = rd_now() + interval '1 day' * (%(share)s - %(spread)s * random()),
       stored_claim = %(claim_no)s, holder = NULL, leased_until = NULL
 WHERE account_id = ANY (%(accounts)s)
"""


class Backlog:
    """A database in which every token is due, with a controlled clock."""

    def __init__(self, postgres: EmbeddedPostgres, left_s: Sequence[float]) -> None:
        keys = KeyRing([Fernet.generate_key()])
        self._left_s = {f"account-{number}": seconds for number, seconds in enumerate(left_s, 1)}
        self._conn = psycopg.connect(new_database(postgres, "backlog"), autocommit=True)
        self._conn.execute("SELECT set_config('synchronous_commit', 'off', false)")
        self._began = self._now()
        self._passed_s = 0.0
        self._set_clock()
        self._conn.execute(
            FILL,
            {
                "access_token": keys.encrypt("access_token", "account", "a" * 500),
                "refresh_token": keys.encrypt("refresh_token", "account", "r" * 43),
                "left_s": list(left_s),
                "share": leases.REFRESH_AT_SHARE,
                "spread": leases.REFRESH_SPREAD,
            },
        )
        self._conn.execute("VACUUM ANALYZE rdstation_tokens")
        self.begun_at_s: dict[str, float] = {}
        self.claim_ms: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._conn.close()

    @property
    def lapses(self) -> int:
        """Number of refreshes that began after the expiry. All exchanges take the same time."""
        return sum(not self._lives(account_id) for account_id in self.begun_at_s)

    @property
    def disorder_s(self) -> float:
        """Maximum time by which a valid token was closer to its expiry than one that was leased before it."""
        latest = worst = 0.0
        for account_id in filter(self._lives, self.begun_at_s):
            worst = max(worst, latest - self._left_s[account_id])
            latest = max(latest, self._left_s[account_id])
        return worst

    def _lives(self, account_id: str) -> bool:
        return self.begun_at_s[account_id] < self._left_s[account_id]

    def clear(self) -> None:
        """Lease and refresh, CONCURRENCY at a time, until every token is refreshed."""
        while len(self.begun_at_s) < len(self._left_s):
            leased = self._claim()
            if not leased:
                raise BenchError(f"nothing is due after {len(self.begun_at_s)} of {len(self._left_s)}")
            for lease in sorted(leased, key=lambda lease: self._left_s[lease.account_id]):
                self.begun_at_s[lease.account_id] = self._passed_s
            # The responses have arrived when the time of the exchanges has passed.
            self._passed_s += STEP_S
            self._set_clock()
            self._renew(leased)

    def _claim(self) -> list[leases.Lease]:
        started = time.perf_counter()
        with self._conn.transaction():
            leased = leases.lease_due(
                self._conn,
                started=time.monotonic(),
                fingerprint="bench",
                slots=CONCURRENCY,
                claimed_by="bench",
                # Like a worker from its second lease on, when the first has filled its slots.
                backlog=True,
            )
        self.claim_ms.append((time.perf_counter() - started) * 1000)
        return leased

    def _renew(self, leased: Sequence[leases.Lease]) -> None:
        values: dict[str, Any] = {
            "accounts": [lease.account_id for lease in leased],
            "claim_no": max(lease.fence for lease in leased),
            "share": leases.REFRESH_AT_SHARE,
            "spread": leases.REFRESH_SPREAD,
        }
        self._conn.execute(REFRESH, values)

    def _set_clock(self) -> None:
        self._conn.execute(
            sql.SQL(
                "CREATE OR REPLACE FUNCTION rd_now() RETURNS timestamptz LANGUAGE sql STABLE AS {}"
            ).format(f"SELECT to_timestamp({self._began + self._passed_s})")
        )

    def _now(self) -> float:
        row = self._conn.execute("SELECT EXTRACT(epoch FROM now())::float8").fetchone()
        if row is None:
            raise BenchError("PostgreSQL does not tell the time")
        return float(row[0])


def measure(postgres: EmbeddedPostgres, _folder: Path, load: Load) -> list[Measure]:
    """Clear a backlog whose first part must lapse in part, and compare the lapses with the minimum."""
    size = load.choose(100_000, 5_000)
    left_s = make_backlog(size)
    with Backlog(postgres, left_s) as backlog:
        backlog.clear()
        return [
            Measure(
                key="avoidable",
                text=f"lapses that could be avoided, {size:,} due at once",
                figure=backlog.lapses - fewest_lapses(left_s),
                goal=at_most(0),
            ),
            Measure(key="lapses", text="lapses at the speed of one worker", figure=backlog.lapses),
            Measure(
                key="disorder_s",
                text="nearer to expiry than one leased before, at most",
                figure=backlog.disorder_s,
                unit="s",
                goal=at_most(0),
            ),
            Measure(
                key="claim_ms",
                text=f"lease of {CONCURRENCY} of {size:,} due",
                figure=median(backlog.claim_ms),
                spread=(min(backlog.claim_ms), max(backlog.claim_ms)),
                unit="ms",
            ),
        ]


def make_backlog(size: int) -> list[float]:
    """The seconds that each token has left: as many as one worker just manages, and hours for the rest.

    The first half of them come so close together that some must lapse.
    """
    chance = random.Random(7)  # noqa: S311 - no secret
    takes_s = size / IDEAL
    close = [chance.uniform(0, 0.45 * takes_s) for _ in range(size // 2)]
    later = [chance.uniform(0.5 * takes_s, 6 * takes_s) for _ in range(size - len(close))]
    made = close + later
    chance.shuffle(made)
    return made


def fewest_lapses(left_s: Sequence[float]) -> int:
    """How many must lapse whatever the order, CONCURRENCY at a time.

    All take the same time: what cannot be in time in the order of expiry can be in time in none, and is best done last.
    """
    in_time = 0
    for seconds in sorted(left_s):
        if in_time // CONCURRENCY * STEP_S < seconds:
            in_time += 1
    return len(left_s) - in_time
