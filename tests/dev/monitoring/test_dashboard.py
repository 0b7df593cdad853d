"""The Grafana dashboard: made of the panels and the rules, explained, and about metrics that are really exported."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from dev.dashboards import __main__ as make_dashboards
from dev.dashboards import alert_thresholds, build
from tests.support.dashboard_file import Target, comparable, load, nodes, panels, selectors, targets
from tests.support.metric_names import Exposed
from tests.support.rule_files import ALERTS, RULES, all_rules

# What Prometheus itself adds.
OF_PROMETHEUS: Exposed = {
    "ALERTS": [{"alertname": alert, "alertstate": "firing"} for alert in ALERTS],
    "scrape_duration_seconds": [{}],
    "scrape_samples_scraped": [{}],
    "up": [{}],
}
# How many alerts fire is one number; each has its job in the table beside it.
OVER_ALL_JOBS = {"Alerts that fire"}
COLOURS = {"warning": "orange", "critical": "red"}
DASHBOARD = load()
TARGETS = targets(DASHBOARD)


def title(target: Target) -> str:
    return target.title


def thresholds(dashboard: dict[str, Any]) -> dict[str, list[tuple[float | None, str]]]:
    """Return the steps of each panel, by its title."""
    return {
        panel["title"]: [
            (step["value"], step["color"]) for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        ]
        for panel in panels(dashboard)
    }


def judged_by(panel: dict[str, Any]) -> list[str]:
    """Return the alerts that a panel's description names."""
    _, _, alerts = panel["description"].partition("Judged by ")
    return re.findall(r"\b(RD\w+) \(", alerts)


def test_the_file_is_what_is_made_of_the_panels_and_the_rules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = make_dashboards.DASHBOARD.read_text()
    monkeypatch.setattr("sys.argv", ["make_dashboards", "--check"])
    assert make_dashboards.main() == 0
    monkeypatch.setattr(make_dashboards, "ROOT", tmp_path)
    monkeypatch.setattr(make_dashboards, "DASHBOARD", tmp_path / "other.json")
    (tmp_path / "other.json").write_text(text.replace('"refresh": "1m"', '"refresh": "5m"'))
    assert make_dashboards.main() == 1
    assert "other.json is out of date" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["make_dashboards"])
    assert make_dashboards.main() == 0
    assert (tmp_path / "other.json").read_text() == text


def test_it_loses_nothing_on_the_way_through_grafanas_own_types() -> None:
    register_default_plugins()
    again = JSONEncoder().encode(Dashboard.from_json(DASHBOARD))
    assert json.loads(again) == DASHBOARD


def test_grafana_is_led_to_the_file_from_a_folder() -> None:
    provisioning = yaml.safe_load(make_dashboards.DASHBOARD.with_name("provisioning.yml").read_text())
    assert provisioning["apiVersion"] == 1
    [provider] = provisioning["providers"]
    assert (provider["name"], provider["type"]) == (DASHBOARD["uid"], "file")
    assert Path(provider["options"]["path"]).is_absolute()


def test_it_has_the_current_schema_and_an_address_of_its_own() -> None:
    assert DASHBOARD["schemaVersion"] == 42
    assert DASHBOARD["uid"] == "rdservice"
    # These belong to one installation.
    assert not DASHBOARD.keys() & {"id", "version", "__inputs"}


def test_every_panel_has_a_title_of_its_own_a_description_and_a_unit_that_fits() -> None:
    assert Counter(panel["title"] for panel in panels(DASHBOARD)).most_common(1)[0][1] == 1
    for panel in panels(DASHBOARD):
        assert len(panel["description"]) > 20, panel["title"]
    for target in TARGETS:
        text = target.expression
        ratio = re.search(r"\) / sum|:ratio_rate", text)
        duration = re.search(r"histogram_quantile|time\(\)|_duration_seconds\{", text)
        rate = re.match(r"sum by \([\w, ]+\) \(rate\(", text)
        fitting = "percentunit" if ratio else "s" if duration else "reqps" if rate else "short"
        assert target.panel["fieldConfig"]["defaults"]["unit"] == fitting, target.title


def test_every_alert_judges_one_panel_which_names_it_with_its_severity() -> None:
    judged = [alert for panel in panels(DASHBOARD) for alert in judged_by(panel)]
    assert sorted(judged) == sorted(ALERTS)
    for panel in panels(DASHBOARD):
        for alert in judged_by(panel):
            assert f"{alert} ({ALERTS[alert]['labels']['severity']})" in panel["description"]


@pytest.mark.parametrize("alert", ALERTS)
def test_the_panel_of_an_alert_shows_what_the_alert_compares(alert: str) -> None:
    [panel] = [panel for panel in panels(DASHBOARD) if alert in judged_by(panel)]
    shown = [comparable(target.tree) for target in TARGETS if target.panel is panel]
    assert comparable(alert_thresholds.read(alert).quantity) in shown


@pytest.mark.parametrize("alert", ALERTS)
def test_the_panel_of_an_alert_has_a_colour_of_its_severity(alert: str) -> None:
    [panel] = [panel for panel in panels(DASHBOARD) if alert in judged_by(panel)]
    colours = [colour for _, colour in thresholds(DASHBOARD)[panel["title"]]]
    assert COLOURS[ALERTS[alert]["labels"]["severity"]] in colours
    assert colours.count("green") == 1


def test_panels_that_no_alert_judges_judge_nothing_but_that_an_alert_fires() -> None:
    for panel in panels(DASHBOARD):
        if not judged_by(panel):
            steps = thresholds(DASHBOARD)[panel["title"]]
            assert steps == (
                [(None, "green"), (1, "red")] if panel["title"] == "Alerts that fire" else [(None, "text")]
            )


CHANGES: dict[str, tuple[str, str, list[tuple[float | None, str]]]] = {
    "Time left of the first token": (
        "time() < 2 * 3600",
        "time() < 3 * 3600",
        [(None, "red"), (0, "orange"), (10_800, "green")],
    ),
    "Last heartbeat of a worker": ("seconds) > 60", "seconds) > 90", [(None, "green"), (90, "red")]),
    "Server errors": (
        "[10m])) > 0.1\n        for",
        "[10m])) > 0.2\n        for",
        [(None, "green"), (0.2, "orange")],
    ),
    "Refused access tokens": ("[15m])) >= 2\n", "[15m])) >= 3\n", [(None, "green"), (3, "orange")]),
    "Refused for too many requests": ("[15m])) > 0\n", "[15m])) > 4\n", [(None, "green"), (5, "orange")]),
    "Old leads": ("[30m])) > 0.5", "[30m])) > 0.25", [(None, "green"), (0.25, "orange")]),
    "Requests that failed": (
        "ratio_rate1h > 14.4 *",
        "ratio_rate1h > 10 *",
        [(None, "green"), (0.03, "orange"), (0.05, "red")],
    ),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_thresholds_follow_the_rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: str) -> None:
    before, after, expected = CHANGES[changed]
    text = RULES.read_text()
    assert text.count(before) == 1
    other = tmp_path / "rules.yml"
    other.write_text(text.replace(before, after))
    monkeypatch.setattr(alert_thresholds, "RULES", other)
    assert thresholds(json.loads(build.render())) == thresholds(DASHBOARD) | {changed: expected}


def test_panels_about_what_is_up_are_red_at_0_and_green_at_1() -> None:
    for panel in ("Metrics", "Database"):
        assert thresholds(DASHBOARD)[panel] == [(None, "red"), (1, "green")]


def test_an_alert_without_a_constant_has_no_threshold(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "rules.yml"
    other.write_text(RULES.read_text().replace("min by (job) (rdstation_database_up) == 0", "vector(1)"))
    monkeypatch.setattr(alert_thresholds, "RULES", other)
    with pytest.raises(alert_thresholds.NoThresholdError, match="RDStationDatabaseDown"):
        alert_thresholds.read("RDStationDatabaseDown")


def test_too_high_and_too_low_are_not_shown_by_one_panel() -> None:
    with pytest.raises(alert_thresholds.NoThresholdError, match="too high and too low"):
        alert_thresholds.steps(["RDStationTokenExpired", "RDStationWorkerStalled"], whole=False)


def test_every_query_asks_for_metrics_and_labels_that_exist(exposed: Exposed) -> None:
    recorded: Exposed = {rule["record"]: [{"job": "rdservice"}] for rule in all_rules() if "record" in rule}
    known = exposed | OF_PROMETHEUS | recorded
    for target in TARGETS:
        for selector in selectors(target.tree):
            assert selector.name in known, target.title
            for matcher in selector.matchers.matchers:
                if matcher.name != "job":
                    there = {labels.get(matcher.name, "") for labels in known[selector.name]}
                    for wanted in matcher.value.split("|"):
                        assert any(re.fullmatch(wanted, value) for value in there), (target.title, wanted)


def test_all_alerts_of_the_service_and_no_others_are_counted_as_firing() -> None:
    for name in OVER_ALL_JOBS | {"Which alerts fire"}:
        [target] = [target for target in TARGETS if target.title == name]
        [selector] = [one for one in selectors(target.tree) if one.name == "ALERTS"]
        [pattern] = [one.value for one in selector.matchers.matchers if one.name == "alertname"]
        assert all(re.fullmatch(pattern, alert) for alert in ALERTS)
        assert not re.fullmatch(pattern, "InstanceDown")


@pytest.mark.parametrize("target", TARGETS, ids=title)
def test_several_jobs_stay_apart_in_every_query_and_in_the_names_of_its_lines(
    target: Target, exposed: Exposed
) -> None:
    groups = [node for node, _ in nodes(target.tree) if isinstance(node, promql.AggregateExpr)]
    kept = [set(group.modifier.labels) if group.modifier is not None else set() for group in groups]
    if target.title in OVER_ALL_JOBS:
        assert kept == [set()]
        return
    assert all("job" in labels for labels in kept)
    named = set(re.findall(r"\{\{(\w+)\}\}", target.target["legendFormat"]))
    if target.panel["type"] == "table":
        return  # Its columns are the labels.
    # A quantile is over the buckets, whose bounds (le) are gone then.
    assert named == (set.union(*kept) - {"le"} if kept else {"job"})


def test_all_jobs_are_those_that_the_rules_judge() -> None:
    [variable] = [one for one in DASHBOARD["templating"]["list"] if one["name"] == "job"]
    judged = {
        matcher.value
        for selector in selectors(promql.parse(ALERTS["RDServiceDown"]["expr"]))
        for matcher in selector.matchers.matchers
        if matcher.name == "job"
    }
    assert judged == {variable["allValue"]}
    assert variable["query"] == f'label_values(up{{job=~"{variable["allValue"]}"}}, job)'


def test_lines_are_drawn_where_an_alert_judges() -> None:
    for panel in panels(DASHBOARD):
        if panel["type"] == "timeseries":
            style = panel["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"]["mode"]
            assert style == ("dashed" if judged_by(panel) else "off"), panel["title"]


def test_ids_are_unique_and_panels_neither_overlap_nor_leave_the_grid() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    covered: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not covered & cells, panel["title"]
        covered |= cells


def test_the_first_row_answers_whether_all_is_well() -> None:
    [first, second] = [place for place, panel in enumerate(DASHBOARD["panels"]) if panel["type"] == "row"][:2]
    assert first == 0
    shown = " ".join(target["expr"] for panel in DASHBOARD["panels"][1:second] for target in panel["targets"])
    for metric in (
        "rdstation_token_earliest_expiry_timestamp_seconds",
        "rdstation_tokens",
        "rdstation_worker_heartbeat_timestamp_seconds",
        "ALERTS",
    ):
        assert metric in shown
