"""Cost of metrics: a cached request with and without counting, and the database's time for the counts.

The service without counting is the same one under the same gunicorn settings (`uncounted_app`).
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, LiteralString, NamedTuple

import psycopg
from flask import Flask
from flask.testing import FlaskClient

from dev.benchmarks import accounts
from dev.benchmarks.http_load import LoadMaker
from dev.benchmarks.reads import LEADS, read_body, run_round
from dev.benchmarks.report import Measure
from dev.benchmarks.stage import BenchError, Load, Stage, new_database, wait_until
from rdservice.database.pool import create_pool
from rdservice.metrics.definitions import Metrics
from rdservice.metrics.flusher import Flusher
from rdservice.rdstation import call_metrics
from rdservice.rdstation.client import ApiResponse
from rdservice.services import read_state
from rdservice.web.api import metrics as web_metrics
from scripts.local.embedded_postgres import EmbeddedPostgres

PROCESSES = 10
CALLS_A_MINUTE = 120
"""Calls of all processes together, RD Station's limit for an account. Each is flushed within a second."""
ROUTES = ("/healthz", "/readyz", "/rd/leads", "/rd/tokens", "/metrics")
STATISTICS_WITHIN_S = 20.0

# Time for statements, planning and waiting included (PostgreSQL 14 and later).
USED = "SELECT xact_commit, active_time FROM pg_stat_database WHERE datname = %s"


class Used(NamedTuple):
    """The load on a database."""

    transactions: float
    active_ms: float

    def a_minute_since(self, before: "Used", seconds: float) -> "Used":
        minutes = seconds / 60
        return Used(
            (self.transactions - before.transactions) / minutes, (self.active_ms - before.active_ms) / minutes
        )


class Process:
    """Counts and flushes like a web process, for simulated requests and calls to RD Station."""

    def __init__(self, url: str) -> None:
        self.metrics = Metrics()
        self._pool = create_pool(url, max_size=1, name="bench")
        self._flusher = Flusher(self.metrics, self._pool, read_state)
        self._client = _client(self.metrics)

    def start(self) -> None:
        self._flusher.start()

    def answer_requests(self) -> None:
        """Count one request of each route."""
        for route in ROUTES:
            self._client.get(route)

    def call(self) -> None:
        """Count one call to RD Station."""
        response = ApiResponse(operation="contacts_list", status=200, headers={}, body=b"{}")
        call_metrics.count(self.metrics, self._flusher.hurry, response, 0.1)

    def close(self) -> None:
        self._flusher.close()
        self._pool.close()


def measure(postgres: EmbeddedPostgres, folder: Path, load: Load) -> list[Measure]:
    """Compare requests in rounds that take turns; then let ten processes count beside an idle refresh worker."""
    with Stage(postgres, "metrics", folder) as stage:
        accounts.connect(stage, "default")
        return [*_requests(stage, folder, load), *_flushes(postgres, stage, load)]


def _requests(stage: Stage, folder: Path, load: Load) -> list[Measure]:
    servers = {"counted": stage.web(workers=1), "uncounted": stage.uncounted(workers=1)}
    for server in servers.values():
        read_body(server.url + LEADS, stage.authorization)
    maker = LoadMaker(folder)
    rounds = []
    for number in range(1 + load.choose(5, 1)):
        # The first one in a round may find the machine in another state.
        order = list(servers) if number % 2 else list(reversed(servers))
        done = {
            name: run_round(maker, servers[name], servers[name].url + LEADS, stage.authorization, load)
            for name in order
        }
        if number:  # the first one is for warming up
            rounds.append((done["counted"], done["uncounted"]))
    stage.stop(*(server.process for server in servers.values()))
    return [
        Measure.of_rounds(
            "ratio",
            "cached /rd/leads ÷ the same without metrics",
            [counted.per_second / uncounted.per_second for counted, uncounted in rounds],
        ),
        Measure.of_rounds(
            "cpu", "processor time, with metrics", [counted.cpu_ms for counted, _ in rounds], unit="ms"
        ),
        Measure.of_rounds(
            "uncounted_cpu",
            "processor time, without metrics",
            [uncounted.cpu_ms for _, uncounted in rounds],
            unit="ms",
        ),
    ]


def _flushes(postgres: EmbeddedPostgres, stage: Stage, load: Load) -> list[Measure]:
    """Compare the database load of ten counting processes with that of an idle refresh worker."""
    url, names = new_database(postgres, "flushes"), ("bench_flushes", stage.conn.info.dbname)
    rounds = []
    with psycopg.connect(postgres.url, autocommit=True) as conn:
        for _ in range(load.choose(3, 1)):
            worker = stage.worker()
            before, started = [_used(conn, name) for name in names], time.monotonic()
            with _processes(url) as processes:
                _count(processes, load.choose(12, 2))
            stage.stop(worker)
            took = time.monotonic() - started
            _wait_for_statistics(conn, names[0])
            after = [_used(conn, name) for name in names]
            rounds.append([now.a_minute_since(then, took) for now, then in zip(after, before, strict=True)])
    with psycopg.connect(url) as own:
        series = _number(own, "SELECT count(*) FROM rdservice_metric_totals")
    setting = f"{PROCESSES} processes, {CALLS_A_MINUTE} calls a minute"
    return [
        Measure(key="flushed_series", text=f"counts in the table, {setting}", figure=series),
        Measure.of_rounds(
            "flush_transactions",
            "transactions of the flushers",
            [flushing.transactions for flushing, _ in rounds],
            unit="/min",
        ),
        Measure.of_rounds(
            "flush_ms",
            "database time of the flushers",
            [flushing.active_ms for flushing, _ in rounds],
            unit="ms/min",
        ),
        Measure.of_rounds(
            "idle_worker_ms",
            "database time of an idle worker",
            [idle.active_ms for _, idle in rounds],
            unit="ms/min",
        ),
        Measure.of_rounds(
            "flush_ratio",
            "flushers ÷ idle worker, database time",
            [flushing.active_ms / idle.active_ms for flushing, idle in rounds],
        ),
    ]


@contextmanager
def _processes(url: str) -> Iterator[list[Process]]:
    with ExitStack() as ends:
        made = [Process(url) for _ in range(PROCESSES)]
        for process in made:
            ends.callback(process.close)
        for process in made:
            process.start()
        yield made


def _count(processes: list[Process], seconds: int) -> None:
    """Let each process count requests every second, and one process after the other a call, for this time."""
    pause_s = 60 / CALLS_A_MINUTE
    started = time.monotonic()
    for turn in range(round(seconds / pause_s)):
        time.sleep(max(0.0, started + turn * pause_s - time.monotonic()))
        processes[turn % PROCESSES].call()
        if turn * pause_s % 1 == 0:
            for process in processes:
                process.answer_requests()


def _wait_for_statistics(conn: psycopg.Connection[Any], name: str) -> None:
    """Wait until all sessions with this database have ended, since each reports its statistics last."""
    wait_until(
        lambda: _number(conn, "SELECT count(*) FROM pg_stat_activity WHERE datname = %s", name) == 0,
        f"the sessions with {name} end",
        STATISTICS_WITHIN_S,
    )


def _used(conn: psycopg.Connection[Any], name: str) -> Used:
    row = conn.execute(USED, [name]).fetchone()
    if row is None:
        raise BenchError(f"there is no database {name}")
    return Used(*row)


def _number(conn: psycopg.Connection[Any], query: LiteralString, *parameters: str) -> int:
    row = conn.execute(query, parameters).fetchone()
    return 0 if row is None else int(row[0])


def _client(metrics: Metrics) -> FlaskClient:
    """Return a client of an application whose requests `metrics` counts."""
    app = Flask(__name__)
    web_metrics.init_app(app, metrics)
    for route in ROUTES:
        app.add_url_rule(route, endpoint=route, view_func=lambda: "")
    return app.test_client()
