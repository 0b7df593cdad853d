"""What scripts/bench becomes once `.venv` is there: `python -m dev.benchmarks [--quick] [--json] [part …]`."""

import argparse
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import psycopg

from dev.benchmarks import backlog, callers, claims, export, memory, metrics, reads, refreshes
from dev.benchmarks.http_load import LoadMaker
from dev.benchmarks.report import Measure, PartReport, Report
from dev.benchmarks.stage import Load
from scripts.local.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError
from scripts.local.postgres_binaries import BinariesMissingError
from scripts.local.scratch import StopRequested, heed_stop_signals, scratch_folder

EXIT_FAILED = 1
EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h

NEEDED_DISK = 4_000_000_000  # bytes, for a table of a million tokens and its log


class Part(NamedTuple):
    """A part of the benchmark. `limit_s`: its time limit."""

    run: Callable[[EmbeddedPostgres, Path, Load], list[Measure]]
    limit_s: int
    about: str


PARTS = {
    "leads": Part(reads.measure_leads, 90, "cached /rd/leads against a bare Flask route"),
    "access-token": Part(reads.measure_access_token, 90, "access-token reads against a bare Flask route"),
    "refreshes": Part(refreshes.measure, 150, "refreshes a second against concurrency ÷ latency"),
    "claims": Part(claims.measure, 150, "a worker's look at 1,000,000 tokens against 1,000"),
    "backlog": Part(
        backlog.measure, 120, "lapses while 100,000 due tokens are refreshed, and how many must lapse"
    ),
    "callers": Part(callers.measure, 60, "exchanges for 200 callers on one expired token"),
    "metrics": Part(metrics.measure, 180, "what counting adds to a cached request, and to the database"),
    "export": Part(export.measure, 90, "an export of all leads against what the plan allows"),
    "memory": Part(memory.measure, 60, "memory of all processes"),
}


class TooSlow(Exception):
    """A part exceeded its time limit."""


def main() -> int:
    arguments = _arguments()
    heed_stop_signals()
    try:
        with scratch_folder("bench") as folder:
            report = _measure(folder, arguments.parts, Load(quick=arguments.quick))
    except StopRequested as stop:
        print("Stopped.", file=sys.stderr)
        return 128 + stop.number
    except (EmbeddedPostgresError, BinariesMissingError, OSError) as error:
        print(f"\n{error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    print(report.as_json() if arguments.json else report.as_table())
    return EXIT_FAILED if report.failed else 0


def _arguments() -> argparse.Namespace:
    names = "\n".join(f"  {name:<13} {part.about}" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure this service against its goals, with a PostgreSQL, a sandbox and processes of its own.",
        epilog=f"parts (default: all):\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="part", help="what to measure")
    parser.add_argument("--quick", action="store_true", help="small loads, about a minute: figures are rough")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.parts if name not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]}: choose from {', '.join(PARTS)}")
    arguments.parts = arguments.parts or list(PARTS)
    return arguments


def _measure(folder: Path, names: Sequence[str], load: Load) -> Report:
    free = shutil.disk_usage(folder).free
    if "claims" in names and not load.quick and free < NEEDED_DISK:
        raise OSError(
            f"{folder.parent} has {free / 1e9:.1f} GB free and {NEEDED_DISK / 1e9:.0f} GB are needed: "
            "name another folder with TMPDIR"
        )
    with EmbeddedPostgres(folder / "postgres") as postgres:
        report = Report(quick=load.quick, machine=_machine(postgres, folder))
        for name in dict.fromkeys(names):
            print(f"measuring {name}: {PARTS[name].about} …", file=sys.stderr, flush=True)
            report.parts.append(_measure_part(name, postgres, folder / name, load))
    return report


def _measure_part(name: str, postgres: EmbeddedPostgres, folder: Path, load: Load) -> PartReport:
    report, started = PartReport(name=name), time.monotonic()
    try:
        with _bounded(PARTS[name].limit_s):
            report.measures = PARTS[name].run(postgres, folder, load)
    except Exception as error:  # noqa: BLE001 - it is reported, and the other parts can still be measured
        report.error = str(error) or type(error).__name__
        print(f"{name} failed: {report.error}", file=sys.stderr)
    report.seconds = time.monotonic() - started
    return report


@contextmanager
def _bounded(seconds: int) -> Iterator[None]:
    """Raise TooSlow in the block after `seconds`."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TooSlow(f"it took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _machine(postgres: EmbeddedPostgres, folder: Path) -> dict[str, str | int]:
    with psycopg.connect(postgres.url) as conn:
        version = conn.info.server_version
    return {
        "processors": os.cpu_count() or 1,
        "Python": platform.python_version(),
        "PostgreSQL": f"{version // 10_000}.{version % 10_000}",
        "load maker": LoadMaker(folder).name,
    }


if __name__ == "__main__":
    sys.exit(main())
