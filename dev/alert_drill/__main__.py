"""What dev/drill becomes once `.venv` is there: `python -m dev.alert_drill [--json] [alert …]`."""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import FrameType

from dev.alert_drill.scenarios import SCENARIOS, Scenario
from dev.alert_drill.scene import Scene
from dev.alert_drill.watch import RUNBOOK, Watch
from dev.benchmarks.stage import BenchError
from dev.monitoring.alert_receiver import Notification
from dev.monitoring.programs import ProgramMissingError
from scripts.local.child_process import STOP_SIGNALS
from scripts.local.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError
from scripts.local.postgres_binaries import BinariesMissingError

EXIT_NOT_SEEN = 1
EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h

ALERTS = tuple(alert for scenario in SCENARIOS for alert in scenario.alerts)
LONGEST_MINUTES = 240
"""How long, in minutes of the rules, an alert may take to fire or resolve. The time of a silent worker is real."""
AT_LEAST_S = 120.0
LOOK_EVERY_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The observation of one alert: seconds from the failure, and from its end, to the webhook's notification."""

    alert: str
    cause: str
    fired_after_s: float | None = None
    resolved_after_s: float | None = None
    runbook_url: str | None = None
    problem: str | None = None


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="dev/drill",
        description="Let each alert fire, arrive at a webhook and resolve, against real processes that are made to "
        "fail: a service, a PostgreSQL, a sandbox, a Prometheus and an Alertmanager of its own.",
        epilog=f"alerts (default: all): {', '.join(ALERTS)}",
    )
    found.add_argument("alerts", nargs="*", metavar="alert", help="which alerts")
    found.add_argument("--json", action="store_true", help="print JSON instead of a table")
    found.add_argument(
        "--minute",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="how long a minute of the rules lasts (1)",
    )
    return found


def main() -> int:
    arguments = parser().parse_args()
    unknown = [name for name in arguments.alerts if name not in ALERTS]
    if unknown:
        parser().error(f"unknown alert {unknown[0]}: choose from {', '.join(ALERTS)}")
    wanted = set(arguments.alerts or ALERTS)
    for number in STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        seen = run([one for one in SCENARIOS if wanted & set(one.alerts)], arguments.minute)
    except (ProgramMissingError, BenchError, EmbeddedPostgresError, BinariesMissingError, OSError) as error:
        print(f"\n{error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    print(json.dumps([asdict(one) for one in seen], indent=2) if arguments.json else _table(seen))
    return EXIT_NOT_SEEN if any(one.problem for one in seen) else 0


def run(scenarios: Sequence[Scenario], minute_s: float) -> list[Seen]:
    """Run the scenarios one after the other."""
    parent = os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108 - see TemporaryDirectory
    with tempfile.TemporaryDirectory(prefix="rdservice-drill-", dir=parent) as name:
        folder = Path(name)
        with (
            EmbeddedPostgres(folder / "postgres") as postgres,
            Scene(postgres, folder) as scene,
            Watch(folder, scene.target, minute_s) as watch,
        ):
            return [seen for scenario in scenarios for seen in _play(scenario, scene, watch, minute_s)]


def _play(scenario: Scenario, scene: Scene, watch: Watch, minute_s: float) -> list[Seen]:
    print(f"{', '.join(scenario.alerts)}: {scenario.about} …", file=sys.stderr, flush=True)
    longest_s = max(LONGEST_MINUTES * minute_s, AT_LEAST_S)

    pause = partial(time.sleep, LOOK_EVERY_S)
    traffic = partial(scenario.traffic, scene) if scenario.traffic is not None else pause
    watch.scrape_every(scenario.scrape_s)
    # Earlier failures are still in the rules' windows.
    watch.wait_until_quiet(scenario.alerts, longest_s)
    before = watch.received
    fired = _see(watch, scenario.alerts, "firing", partial(scenario.cause, scene), traffic, longest_s)
    resolved = _see(watch, fired, "resolved", partial(scenario.mend, scene), pause, longest_s)
    return [
        _seen(alert, scenario, watch.notification(alert, "firing", before), fired, resolved)
        for alert in scenario.alerts
    ]


def _see(
    watch: Watch,
    alerts: Collection[str],
    status: str,
    act: Callable[[], None],
    meanwhile: Callable[[], None],
    longest_s: float,
) -> dict[str, float]:
    """Return, for each alert whose notification arrived, the seconds from `act` to its arrival."""
    before, began = watch.received, time.monotonic()
    act()
    seen: dict[str, float] = {}
    while len(seen) < len(alerts) and time.monotonic() - began < longest_s:
        meanwhile()
        for alert in alerts:
            if alert not in seen and watch.notification(alert, status, before) is not None:
                seen[alert] = time.monotonic() - began
    return seen


def _seen(
    alert: str,
    scenario: Scenario,
    notification: Notification | None,
    fired: Mapping[str, float],
    resolved: Mapping[str, float],
) -> Seen:
    url = notification.annotations["runbook_url"] if notification is not None else None
    problem = None
    if alert not in fired:
        problem = "was not delivered"
    elif url != f"{RUNBOOK}#{alert.lower()}":
        problem = "has a wrong runbook_url"
    elif alert not in resolved:
        problem = "did not resolve"
    return Seen(
        alert=alert,
        cause=scenario.about,
        fired_after_s=fired.get(alert),
        resolved_after_s=resolved.get(alert),
        runbook_url=url,
        problem=problem,
    )


def _table(seen: Sequence[Seen]) -> str:
    lines = [f"{'alert':<32} {'fired':>8} {'resolved':>9}  cause"]
    for one in seen:
        times = [
            f"{value:.1f} s" if value is not None else "–"
            for value in (one.fired_after_s, one.resolved_after_s)
        ]
        lines.append(f"{one.alert:<32} {times[0]:>8} {times[1]:>9}  {one.problem or one.cause}")
    return "\n".join(lines)


def _stop(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
