"""Receives what Alertmanager sends to a webhook (https://prometheus.io/docs/alerting/latest/configuration/)."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self

from dev.monitoring.webhook_server import WebhookServer


@dataclass(frozen=True)
class Notification:
    """An alert that is firing, or `resolved`, according to its `status`."""

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


class AlertReceiver(WebhookServer):
    """A context manager that calls `on_alert` with each notification, in its own thread."""

    def __init__(self, on_alert: Callable[[Notification], None]) -> None:
        def take(body: bytes) -> HTTPStatus:
            for alert in json.loads(body)["alerts"]:
                on_alert(Notification.of(alert))
            return HTTPStatus.OK

        super().__init__(take)

    @property
    def url(self) -> str:
        return f"http://{self.address}/"
