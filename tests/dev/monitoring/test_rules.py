"""The alert rules: valid, about metrics that are really exported, and each with its tests, which can fail."""

import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.metric_names import Exposed, grouping_labels, metrics, unknown_selectors
from tests.support.rule_files import ALERTS, RULES, TESTS, RuleTest, all_rules, all_tests, read_tests, samples

# What Prometheus itself adds.
OF_PROMETHEUS = {"up": [{"job": "rdservice"}]}
EVERY = "every alert"
WAITING = [alert for alert, rule in ALERTS.items() if "for" in rule]
# About what is counted, and not about a state.
ABOUT_EVENTS = [
    alert for alert, rule in ALERTS.items() if re.search(r"\b(rate|increase)\(|:ratio_rate", rule["expr"])
]


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
    done = run(promtool, "test", "rules", *map(str, TESTS))
    assert done.returncode == 0, done.stdout + done.stderr


def about(alert: str, aspect: str) -> list[RuleTest]:
    found = [test for test in all_tests() if test.alert in (alert, EVERY) and aspect in test.aspects]
    assert found, f"{alert} has no test [{aspect}]"
    return found


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_fires_in_a_test_and_resolves(alert: str) -> None:
    assert all(test.fires() for test in about(alert, "fires"))
    for test in about(alert, "resolves"):
        assert max(test.is_silent()) > max(test.fires()), test


@pytest.mark.parametrize("alert", WAITING)
def test_every_alert_that_waits_has_a_test_in_which_it_does_not_fire_yet(alert: str) -> None:
    for test in about(alert, "for"):
        assert min(test.is_silent()) < min(test.fires()), test


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_test_just_under_its_threshold(alert: str) -> None:
    under = [test for test in about(alert, "under") if test.alert == alert]
    assert under
    for test in under:
        assert test.is_silent()
        assert not test.fires(), test


@pytest.mark.parametrize("aspect", ["under", "silent"])
def test_all_alerts_together_are_silent_while_all_is_well_and_without_any_traffic(aspect: str) -> None:
    [test] = [test for test in all_tests() if test.alert == EVERY and aspect in test.aspects]
    assert {alert for _, alert, _ in test.looks} == ALERTS.keys()
    assert not any(firing for _, _, firing in test.looks)
    if aspect == "silent":
        # Prometheus itself asks for /metrics, even where nobody else asks for anything.
        moving = {series for series, values in test.series.items() if len(set(samples(values))) > 1}
        assert all(re.search(r'status="200"', series) for series in moving), moving


@pytest.mark.parametrize("alert", ABOUT_EVENTS)
def test_every_alert_about_events_sees_the_first_ones(alert: str) -> None:
    for test in about(alert, "first"):
        assert test.fires()


@pytest.mark.parametrize("alert", ABOUT_EVENTS)
def test_every_alert_about_events_is_silent_where_counters_begin_anew(alert: str) -> None:
    for test in about(alert, "reset"):
        assert not test.fires(), test
        assert any(
            before > after for values in test.series.values() for before, after in pairwise(samples(values))
        )


MUTATIONS = {
    "an uploaded token is not waited for": ("<= time()\n        for: 1m", "<= time()"),
    "a token may be expired for a second": (
        "_timestamp_seconds) <= time()",
        "_timestamp_seconds) <= time() + 1",
    ),
    "soon is three hours": ("time() < 2 * 3600", "time() < 3 * 3600"),
    "tokens of two jobs together": (
        "min by (job) (rdstation_token_earliest_expiry_timestamp_seconds) - time()",
        "min(rdstation_token_earliest_expiry_timestamp_seconds) - time()",
    ),
    "two accounts that must be authorized again": (
        '"reauthorization_required"}) > 0',
        '"reauthorization_required"}) > 1',
    ),
    "any state means refused": ('rdstation_tokens{state="credentials_refused"}', "rdstation_tokens"),
    "any job that is down": ('min by (job) (up{job=~"rdservice.*"})', "min by (job) (up)"),
    "a job that is missing": ('          or absent(up{job=~"rdservice.*"})\n', ""),
    "a worker may be silent for 59 s": ("seconds) > 60", "seconds) > 59"),
    "a worker that never lived": ("          or on (job)", "          and on (job)"),
    "a service without tokens needs a worker": (
        "sum by (job) (rdstation_tokens) > 0",
        "sum by (job) (rdstation_tokens) >= 0",
    ),
    "any worker will do": (
        "unless on (job) max by (job) (rdstation_worker",
        "unless on () max(rdstation_worker",
    ),
    "the last scrape alone": (
        "max_over_time(rdstation_metrics_flush_failing[5m])",
        "rdstation_metrics_flush_failing",
    ),
    "two messages that nobody accepts": ("notifications_failing) > 0", "notifications_failing) > 1"),
    "a message that arrives after nine minutes": (
        "notifications_failing) > 0\n        for: 10m",
        "notifications_failing) > 0\n        for: 8m",
    ),
    "a token that was healed": ("[15m])) >= 2\n", "[15m])) >= 1\n"),
    "refused uploads": ("token_.*|account_info|revoke", "token_.*|revoke"),
    "one call in eleven fails": ("[10m])) > 0.1\n        for", "[10m])) > 0.09\n        for"),
    "only an answer is an error": ('"5xx|none"', '"5xx"'),
    "one call in eleven is rejected": ("[10m])) > 0.1\n          and", "[10m])) > 0.09\n          and"),
    "four rejected calls": ("[10m])) >= 5", "[10m])) >= 4"),
    "six rejected calls": ("[10m])) >= 5", "[10m])) >= 6"),
    "a second 429": ('reason="rate_limited"}[15m])) > 0', 'reason="rate_limited"}[15m])) > 1'),
    "4.9 s": (") > 5\n", ") > 4.9\n"),
    "all operations together": ("sum by (job, operation, le)", "sum by (job, le)"),
    "as many good answers": ("> 2 * sum", "> 1 * sum"),
    "leads that are always renewed": ("> 2 * sum", "> 0 * sum"),
    "half of the answers": ("[30m])) > 0.5", "[30m])) >= 0.5"),
    "probes are requests": (
        """
          - sum by (job) (
          rate(flask_http_request_duration_seconds_count{url_rule=~"/healthz|/metrics|/readyz",status="200"}[1h])))""",
        ")",
    ),
    "4xx are failures": ('{status=~"5.."}[5m]', '{status=~"[25].."}[5m]'),
    "seven in a hundred": ("ratio_rate1h > 14.4 *", "ratio_rate1h > 13.9 *"),
    "the last hour alone": ("and on (job) job:rdservice_request_errors:ratio_rate5m > 14.4 * 0.005\n", "\n"),
    "nine failures in an hour": ("[1h])) >= 10", "[1h])) >= 9"),
    "eleven failures in an hour": ("[1h])) >= 10", "[1h])) >= 11"),
    "2.9 in a hundred": ("ratio_rate6h > 6 *", "ratio_rate6h > 5.8 *"),
    "the last six hours alone": (
        "and on (job) job:rdservice_request_errors:ratio_rate30m > 6 * 0.005\n",
        "\n",
    ),
    "nine failures in six hours": ("[6h])) >= 10", "[6h])) >= 9"),
    "2.4 s": (") > 2.5\n", ") > 2.4\n"),
    "nineteen requests": ("[10m])) >= 20", "[10m])) >= 19"),
    "slow probes": (
        'seconds_bucket{url_rule!~"/healthz|/metrics|/readyz"}',
        "seconds_bucket",
    ),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_tests_notice_a_rule_that_is_off(promtool: str, tmp_path: Path, mutation: str) -> None:
    before, after = MUTATIONS[mutation]
    text = RULES.read_text()
    assert text.count(before) == 1
    place = text.index(before)
    alert = re.findall(r"- alert: (\w+)", text[:place])[-1]
    if text.rfind("- record:", 0, place) > text.rfind("- alert:", 0, place):
        alert = "RDServiceErrorBudgetBurnsFast"
    assert_noticed(promtool, tmp_path, alert, text.replace(before, after))


@pytest.mark.parametrize("alert", WAITING)
def test_the_tests_notice_an_alert_that_does_not_wait(promtool: str, tmp_path: Path, alert: str) -> None:
    text, count = re.subn(
        rf"(- alert: {alert}\n.*?)\n        for: \w+\n", r"\1\n", RULES.read_text(), count=1, flags=re.S
    )
    assert count == 1
    assert_noticed(promtool, tmp_path, alert, text)


@pytest.mark.parametrize("expression", ["vector(1)", "vector(0) > 1"], ids=["always", "never"])
@pytest.mark.parametrize("alert", ALERTS)
def test_the_tests_notice_an_alert_that_always_or_never_fires(
    promtool: str, tmp_path: Path, alert: str, expression: str
) -> None:
    text, count = re.subn(
        rf"(- alert: {alert}\n(?:        #[^\n]*\n)*        )expr: .*?\n        (for|labels):",
        rf"\1expr: {expression}\n        \2:",
        RULES.read_text(),
        count=1,
        flags=re.S,
    )
    assert count == 1
    assert_noticed(promtool, tmp_path, alert, text)


@pytest.mark.parametrize("alert", ALERTS)
def test_the_tests_of_an_alert_pass_on_the_rules_as_they_are(
    promtool: str, tmp_path: Path, alert: str
) -> None:
    done = run_tests_of(promtool, tmp_path, alert, RULES.read_text())
    assert done.returncode == 0, done.stdout + done.stderr


def assert_noticed(promtool: str, folder: Path, alert: str, rules: str) -> None:
    """Run the tests that are about the alert on other rules; one of them must fail, and be about it."""
    done = run_tests_of(promtool, folder, alert, rules)
    assert done.returncode == 1
    assert f"alertname: {alert}," in done.stdout + done.stderr


def run_tests_of(promtool: str, folder: Path, alert: str, rules: str) -> subprocess.CompletedProcess[str]:
    """Run the tests that are about the alert, and no others, on `rules`."""
    changed = folder / "rules.yml"
    changed.write_text(rules)
    files = []
    for file in sorted({test.file for test in all_tests() if test.alert == alert}):
        contents = read_tests(file)
        own = [test for test in contents["tests"] if test["name"].startswith(f"{alert} ")]
        files.append(folder / file.name)
        files[-1].write_text(yaml.safe_dump(contents | {"rule_files": [str(changed)], "tests": own}))
    return run(promtool, "test", "rules", *map(str, files))


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_how_bad_it_is_and_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert 10 < len(rule["annotations"]["summary"]) < 80
    assert len(rule["annotations"]["description"]) > 60


def test_every_metric_and_label_of_the_rules_is_exported(exposed: Exposed) -> None:
    recorded = {rule["record"]: [{"job": "rdservice"}] for rule in all_rules() if "record" in rule}
    known = exposed | OF_PROMETHEUS | recorded
    for rule in all_rules():
        assert metrics(rule["expr"]) <= known.keys()
        labels = {label for name in metrics(rule["expr"]) for one in known[name] for label in one}
        assert grouping_labels(rule["expr"]) <= labels | {"job"}
        text = " ".join(map(str, rule.get("annotations", {}).values()))
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= grouping_labels(rule["expr"])
        assert unknown_selectors(rule["expr"], known) == []


def test_every_metric_and_label_of_the_tests_is_exported(exposed: Exposed) -> None:
    # Tests name jobs and instances, which Prometheus adds.
    added = re.compile(r'(job|instance)="[^"]*",?')
    known: dict[str, Any] = exposed | OF_PROMETHEUS
    for test in all_tests():
        for series in test.series:
            plain = added.sub("", series).replace("{}", "")
            assert metrics(plain) <= known.keys(), series
            assert unknown_selectors(plain, known) == [], series
