"""The sums in the database: every count arrives, and arrives once."""

import itertools
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from rdservice.database import pool as database
from rdservice.metrics import store
from rdservice.metrics.definitions import Metrics, Series
from rdservice.metrics.flusher import Flusher
from rdservice.metrics.store import Batch
from rdservice.services import read_state
from tests.conftest import Clock

HIT: Series = ("rdstation_leads_served_total", (("cache", "hit"),))
MISS: Series = ("rdstation_leads_served_total", (("cache", "miss"),))
DAY_S = 86_400

MakeFlusher = Callable[[Metrics], Flusher]


@pytest.fixture
def pool(database_url: str) -> Iterator[ConnectionPool[psycopg.Connection[Any]]]:
    """A pool that no running service shares."""
    made = database.create_pool(database_url, max_size=10, name="metrics")
    yield made
    made.close()


@pytest.fixture
def make_flusher(pool: ConnectionPool[psycopg.Connection[Any]]) -> Iterator[MakeFlusher]:
    made: list[Flusher] = []

    def make(metrics: Metrics) -> Flusher:
        made.append(Flusher(metrics, pool, read_state))
        made[-1].start()
        return made[-1]

    yield make
    for flusher in made:
        flusher.close()


def test_batches_of_several_processes_add_up(conn: psycopg.Connection[Any]) -> None:
    store.add(conn, Batch(process=uuid4(), sequence=1, deltas={HIT: 2, MISS: 1}))
    store.add(conn, Batch(process=uuid4(), sequence=1, deltas={HIT: 3.5}))
    assert store.totals(conn) == {HIT: 5.5, MISS: 1}


def test_the_same_batch_again_changes_nothing(conn: psycopg.Connection[Any]) -> None:
    process = uuid4()
    for sequence in (1, 1, 2, 2, 1):
        store.add(conn, Batch(process=process, sequence=sequence, deltas={HIT: 1}))
    assert store.totals(conn) == {HIT: 2}


def test_labels_with_any_character_come_back_as_they_were(conn: psycopg.Connection[Any]) -> None:
    odd: Series = ("a_total", (("route", '/rd/<path:x>"\\\n{}'), ("é", "ção, 'x'")))
    store.add(conn, Batch(process=uuid4(), sequence=1, deltas={odd: 1}))
    assert store.totals(conn) == {odd: 1}


def test_processes_that_flush_the_same_series_at_once_neither_deadlock_nor_lose_a_count(
    pool: ConnectionPool[psycopg.Connection[Any]], conn: psycopg.Connection[Any]
) -> None:
    series: list[Series] = [("a_total", (("n", str(number)),)) for number in range(200)]

    def add_many(seed: int) -> None:
        process, order = uuid4(), random.Random(seed)  # noqa: S311 - an order to go through them
        for sequence in range(1, 6):
            mixed = order.sample(series, len(series))
            with database.transaction(pool) as own:
                store.add(own, Batch(process=process, sequence=sequence, deltas=dict.fromkeys(mixed, 1.0)))

    with ThreadPoolExecutor(10) as executor:
        list(executor.map(add_many, range(10)))
    assert store.totals(conn) == dict.fromkeys(series, 50.0)


def test_a_commit_that_goes_through_unseen_is_not_counted_twice(
    make_flusher: MakeFlusher, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    transaction, losses = database.transaction, iter([True, True])

    @contextmanager
    def losing(pool: ConnectionPool[psycopg.Connection[Any]]) -> Iterator[psycopg.Connection[Any]]:
        with transaction(pool) as own:
            yield own
        if next(losses, False):
            raise psycopg.OperationalError("the connection broke after COMMIT")

    monkeypatch.setattr("rdservice.metrics.flusher.transaction", losing)
    metrics = Metrics()
    flusher = make_flusher(metrics)
    metrics.leads_served("hit")
    assert flusher.snapshot(10) is None
    metrics.leads_served("hit")
    assert flusher.snapshot(10) is None
    snapshot = flusher.snapshot(10)
    assert snapshot is not None
    assert snapshot.totals[HIT] == 2
    assert snapshot.totals["rdstation_metrics_flush_failures_total", ()] == 2
    assert store.totals(conn)[HIT] == 2


def test_a_commit_that_did_not_go_through_is_made_again(
    make_flusher: MakeFlusher, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    transaction, losses = database.transaction, iter([True])

    @contextmanager
    def failing(pool: ConnectionPool[psycopg.Connection[Any]]) -> Iterator[psycopg.Connection[Any]]:
        with transaction(pool) as own:
            yield own
            if next(losses, False):
                raise psycopg.OperationalError("the connection broke before COMMIT")

    monkeypatch.setattr("rdservice.metrics.flusher.transaction", failing)
    metrics = Metrics()
    flusher = make_flusher(metrics)
    metrics.leads_served("hit")
    assert flusher.snapshot(10) is None
    flusher.close()
    assert store.totals(conn)[HIT] == 1


def test_a_sum_of_durations_never_falls_by_a_rounding_error(
    make_flusher: MakeFlusher, conn: psycopg.Connection[Any]
) -> None:
    # Prometheus takes the least fall for a restart, and counts the whole sum a second time.
    metrics = Metrics()
    flusher = make_flusher(metrics)
    total: Series = ("rdstation_api_request_duration_seconds_sum", (("operation", "account_info"),))
    shown = []
    for durations_s in ([0.28], [0.5, 1.14, 0.6], [], []):
        for duration_s in durations_s:
            metrics.api_request_duration.labels("account_info").observe(duration_s)
        snapshot = flusher.snapshot(10)
        assert snapshot is not None
        shown.append(snapshot.totals[total])
    assert shown == sorted(shown)
    assert conn.execute("SELECT sequence FROM rdservice_metric_processes").fetchone() == (2,)


def test_what_is_known_of_processes_long_gone_is_forgotten_and_their_counts_stay(
    make_flusher: MakeFlusher, conn: psycopg.Connection[Any], clock: Clock
) -> None:
    for age_s in (DAY_S, 6 * DAY_S):
        store.add(conn, Batch(process=uuid4(), sequence=1, deltas={HIT: 1}))
        clock.advance(age_s)
    metrics = Metrics()
    metrics.leads_served("hit")
    make_flusher(metrics).close()
    assert store.prune_processes(conn) == 1
    # The first is seven days old; the second and the new one are left.
    assert conn.execute("SELECT count(*) FROM rdservice_metric_processes").fetchone() == (2,)
    assert store.totals(conn)[HIT] == 3


def test_the_last_24_hours_are_told_hour_by_hour(conn: psycopg.Connection[Any], clock: Clock) -> None:
    process, sequence = uuid4(), itertools.count(1)
    call: Series = ("rdstation_api_requests_total", (("operation", "contact_get"), ("status_class", "2xx")))
    other: Series = ("rdstation_api_requests_total", (("operation", "other"), ("status_class", "2xx")))
    unseen: Series = ("flask_http_request_total", (("method", "GET"), ("status", "200")))
    leads, calls = ("rdstation_leads_served_total", "hit"), ("rdstation_api_requests_total", "2xx")

    def count(deltas: dict[Series, float], *, hours_later: int) -> None:
        clock.advance(hours_later * 3600)
        store.add(conn, Batch(process=process, sequence=next(sequence), deltas=deltas))

    count({HIT: 100.0}, hours_later=0)
    count({HIT: 5.0, unseen: 9.0}, hours_later=25)
    count({call: 2.0}, hours_later=3)
    count({other: 1.0}, hours_later=0)
    count({HIT: 7.0, call: 1.0}, hours_later=17)
    found = store.hourly(conn)
    row = conn.execute("SELECT date_trunc('hour', rd_now())").fetchone()
    assert row is not None
    assert [hour.start for hour in found] == [row[0] - timedelta(hours=ago) for ago in range(23, -1, -1)]
    by_hour = [(hour.counts.get(leads, 0), hour.counts.get(calls, 0)) for hour in found]
    assert {place: counts for place, counts in enumerate(by_hour) if counts != (0, 0)} == {
        3: (5, 0),
        6: (0, 3),
        23: (7, 1),
    }


def test_the_very_first_counts_belong_to_their_hour(conn: psycopg.Connection[Any]) -> None:
    assert [hour.counts for hour in store.hourly(conn)] == [{}] * 24
    store.add(conn, Batch(process=uuid4(), sequence=1, deltas={HIT: 2.0}))
    *before, now = store.hourly(conn)
    assert now.counts == {("rdstation_leads_served_total", "hit"): 2.0}
    assert {value for hour in before for value in hour.counts.values()} <= {0.0}


def test_processes_that_meet_a_new_hour_at_once_note_its_first_sums(
    pool: ConnectionPool[psycopg.Connection[Any]], conn: psycopg.Connection[Any], clock: Clock
) -> None:
    series: list[Series] = [("rdstation_leads_served_total", (("cache", f"{n}"),)) for n in range(50)]
    store.add(conn, Batch(process=uuid4(), sequence=1, deltas=dict.fromkeys(series, 1.0)))
    clock.advance(3600)

    def add(seed: int) -> None:
        mixed = random.Random(seed).sample(series, len(series))  # noqa: S311 - an order to go through them
        with database.transaction(pool) as own:
            store.add(own, Batch(process=uuid4(), sequence=1, deltas=dict.fromkeys(mixed, 1.0)))

    with ThreadPoolExecutor(10) as executor:
        list(executor.map(add, range(10)))
    *_, before, now = store.hourly(conn)
    assert set(before.counts.values()) == {1.0}
    assert set(now.counts.values()) == {10.0}


def test_a_process_that_counts_nothing_writes_nothing(
    make_flusher: MakeFlusher, conn: psycopg.Connection[Any]
) -> None:
    flusher = make_flusher(Metrics())
    assert flusher.snapshot(10) is not None
    flusher.close()
    assert conn.execute("SELECT count(*) FROM rdservice_metric_processes").fetchone() == (0,)
