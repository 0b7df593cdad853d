"""The baseline for the cost of metrics: the service without counting and without a flusher."""

from importlib import import_module

from flask import Flask

from rdservice.metrics.definitions import Metrics
from rdservice.metrics.flusher import Flusher
from rdservice.web.api import metrics


def do_nothing(*_: object) -> None:
    """Replace the counting functions."""


class NoCounts(metrics.RequestCounts):
    """Replaces the counts of requests."""

    def count(self, method: str, url_rule: str, status: int, duration_s: float) -> None:
        """Do nothing."""


def start() -> Flask:
    """Return the application, started by the service's own entry point."""
    for owner, name, instead in (
        (metrics, "init_app", lambda _app, _metrics: NoCounts()),
        (Metrics, "leads_served", do_nothing),
        (Flusher, "start", do_nothing),
        (Flusher, "close", do_nothing),
    ):
        setattr(owner, name, instead)
    app: Flask = import_module("wsgi").app
    return app


app = start()
