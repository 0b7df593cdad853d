"""scripts/simulate: what it prints, and how it ends."""

import json
import logging
import os
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from dev.simulation import __main__ as command
from dev.simulation import report
from dev.simulation.records import Counts, Violation
from dev.simulation.run import Outcome, Plan

ROOT = Path(__file__).resolve().parents[3]


def outcome(plan: Plan, violation: Violation | None = None) -> Outcome:
    return Outcome(
        plan=plan,
        counts=Counts(renewals=1234),
        calls=2345,
        faults=Counter({"deploy": 3}),
        people=Counter(),
        losses=Counter({"answer lost on its way": 2} if plan.rotating else {}),
        violation=violation,
        digest="0badcafe",
        seconds=1.5,
    )


@pytest.mark.slow
def test_a_run_prints_its_figures_and_leaves_nothing_behind() -> None:
    options = shlex.split("--accounts 3 --days 1.5 --seed 4 --rotating --json")
    # Not pytest's folder, which PostgreSQL's user cannot enter.
    with tempfile.TemporaryDirectory(prefix="test-simulate-") as folder:
        done = subprocess.run(
            [sys.executable, "-m", "dev.simulation", *options],
            cwd=ROOT,
            env=os.environ | {"TMPDIR": folder},
            capture_output=True,
            text=True,
            check=True,
        )
        assert os.listdir(folder) == []
    (figures,) = json.loads(done.stdout)["runs"]
    assert (figures["seed"], figures["rotating"], figures["accounts"]) == (4, True, 3)
    assert figures["violation"] is None
    assert figures["renewals"] > 0
    assert sum(figures["faults"].values()) > 0


def test_without_options_both_modes_of_both_sizes_are_run() -> None:
    assert [(plan.accounts, plan.days, plan.rotating) for plan in command.plans([])] == [
        (2000, 30, False),
        (2000, 30, True),
        (50, 365, False),
        (50, 365, True),
    ]


@pytest.mark.parametrize(
    "arguments", ["--accounts 3", "--days 2", "--accounts 0 --days 1", "--accounts 1 --days -1"]
)
def test_half_a_plan_is_refused(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.plans(shlex.split(arguments))
    assert ended.value.code == 2
    assert "usage: scripts/simulate" in capsys.readouterr().err


def test_the_table_has_a_column_for_each_run() -> None:
    both = [Plan(accounts=9, days=2, seed=1, rotating=rotating) for rotating in (False, True)]
    table = report.as_table([outcome(plan) for plan in both]).splitlines()
    cells = {line.rsplit(maxsplit=2)[0].strip(): line.rsplit(maxsplit=2)[1:] for line in table}
    assert cells["refresh tokens"] == ["stay", "rotate"]
    assert cells["renewals"] == ["1,234", "1,234"]
    assert cells["answer lost on its way"] == ["0", "2"]


def test_a_violation_says_how_to_see_it_again() -> None:
    plan = Plan(accounts=9, days=2, seed=5, rotating=True)
    violation = Violation("lapse", "no valid token", account="account-2", at=86_400.0, trail=["it ran out"])
    text = report.violation_text(outcome(plan, violation))
    assert "lapse: no valid token of account account-2" in text
    assert "it ran out" in text
    (line,) = [line for line in text.splitlines() if "scripts/simulate" in line]
    _, *arguments = shlex.split(line.partition(": ")[2])
    assert command.plans(arguments) == [plan]
    assert report.violation_text(outcome(plan)) == ""


def test_a_violation_is_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def found(plan: Plan) -> Outcome:
        return outcome(plan, Violation("lapse", "no valid token", account="", at=0.0, trail=[]))

    monkeypatch.setattr(command, "_run", found)
    monkeypatch.setattr(logging, "disable", lambda _: None)
    monkeypatch.setattr(command, "heed_stop_signals", lambda: None)
    monkeypatch.setattr(sys, "argv", ["simulate", "--accounts", "1", "--days", "1"])
    assert command.main() == command.EXIT_VIOLATION
    assert "lapse" in capsys.readouterr().err
