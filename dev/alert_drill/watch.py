"""Observes the alerts with a real Prometheus, a real Alertmanager and a webhook receiver."""

import contextlib
import signal
import subprocess
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

import requests

from dev.benchmarks.stage import end, wait_until
from dev.monitoring.alert_receiver import AlertReceiver, Notification
from dev.monitoring.programs import (
    RULES,
    Alertmanager,
    Prometheus,
    Target,
    find_programs,
    free_port,
    is_ready,
    shorten,
)
from scripts.local.child_process import spawn

RUNBOOK = "https://git.example.com/you/rdservice/blob/main/docs/en/operate/runbook.md"
READY_S = 30.0


class Watch:
    """A context manager. A minute of the rules and of Alertmanager lasts `minute_s` seconds."""

    def __init__(self, folder: Path, target: Target, minute_s: float) -> None:
        prometheus, alertmanager = find_programs()
        self._folder = folder / "watch"
        self._target = target
        self._minute_s = minute_s
        self._scrape_s = minute_s
        self._prometheus = Prometheus(prometheus, self._folder, free_port())
        self._alertmanager = Alertmanager(alertmanager, self._folder, free_port())
        self._rules = self._folder / "rules.yml"
        self._received: list[Notification] = []
        self._lock = Lock()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as ends:
            receiver = ends.enter_context(AlertReceiver(self._take))
            self._rules.write_text(shorten(RULES.read_text(), self._minute_s))
            self._configure()
            self._alertmanager.configure(receiver.url, partial(shorten, minute_s=self._minute_s))
            self._session = ends.enter_context(requests.Session())
            self._session.trust_env = False
            processes = [self._spawn(program.command) for program in (self._prometheus, self._alertmanager)]
            ends.callback(end, processes)
            for url in (self._prometheus.url, self._alertmanager.url):
                wait_until(partial(is_ready, url), f"{url} is ready", READY_S)
            # Prometheus sees no increase before its second scrape.
            wait_until(self._has_scraped_twice, "Prometheus reads the metrics", READY_S)
            self._ends = ends.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    @property
    def prometheus_url(self) -> str:
        return self._prometheus.url

    def scrape_every(self, seconds: float | None) -> None:
        """Change the scrape interval, in seconds; None restores the drill's default."""
        wanted = self._minute_s if seconds is None else max(seconds, self._minute_s)
        if wanted != self._scrape_s:
            self._scrape_s = wanted
            self._configure()
            self._session.post(f"{self._prometheus.url}/-/reload", timeout=READY_S).raise_for_status()

    def wait_until_quiet(self, alerts: Collection[str], seconds: float) -> None:
        """Wait until none of these alerts is pending or firing. Raises BenchError."""
        wait_until(lambda: not self._alerts() & set(alerts), f"{', '.join(alerts)} can begin", seconds)

    @property
    def received(self) -> int:
        """The number of notifications received so far."""
        with self._lock:
            return len(self._received)

    def notification(self, name: str, status: str, after: int) -> Notification | None:
        """Return the first notification of this alert and status, skipping the first `after` notifications."""
        with self._lock:
            later = self._received[after:]
        return next((one for one in later if (one.name, one.status) == (name, status)), None)

    def _alerts(self) -> set[str]:
        return {alert["labels"]["alertname"] for alert in self._ask("alerts")["alerts"]}

    def _has_scraped_twice(self) -> bool:
        query = {"query": "count_over_time(rdstation_database_up[1h]) >= 2"}
        return bool(self._ask("query", query)["result"])

    def _ask(self, what: str, parameters: Mapping[str, str] | None = None) -> Any:
        """Return the data of a response of Prometheus's HTTP API."""
        response = self._session.get(
            f"{self._prometheus.url}/api/v1/{what}", params=parameters, timeout=READY_S
        )
        response.raise_for_status()
        return response.json()["data"]

    def _take(self, notification: Notification) -> None:
        with self._lock:
            self._received.append(notification)

    def _configure(self) -> None:
        self._prometheus.configure(
            self._target,
            alertmanager=self._alertmanager.url,
            rules=self._rules,
            every_s=self._scrape_s,
            evaluate_s=self._minute_s,
            external_labels={"rdservice_runbook": RUNBOOK},
        )

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self._folder / f"{Path(command[0]).name}.log").open("ab") as log:
            return spawn(command, death_signal=signal.SIGKILL, stdout=log, stderr=log)
