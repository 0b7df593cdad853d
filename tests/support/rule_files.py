"""The alert rules and their tests, as Prometheus reads them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "monitoring"
RULES = MONITORING / "rules" / "rdservice.yml"
TESTS = sorted((MONITORING / "tests").glob("*.yml"))

NAME = re.compile(r"(?P<alert>\w+|every alert) \[(?P<aspects>[\w ]+)\]: (?P<fact>.+)")
STEP = re.compile(r"(_|-?\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)?(?:x(\d+))?")


def read_tests(file: Path) -> dict[str, Any]:
    """Return a file of tests with all values as text: for YAML `0x60` would be a number."""
    found: dict[str, Any] = yaml.load(file.read_text(), Loader=yaml.BaseLoader)  # noqa: S506 - it makes text alone
    return found


def all_rules() -> list[dict[str, Any]]:
    """Return the recording and alerting rules, in order."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in all_rules() if "alert" in rule}


@dataclass(frozen=True, kw_only=True)
class RuleTest:
    """One test of promtool. `looks`: for each look at an alert its minute, name, and whether it fires there."""

    file: Path
    alert: str
    aspects: frozenset[str]
    series: dict[str, str]
    looks: list[tuple[float, str, bool]]

    def fires(self) -> list[float]:
        """Return when the alert of this test fires, in minutes."""
        return [minute for minute, alert, firing in self.looks if firing and alert == self.alert]

    def is_silent(self) -> list[float]:
        """Return when it does not, in minutes."""
        return [minute for minute, alert, firing in self.looks if not firing and alert == self.alert]


def all_tests() -> list[RuleTest]:
    """Return the tests of all files. A name that says nothing of alert and aspects is an error."""
    return [_test(file, test) for file in TESTS for test in read_tests(file)["tests"]]


def _test(file: Path, test: dict[str, Any]) -> RuleTest:
    name = NAME.fullmatch(test["name"])
    assert name is not None, f"{file.name}: a name is 'Alert [aspects]: fact' and not {test['name']!r}"
    return RuleTest(
        file=file,
        alert=name["alert"],
        aspects=frozenset(name["aspects"].split()),
        series={series["series"]: series["values"] for series in test["input_series"]},
        looks=[
            (_minutes(look["eval_time"]), look["alertname"], bool(look.get("exp_alerts")))
            for look in test["alert_rule_test"]
        ],
    )


def _minutes(time: str) -> float:
    assert time.endswith("m"), time
    return float(time[:-1])


def samples(values: str) -> list[float]:
    """Return the samples that promtool makes of `values`: `a`, `axN`, `a+bxN`; without the absent ones."""
    found: list[float] = []
    for part in values.replace("stale", "").split():
        step = STEP.fullmatch(part)
        assert step is not None, part
        if step[1] != "_":
            found += [
                float(step[1]) + number * float(step[2] or 0) for number in range(int(step[3] or 0) + 1)
            ]
    return found
