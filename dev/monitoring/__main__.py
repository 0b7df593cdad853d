"""What dev/monitor becomes once `.venv` is there: Prometheus and Alertmanager beside a running scripts/start.

Everything listens on this machine only. Alerts are printed as Alertmanager sends them.
"""

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from dev.monitoring.alert_receiver import AlertReceiver, Notification
from dev.monitoring.programs import (
    HOST,
    Alertmanager,
    ProgramMissingError,
    Prometheus,
    Target,
    find_programs,
    is_ready,
)
from scripts.local.child_process import STOP_SIGNALS
from scripts.local.local_settings import given_settings, noted_url
from scripts.local.supervisor import ChildEndedError, Printer, Supervisor

ROOT = Path(__file__).resolve().parents[2]
EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h

SCRAPE_EVERY_S = 15
READY_SECONDS = 30
STOP_SECONDS = 10.0
PORTS = {"PROMETHEUS_PORT": 9090, "ALERTMANAGER_PORT": 9093}
PORTS_TRIED = 100


class MonitoringError(Exception):
    """A program cannot be started. The message says what to do."""


class StopRequested(BaseException):
    """A signal requested the end. Not an Exception, so that no handler treats it as a failure."""


def main() -> int:
    argparse.ArgumentParser(
        prog="dev/monitor",
        description="Watch a running scripts/start with Prometheus and Alertmanager, and show its alerts, until "
        "Ctrl-C. Environment: PROMETHEUS_PORT (9090 or the next free one), ALERTMANAGER_PORT (9093 or the next free "
        "one), RDSERVICE_DATA_DIR (.data) and METRICS_TOKEN, as scripts/start has them.",
    ).parse_args()
    printer = Printer()
    try:
        with _signals():
            _run(printer)
    except StopRequested:
        return 0
    except (MonitoringError, ProgramMissingError, ChildEndedError, PermissionError) as error:
        printer.say(f"\n{error}")
        return EXIT_UNAVAILABLE
    finally:
        printer.close()


@contextmanager
def _signals() -> Iterator[None]:
    """Make the first signal raise StopRequested. Later ones do not disturb the shutdown."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for other in STOP_SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise StopRequested

    for number in STOP_SIGNALS:
        # Under nohup, the program must survive its terminal.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    yield


def _run(printer: Printer) -> NoReturn:
    programs = find_programs()
    data_dir = Path(os.environ.get("RDSERVICE_DATA_DIR") or ROOT / ".data")
    target = _target(data_dir)
    folder = data_dir / "monitoring"
    prometheus = Prometheus(programs[0], folder, _port("PROMETHEUS_PORT"))
    alertmanager = Alertmanager(programs[1], folder, _port("ALERTMANAGER_PORT"))
    supervisor = Supervisor(printer)
    with AlertReceiver(lambda alert: printer.say(_line(alert))) as receiver:
        prometheus.configure(target, alertmanager=alertmanager.url, every_s=SCRAPE_EVERY_S)
        alertmanager.configure(receiver.url)
        try:
            supervisor.start("prometheus", prometheus.command, os.environ)
            supervisor.start("alertmanager", alertmanager.command, os.environ)
            _wait_until_ready(supervisor, prometheus.url, alertmanager.url)
            printer.say(_ready_message(target, prometheus, alertmanager, folder))
            supervisor.restarts_children = True
            while True:
                supervisor.turn()
        finally:
            printer.say("Stopping …")
            supervisor.stop("prometheus", "alertmanager", seconds=STOP_SECONDS)


def _target(data_dir: Path) -> Target:
    url = noted_url(data_dir)
    if url is None:
        raise MonitoringError(
            f"No scripts/start runs on {data_dir}. Start it first, in another terminal: scripts/start"
        )
    # The service takes each token of the list.
    token = given_settings(ROOT, os.environ).get("METRICS_TOKEN", "").strip(", ").partition(",")[0]
    return Target(address=url.removeprefix("http://"), token=token.strip() or None)


def _port(variable: str) -> int:
    """Return the port that `variable` names, else the default port or the next free one."""
    wanted = os.environ.get(variable, "").strip()
    if wanted and not (wanted.isascii() and wanted.isdecimal() and int(wanted) <= 65535):
        raise MonitoringError(f"{variable} must be a number from 0 to 65535. Example: {variable}=9190")
    first = int(wanted) if wanted else PORTS[variable]
    for port in [first] if wanted else range(first, first + PORTS_TRIED):
        try:
            with socket.create_server((HOST, port)) as found:
                free: int = found.getsockname()[1]
                return free
        except OSError:
            continue
    raise MonitoringError(
        f"port {first} is taken by another program. Choose another one: {variable}={first + 100} dev/monitor"
    )


def _wait_until_ready(supervisor: Supervisor, *urls: str) -> None:
    give_up = time.monotonic() + READY_SECONDS
    waiting = list(urls)
    while waiting:
        supervisor.turn(0.1)
        waiting = [url for url in waiting if not is_ready(url)]
        if time.monotonic() > give_up:
            raise MonitoringError(f"{waiting[0]} did not become ready within {READY_SECONDS} s")


def _ready_message(target: Target, prometheus: Prometheus, alertmanager: Alertmanager, folder: Path) -> str:
    return f"""
Prometheus watches http://{target.address}/metrics, every {SCRAPE_EVERY_S} s.

    alerts       {prometheus.url}/alerts
    metrics      {prometheus.url}/graph
    Alertmanager {alertmanager.url}

Alerts are shown here half a minute after they fire. Their rules are in monitoring/rules/rdservice.yml.
All data is in {folder}. Ctrl-C ends both.
"""


def _line(alert: Notification) -> str:
    what = "FIRING  " if alert.status == "firing" else "RESOLVED"
    facts = f"{what} {alert.labels['severity']} {alert.name}: {alert.annotations['summary']}"
    return (
        f"{facts}\n         {alert.annotations['description']}\n         {alert.annotations['runbook_url']}"
    )


if __name__ == "__main__":
    sys.exit(main())
