"""scripts/faults lists the faults, runs those that are chosen, and says what happened."""

import os
import subprocess
from pathlib import Path
from typing import Any, Literal

import pytest

from dev.checks import run_faults
from dev.checks.run_faults import Collected, Fault

ROOT = Path(__file__).resolve().parents[3]


def faults(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [ROOT / "scripts" / "faults", *arguments],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_list_has_all_faults_the_long_ones_too() -> None:
    done = faults("--list")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    names = [line.partition(": ")[0] for line in lines]
    assert names == sorted(names)
    assert "pgbouncer: everything runs behind PgBouncer" in done.stdout
    assert "name-server-hangs: the name server never answers" in lines
    assert sum(line.startswith("kill-9-between-exchange-and-store[") for line in lines) == 4


@pytest.mark.slow
def test_a_chosen_fault_is_run_and_shown_in_a_table() -> None:
    done = faults("encryption-key")
    assert done.returncode == 0, done.stderr
    head, line, row = done.stdout.splitlines()
    assert head == "| fault | what is done | what must hold | outcome | seconds |"
    assert set(line) == set("| -")
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert (cells[0], cells[3]) == ("encryption-key-missing", "holds")
    assert cells[4].isdecimal()


@pytest.mark.slow
def test_an_unknown_name_is_a_mistake() -> None:
    done = faults("no-such-fault")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no fault begins with no-such-fault" in done.stderr


When = Literal["setup", "call", "teardown"]


def report(
    outcome: Literal["passed", "failed", "skipped"], when: When, longrepr: Any = None
) -> pytest.TestReport:
    return pytest.TestReport("id", ("", 0, ""), {}, outcome, longrepr, when, duration=2.0)


@pytest.mark.parametrize(
    ("reports", "outcome"),
    [
        ([report("passed", "setup"), report("passed", "call"), report("passed", "teardown")], "holds"),
        ([report("passed", "setup"), report("failed", "call"), report("passed", "teardown")], "FAILED"),
        ([report("passed", "setup"), report("passed", "call"), report("failed", "teardown")], "FAILED"),
        ([report("failed", "setup"), report("passed", "teardown")], "FAILED"),
        (
            [report("skipped", "setup", ("f", 1, "Skipped: pgbouncer is not installed"))],
            "skipped: pgbouncer is not installed",
        ),
    ],
)
def test_what_pytest_reports_becomes_the_outcome(reports: list[pytest.TestReport], outcome: str) -> None:
    collected = Collected([])
    fault = collected.faults["id"] = Fault(name="name", done="done", expected="expected")
    for each in reports:
        collected.pytest_runtest_logreport(each)
    assert fault.outcome == outcome
    assert fault.seconds == 2.0 * len(reports)
    assert run_faults.as_table([fault]).endswith(
        f"| name | done | expected | {outcome} | {fault.seconds:.0f} |"
    )
    assert collected.failed == (outcome == "FAILED")
