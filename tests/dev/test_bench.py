"""scripts/bench runs, and says what it measured. How fast anything is, is no matter of tests."""

import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.benchmarks.__main__ import PARTS
from dev.benchmarks.http_client import make_load
from dev.benchmarks.report import Goal, Measure, PartReport, Report, at_least, at_most
from tests.support.local_processes import descendants, wait_until_gone
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
# The very first run in a checkout installs packages.
SECONDS = 280

MEASURES = {
    "leads": {"ratio", "rate", "bare_rate", "cpu", "bare_cpu"},
    "access-token": {"ratio", "rate", "bare_rate", "cpu", "bare_cpu"},
    "refreshes": {
        "one_worker_ratio",
        "two_workers_ratio",
        "one_worker_rate",
        "two_workers_rate",
        "worker_cpu",
        "postgres_cpu",
        "sandbox_cpu",
        "needed",
    },
    "claims": {"none_due_ratio", "none_due_ms", "all_due_ratio", "all_due_ms"},
    "backlog": {"avoidable", "lapses", "disorder_s", "claim_ms"},
    "export": {"rate", "refused", "memory"},
    "callers": {"exchanges", "served", "longer_ms", "fetches", "fetched", "slowest_ms"},
    "metrics": {
        "ratio",
        "cpu",
        "uncounted_cpu",
        "flushed_series",
        "flush_transactions",
        "flush_ms",
        "idle_worker_ms",
        "flush_ratio",
    },
    "memory": {
        f"{process}_{size}"
        for process in ("together", "web", "web_worker_1", "web_worker_2", "refresh_worker", "postgres")
        for size in ("pss", "rss")
    },
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the benchmark keeps its data: outside pytest's folders, which PostgreSQL's user cannot enter."""
    with tempfile.TemporaryDirectory(prefix="test-bench-") as made:
        yield Path(made)


def bench(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [ROOT / "scripts" / "bench", *arguments],
        env=os.environ | {"TMPDIR": str(folder)},
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_quick_run_measures_every_part_and_leaves_nothing_behind(folder: Path) -> None:
    process = bench(folder, "--quick", "--json")
    output, errors = process.communicate(timeout=SECONDS)
    # How fast anything is, is no matter of tests; whether it fits the exit status is.
    assert process.returncode in (0, 1), errors
    report = json.loads(output)
    assert report["quick"] is True
    assert {"processors", "Python", "PostgreSQL", "load maker"} == set(report["machine"])
    assert {name: set(part["measures"]) for name, part in report["parts"].items()} == MEASURES
    measures = {
        f"{name} {key}": measure
        for name, part in report["parts"].items()
        for key, measure in part["measures"].items()
    }
    assert not any("error" in part for part in report["parts"].values()), errors
    missed = [
        name
        for name, measure in measures.items()
        if measure["goal"] and not measure["met"] and measure["reached"] < 0.9
    ]
    assert process.returncode == (1 if missed else 0)
    may_be_nothing = {"backlog avoidable", "backlog disorder_s", "callers longer_ms"}
    may_be_nothing |= {"export refused", "export memory"}
    assert all(measure["figure"] > 0 for name, measure in measures.items() if name not in may_be_nothing)
    assert measures["backlog avoidable"]["figure"] == 0
    assert measures["callers fetches"]["figure"] == 1
    assert measures["callers fetched"]["figure"] == 200
    for measure in measures.values():
        smallest, largest = measure["spread"] or (measure["figure"], measure["figure"])
        assert smallest <= measure["figure"] <= largest
    assert measures["callers exchanges"]["figure"] == 1
    assert measures["callers served"]["figure"] == 200
    assert list(folder.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_in_the_middle_ends_everything(folder: Path, number: signal.Signals) -> None:
    process = bench(folder, "--quick", "callers")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("measuring callers"):
            break
    logs = "*/callers/web.log"
    wait_until(lambda: any(log.stat().st_size for log in folder.glob(logs)), "gunicorn starts", seconds=60)
    below = descendants(process.pid)
    assert below
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert output == ""
    assert wait_until_gone(below, seconds=5) == set()
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_an_unknown_part_is_refused_with_the_list_of_parts(folder: Path) -> None:
    process = bench(folder, "lead")
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert all(name in errors for name in PARTS)


def test_the_table_shows_goal_figure_spread_and_verdict_of_each_measure() -> None:
    measures = [
        Measure.of_rounds("ratio", "one ÷ other", [0.7, 0.9, 0.85], goal=at_least(0.8)),
        Measure(key="size", text="memory", figure=600.4, unit="MB", goal=at_most(512)),
    ]
    parts = [
        PartReport(name="reads", seconds=3.2, measures=measures),
        PartReport(name="claims", error="no disk"),
    ]
    table = Report(quick=True, machine={"processors": 2}, parts=parts).as_table()
    lines = [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()]
    assert ["goal", "figure", "smallest … largest"] in lines
    assert ["one ÷ other", "≥ 0.80", "0.85", "0.70 … 0.90", "met"] in lines
    assert ["memory", "≤ 512 MB", "600 MB", "MISSED"] in lines
    assert ["failed: no disk"] in lines
    assert "processors 2" in table


@pytest.mark.parametrize(
    ("figure", "goal", "status", "quick_status"),
    [
        (0.8, at_least(0.8), 0, 0),
        (0.79, at_least(0.8), 1, 0),
        (0.71, at_least(0.8), 1, 1),
        (150.0, at_most(150), 0, 0),
        (160.0, at_most(150), 1, 0),
        (170.0, at_most(150), 1, 1),
        (-5.0, at_most(150), 0, 0),
        (0.0, at_most(0), 0, 0),
        (1.0, at_most(0), 1, 1),
        (5.0, None, 0, 0),
    ],
)
def test_a_missed_goal_is_a_failure_in_a_quick_run_only_by_more_than_a_tenth(
    figure: float, goal: Goal | None, status: int, quick_status: int
) -> None:
    for quick, expected in ((False, status), (True, quick_status)):
        part = PartReport(name="reads", measures=[Measure(key="one", text="one", figure=figure, goal=goal)])
        assert Report(quick=quick, machine={}, parts=[part]).failed == bool(expected)


def test_a_part_that_could_not_be_measured_is_a_failure() -> None:
    assert Report(quick=True, machine={}, parts=[PartReport(name="claims", error="no disk")]).failed


def test_the_own_load_maker_counts_answers_and_those_that_are_no_200(sandbox: SandboxProcess) -> None:
    good = make_load(f"{sandbox.url}/_sandbox", {}, connections=3, seconds=0.3)
    assert good["requests"] > 0
    assert good["errors"] == 0
    bad = make_load(f"{sandbox.url}/no-such-page", {}, connections=3, seconds=0.3)
    assert bad["errors"] == bad["requests"] > 0
