"""Writes the metrics in Prometheus's text exposition format, version 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import platform
from collections import defaultdict
from collections.abc import Iterable, Iterator

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import rdservice
from rdservice.metrics.definitions import Metrics, Series
from rdservice.metrics.flusher import Snapshot
from rdservice.metrics.state import State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

HTTP_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
HTTP_STATUSES = (
    "200 202 204 206 302 303 304 400 401 403 404 405 409 412 413 415 416 422 429 500 501 502 503 504".split()  # noqa: SIM905
)
"""The statuses of this service. The counter of all requests has every combination from the start, at 0. The histogram
by route does not: that would be thousands of empty lines, and no alert uses it."""

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}


def render(metrics: Metrics, snapshot: Snapshot | None) -> bytes:
    """Return the metrics of the whole service; without a snapshot (the database is down) only those that need none."""
    return generate_latest(_Families(_families(metrics, snapshot)))


class _Families(Collector):
    """The metric families that prometheus_client writes."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(metrics: Metrics, snapshot: Snapshot | None) -> Iterator[Metric]:
    yield from _of_this_process(snapshot)
    if snapshot is not None:
        yield from _of_state(snapshot.state)
        yield from _of_events(metrics, snapshot.totals)


def _of_this_process(snapshot: Snapshot | None) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "rdstation_database_up",
        "Whether the database responds and takes writes; while it does not respond, all counters are absent.",
        value=float(snapshot is not None and not snapshot.read_only),
    )
    # The counter of failures is in the database, which is unavailable then, so the process reports its own state.
    yield GaugeMetricFamily(
        "rdstation_metrics_flush_failing",
        "Whether the process that serves this request cannot add its counts to the database.",
        value=float(snapshot is None or not snapshot.flushed),
    )
    build = GaugeMetricFamily(
        "rdstation_build_info", "Always 1; the labels say what runs.", labels=["version", "python_version"]
    )
    build.add_metric([rdservice.__version__, platform.python_version()], 1.0)
    yield build


def _of_state(state: State) -> Iterator[Metric]:
    overview = state.overview
    tokens = GaugeMetricFamily(
        "rdstation_tokens", "Connected accounts by state of their tokens.", labels=["state"]
    )
    for status, number in overview.tokens.items():
        tokens.add_metric([status], number)
    yield tokens
    timestamps = [
        (
            "rdstation_token_earliest_expiry_timestamp_seconds",
            "When the first of the access tokens that are still refreshed expires; absent without any.",
            overview.earliest_expiry,
        ),
        (
            "rdstation_token_last_refresh_success_timestamp_seconds",
            "When RD Station last issued a token; absent before the first time.",
            overview.last_refresh_success,
        ),
        (
            "rdstation_worker_heartbeat_timestamp_seconds",
            "Last heartbeat of any worker; absent when there was none for a day.",
            overview.worker_heartbeat,
        ),
    ]
    for name, documentation, timestamp in timestamps:
        if timestamp is not None:
            yield GaugeMetricFamily(name, documentation, value=timestamp)
    yield GaugeMetricFamily(
        "rdstation_notifications_failing",
        "Notifications of the last day that a receiver has not accepted.",
        value=float(state.failing_notifications),
    )
    connections = GaugeMetricFamily(
        "rdstation_database_connections",
        "Connections to PostgreSQL of the service's role by kind of process.",
        labels=["process"],
    )
    for process, number in state.connections.by_process.items():
        connections.add_metric([process], number)
    yield connections
    yield GaugeMetricFamily(
        "rdstation_database_connections_free",
        "How many more connections the limits of the role, the database and the server allow.",
        value=float(state.connections.free),
    )


def _of_events(metrics: Metrics, totals: dict[Series, float]) -> Iterator[Metric]:
    """Yield each counter and histogram with its sums; series without counts are 0."""
    by_name: dict[str, dict[Series, float]] = defaultdict(dict)
    for series in [*metrics.current(), *_http_series()]:
        by_name[series[0]][series] = 0.0
    for series, value in totals.items():
        by_name[series[0]][series] = value
    for family in metrics.registry.collect():
        shown = Metric(family.name, family.documentation, family.type)
        names = [family.name + suffix for suffix in SUFFIXES.get(family.type, ())]
        for series in sorted((series for name in names for series in by_name[name]), key=_place):
            shown.add_sample(series[0], dict(series[1]), by_name[series[0]][series])
        if shown.samples:
            yield shown


def _http_series() -> Iterator[Series]:
    for method in HTTP_METHODS:
        for status in HTTP_STATUSES:
            yield "flask_http_request_total", (("method", method), ("status", status))


def _place(series: Series) -> tuple[list[tuple[str, str]], str, float]:
    """Return a sort key: labels, then the buckets of a histogram by bound, then its count and sum."""
    name, labels = series
    bound = dict(labels).get("le", "0")
    return [label for label in labels if label[0] != "le"], name, float(bound)
