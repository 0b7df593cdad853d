"""The alert rules: valid, tested, and about metrics that are really exported."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.monitoring.names import Exposed, exported, unknown_selectors

MONITORING = Path(__file__).resolve().parents[2] / "monitoring"
RULES = MONITORING / "rules" / "rdservice.yml"
TESTS = MONITORING / "tests" / "rdservice.yml"

ALERTS = re.findall(r"- alert: (\w+)", RULES.read_text())


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    return found


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_rules_are_valid(promtool: str) -> None:
    done = run(promtool, "check", "rules", "--lint-fatal", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_fire_and_resolve_as_their_tests_say(promtool: str) -> None:
    done = run(promtool, "test", "rules", str(TESTS))
    assert done.returncode == 0, done.stdout + done.stderr


MUTATIONS = {
    "an expired token is not waited for": ("<= time()\n        for: 1m", "<= time()"),
    "soon is three hours": ("time() < 2 * 3600", "time() < 3 * 3600"),
    "two accounts that must be authorized again": (
        '"reauthorization_required"}) > 0',
        '"reauthorization_required"}) > 1',
    ),
    "a worker may be silent for 59 s": ("seconds) > 60", "seconds) > 59"),
    "a worker that never lived": ("          or on ()", "          and on ()"),
    "a service without tokens needs a worker": ("sum(rdstation_tokens) > 0", "sum(rdstation_tokens) >= 0"),
    "one call in eleven": ("[10m])) > 0.1", "[10m])) > 0.09"),
    "only an answer is an error": ('"5xx|none"', '"5xx"'),
    "4.9 s": (") > 5\n", ") > 4.9\n"),
    "all operations together": ("sum by (operation, le)", "sum by (le)"),
    "slow calls are not waited for": (") > 5\n        for: 5m", ") > 5"),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_tests_notice_a_rule_that_is_off(promtool: str, tmp_path: Path, mutation: str) -> None:
    before, after = MUTATIONS[mutation]
    text = RULES.read_text()
    assert text.count(before) == 1
    for folder in ("rules", "tests"):
        (tmp_path / folder).mkdir()
    (tmp_path / "rules" / RULES.name).write_text(text.replace(before, after))
    shutil.copy(TESTS, tmp_path / "tests")
    done = run(promtool, "test", "rules", str(tmp_path / "tests" / TESTS.name))
    assert done.returncode == 1
    assert "FAILED" in done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_how_bad_it_is_and_what_to_do(alert: str) -> None:
    text = RULES.read_text().partition(f"- alert: {alert}\n")[2].partition("- alert:")[0]
    assert re.search(r"severity: (critical|warning)\n", text)
    assert re.search(r"summary: \S", text)
    assert re.search(r"description: >-\n +\S", text)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not(alert: str) -> None:
    tests = TESTS.read_text()
    assert re.search(rf"alertname: {alert}}}", tests)
    assert re.search(rf"alertname: {alert}(, exp_alerts:|\n +exp_alerts:)", tests)


def test_every_metric_and_label_in_the_rules_and_their_tests_is_exported(
    exposed: Exposed,
) -> None:
    assert exported(RULES.read_text()) <= exposed.keys()
    assert exported(TESTS.read_text()) <= exposed.keys()
    assert unknown_selectors(RULES.read_text(), exposed) == []
    assert unknown_selectors(TESTS.read_text(), exposed) == []
