"""Receives what Alertmanager sends to a webhook (https://prometheus.io/docs/alerting/latest/configuration/)."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Notification:
    """That an alert fires, or (`status` resolved) no longer does."""

    status: str
    name: str
    labels: dict[str, str]
    annotations: dict[str, str]

    @classmethod
    def of(cls, alert: dict[str, Any]) -> Self:
        return cls(
            status=alert["status"],
            name=alert["labels"]["alertname"],
            labels=alert["labels"],
            annotations=alert["annotations"],
        )


class AlertReceiver:
    """A web server on this machine that hands each notification to `on_alert`, from a thread of its own."""

    def __init__(self, on_alert: Callable[[Notification], None]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for alert in json.loads(body)["alerts"]:
                    on_alert(Notification.of(alert))
                self.send_response(HTTPStatus.OK)
                self.end_headers()

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                """Say nothing of requests."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, name="alerts", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
