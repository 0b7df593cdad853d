"""What scripts/simulate becomes once `.venv` is there: `python -m dev.simulation [options]`."""

import argparse
import logging
import sys
from collections.abc import Callable

from dev.simulation import report
from dev.simulation.database import SETTINGS
from dev.simulation.run import Outcome, Plan, simulate
from scripts.local.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError
from scripts.local.postgres_binaries import BinariesMissingError
from scripts.local.scratch import StopRequested, heed_stop_signals, scratch_folder

EXIT_VIOLATION = 1
EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h

FULL = ((2000, 30.0), (50, 365.0))
"""Default numbers of accounts and days, for both modes."""


def main() -> int:
    arguments = _arguments(sys.argv[1:])
    heed_stop_signals()
    # The service logs a warning for each injected fault.
    logging.disable(logging.CRITICAL)
    outcomes = []
    try:
        for plan in _plans_of(arguments):
            outcomes.append(_run(plan))
            print(report.violation_text(outcomes[-1]), end="", file=sys.stderr, flush=True)
    except StopRequested as stop:
        print("Stopped.", file=sys.stderr)
        return 128 + stop.number
    except (EmbeddedPostgresError, BinariesMissingError, OSError) as error:
        print(f"\n{error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    print(report.as_json(outcomes) if arguments.json else report.as_table(outcomes))
    return EXIT_VIOLATION if any(outcome.violation for outcome in outcomes) else 0


def plans(arguments: list[str]) -> list[Plan]:
    """Return what these arguments of the command line ask for."""
    return _plans_of(_arguments(arguments))


def _arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/simulate",
        description="Run the service in virtual time, under faults, on a PostgreSQL of its own. Without --accounts and"
        " --days: 2,000 accounts for 30 days and 50 for a year, with refresh tokens that stay and that rotate.",
    )
    parser.add_argument("--accounts", type=_positive(int), help="how many accounts; with --days")
    parser.add_argument("--days", type=_positive(float), help="how many days; with --accounts")
    parser.add_argument("--seed", type=int, default=1, help="what the run is drawn from (default: 1)")
    parser.add_argument("--rotating", action="store_true", help="refresh tokens live for one exchange")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args(given)
    if (arguments.accounts is None) != (arguments.days is None):
        parser.error("--accounts and --days belong together")
    return arguments


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError("must be more than 0")
        return value

    return read


def _plans_of(arguments: argparse.Namespace) -> list[Plan]:
    if arguments.accounts is not None:
        return [
            Plan(
                accounts=arguments.accounts,
                days=arguments.days,
                seed=arguments.seed,
                rotating=arguments.rotating,
            )
        ]
    modes = [True] if arguments.rotating else [False, True]
    return [
        Plan(accounts=accounts, days=days, seed=arguments.seed, rotating=rotating)
        for accounts, days in FULL
        for rotating in modes
    ]


def _run(plan: Plan) -> Outcome:
    with (
        scratch_folder("simulation") as folder,
        EmbeddedPostgres(folder / "postgres", settings=SETTINGS) as server,
    ):
        return simulate(plan, server, progress=_progress(plan))


def _progress(plan: Plan) -> Callable[[float], None]:
    if not sys.stderr.isatty():
        return lambda _days: None
    mode = "rotating" if plan.rotating else "staying"

    def show(days: float) -> None:
        end = "\n" if days >= plan.days else ""
        text = f"\r{plan.accounts} accounts, {mode} refresh tokens: day {days:.1f} of {plan.days:g}"
        print(text, end=end, file=sys.stderr, flush=True)

    return show


if __name__ == "__main__":
    sys.exit(main())
