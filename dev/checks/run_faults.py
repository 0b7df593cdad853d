"""`scripts/faults`: inject every fault that the service survives into its real processes, and print the results.

The faults are tests (marker `fault`, in tests/e2e); pytest runs them, and the table is made of its reports. What
happens on the way goes to standard error, the table to standard output.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass

import pytest

EXIT_WELL, EXIT_FAILED = 0, 1
COLUMNS = ("fault", "what is done", "what must hold", "outcome", "seconds")


@dataclass(kw_only=True)
class Fault:
    """A fault with its outcome: `not run`, `holds`, `skipped: …` or `FAILED`."""

    name: str
    done: str
    expected: str
    outcome: str = "not run"
    seconds: float = 0.0

    @property
    def cells(self) -> tuple[str, ...]:
        return self.name, self.done, self.expected, self.outcome, f"{self.seconds:.0f}"


class Collected:
    """A pytest plugin that selects the tests of the chosen faults and collects their reports."""

    def __init__(self, chosen: Sequence[str]) -> None:
        self._chosen = chosen
        self.faults: dict[str, Fault] = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        left_out = []
        for item in items:
            fault = fault_of(item)
            if fault is None or not is_chosen(fault.name, self._chosen):
                left_out.append(item)
            else:
                self.faults[item.nodeid] = fault
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.nodeid in self.faults]

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str]:
        """Print no dots: `pytest_runtest_logreport` prints lines."""
        if report.when != "call" and report.passed:
            return "", "", ""
        return "error" if report.failed and report.when != "call" else report.outcome, "", ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        fault = self.faults[report.nodeid]
        fault.seconds += report.duration
        if report.failed:
            fault.outcome = "FAILED"
        elif report.skipped:
            fault.outcome = f"skipped: {reason_of(report)}"
        elif report.when == "call":
            fault.outcome = "holds"
        if report.when == "teardown":
            print(f"{fault.outcome:8} {fault.seconds:4.0f} s  {fault.name}", file=sys.stderr, flush=True)

    @property
    def failed(self) -> bool:
        return any(fault.outcome == "FAILED" for fault in self.faults.values())

    def by_name(self) -> list[Fault]:
        return sorted(self.faults.values(), key=lambda fault: fault.name)


def fault_of(item: pytest.Item) -> Fault | None:
    """Return the fault that a test covers, including the test's parameters; None for other tests."""
    marker = item.get_closest_marker("fault")
    if marker is None:
        return None
    name, done, expected = marker.args
    _, bracket, parameters = item.name.partition("[")
    return Fault(name=name + bracket + parameters, done=done, expected=expected)


def is_chosen(name: str, chosen: Sequence[str]) -> bool:
    """Return whether a fault's name starts with one of `chosen`; an empty `chosen` selects all."""
    return not chosen or name.startswith(tuple(chosen))


def reason_of(report: pytest.TestReport) -> str:
    """Return the reason of a skipped test."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


def as_table(faults: Sequence[Fault]) -> str:
    """Return a Markdown table."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *(fault.cells for fault in faults)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/faults", description="Let the service meet faults.")
    parser.add_argument(
        "--list", action="store_true", help="print the names and what is done, and run nothing"
    )
    parser.add_argument("names", nargs="*", help="beginnings of names; all faults when there is none")
    asked = parser.parse_args(arguments)
    collected = Collected(asked.names)
    options = ["tests/e2e", "-m", "fault", "-q", "-p", "no:cacheprovider"]
    options += ["--collect-only"] if asked.list else ["--no-header", "--tb=short"]
    with redirect_stdout(sys.stderr):
        status = pytest.main(options, plugins=[collected])
    unknown = [
        name for name in asked.names if not any(is_chosen(f.name, [name]) for f in collected.by_name())
    ]
    if unknown:
        parser.error(f"no fault begins with {', '.join(unknown)}; --list shows all")
    if asked.list:
        for fault in collected.by_name():
            print(f"{fault.name}: {fault.done}")
        return EXIT_WELL
    print(as_table(collected.by_name()))
    return EXIT_FAILED if collected.failed or status != pytest.ExitCode.OK else EXIT_WELL


if __name__ == "__main__":
    sys.exit(main())
