"""Serves `/metrics` to Prometheus, and counts the requests of this application."""

import hmac
from ipaddress import ip_address
from typing import Any

from flask import Blueprint, Flask, Response, request
from prometheus_client import CollectorRegistry
from prometheus_flask_exporter import PrometheusMetrics

from rdservice.config.settings import Settings
from rdservice.errors import Forbidden, Unauthorized
from rdservice.metrics.definitions import Metrics
from rdservice.web.api import exposition
from rdservice.web.http import guard
from rdservice.web.http.context import client_address, services

bp = Blueprint("metrics", __name__)

SNAPSHOT_TIMEOUT_S = 4.0
"""How long a scrape waits for the database. Prometheus times out after ten seconds."""
REQUEST_BUCKETS_S = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 30.0)


@bp.get("/metrics")
@guard.public
def show() -> Response:
    """Return the metrics of the whole service. `check_reader` restricts access."""
    check_reader(services().settings)
    snapshot = services().metrics_flusher.snapshot(SNAPSHOT_TIMEOUT_S)
    return Response(exposition.render(services().metrics, snapshot), content_type=exposition.CONTENT_TYPE)


def check_reader(settings: Settings) -> None:
    """Raise Unauthorized without one of the bearer tokens.

    If METRICS_TOKEN is not set, raise Unauthorized for everyone in production, Forbidden for other machines elsewhere.
    """
    if settings.metrics_tokens:
        if not _shows_one(settings.metrics_tokens):
            raise Unauthorized("Send a token of METRICS_TOKEN as 'Authorization: Bearer …'.")
    elif settings.production:
        # A proxy on this machine that adds no header looks like this machine.
        raise Unauthorized(
            "In production nobody may read the metrics without a token: set METRICS_TOKEN and send it as"
            " 'Authorization: Bearer …'."
        )
    elif not _is_local():
        raise Forbidden(
            "Without METRICS_TOKEN only this machine may read the metrics, and not through a proxy. Set METRICS_TOKEN"
            " and send it as 'Authorization: Bearer …'."
        )


class RequestCounts:
    """Counts requests that Flask does not see in the metrics of prometheus-flask-exporter, as the exporter does."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}
        self._found: dict[tuple[str, str, int], tuple[Any, Any]] = {}

    def note(self, collector: Any) -> None:
        """Remember a metric that the exporter has created."""
        self._made[collector.describe()[0].name] = collector

    def count(self, method: str, url_rule: str, status: int, duration_s: float) -> None:
        """Count a request. Caches the labelled metrics, since `method`, `url_rule` and `status` have few values."""
        found = self._found.get((method, url_rule, status))
        if found is None:
            duration = self._made["flask_http_request_duration_seconds"]
            total = self._made["flask_http_request"]
            found = self._found[method, url_rule, status] = (
                duration.labels(method=method, url_rule=url_rule, status=status),
                total.labels(method=method, status=status),
            )
        found[0].observe(duration_s)
        found[1].inc()


class _NotedRegistry:
    """A registry for the exporter that also passes each metric to `counts`."""

    def __init__(self, registry: CollectorRegistry, counts: RequestCounts) -> None:
        self._registry = registry
        self._counts = counts

    def register(self, collector: Any) -> None:
        self._registry.register(collector)
        self._counts.note(collector)


def init_app(app: Flask, metrics: Metrics) -> RequestCounts:
    """Count and time the requests of `app`. Call before registering anything that may respond to a request."""
    counts = RequestCounts()
    # Grouped by route, since clients choose paths. `path=None`: its own /metrics would show only this process.
    exporter = PrometheusMetrics(
        app=None,
        path=None,
        group_by="url_rule",
        buckets=REQUEST_BUCKETS_S,
        registry=_NotedRegistry(metrics.registry, counts),
    )

    @exporter.do_not_track()  # type: ignore[untyped-decorator]
    def leave_out() -> None:
        """Keep the request out of the counts."""

    def leave_out_unknown_methods() -> None:
        # A client may send any word as method. It never reaches a view: the response is 405 or 404.
        if request.method not in exposition.HTTP_METHODS:
            leave_out()

    app.before_request(leave_out_unknown_methods)
    exporter.init_app(app)
    return counts


def _shows_one(tokens: tuple[str, ...]) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    # WSGI decodes header bytes as Latin-1.
    shown = given.strip().encode("latin-1", "replace")
    # A list, so that the time does not tell which token is right.
    same = [hmac.compare_digest(shown, token.encode()) for token in tokens]
    return any(same) and scheme.lower() == "bearer"


def _is_local() -> bool:
    """Return whether the client is on this machine, and not a proxy as far as its request shows."""
    if any(name == "HTTP_FORWARDED" or name.startswith("HTTP_X_FORWARDED") for name in request.environ):
        return False
    try:
        address = ip_address(client_address())
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
