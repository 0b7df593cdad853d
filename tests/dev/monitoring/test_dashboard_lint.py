"""The rules of Grafana's dashboard-linter, by their names, for a dashboard whose one data source is Prometheus.

https://github.com/grafana/dashboard-linter/blob/main/docs/index.md. The linter itself is a program in Go, which needs a
newer one than Debian's. Its file of exclusions, `.lint`, is obeyed here, and must not name what would pass.
"""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser as promql
import pytest
import yaml
from grafana_foundation_sdk.models import units

from dev.dashboards.__main__ import DASHBOARD
from tests.support.dashboard_file import RATE_INTERVAL_S, load, nodes, panels, parse, selectors, targets

Json = dict[str, Any]

LINT = DASHBOARD.with_name(".lint")
NOT_CHECKED = {
    "target-logql-rule": "no query goes to Loki",
    "target-logql-auto-rule": "no query goes to Loki",
}
RATES = {"rate", "irate"}
VARIABLE_QUERY = re.compile(r"label_values\((?P<selector>.+), (?P<label>\w+)\)")
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}


@dataclass(frozen=True)
class Finding:
    """What a rule complains of; `panel` is None where it is about the whole dashboard."""

    rule: str
    panel: str | None
    words: str


def variables(dashboard: Json, kind: str) -> list[Json]:
    return [one for one in dashboard["templating"]["list"] if one["type"] == kind]


def template_datasource(dashboard: Json) -> Iterator[tuple[None, str]]:
    found = variables(dashboard, "datasource")
    if not found:
        yield None, "no data source to choose"
    for one in found:
        if (one["name"], one["label"]) != ("datasource", "Data source"):
            yield None, f"{one['name']} is labelled {one['label']}"


def _template(name: str) -> Callable[[Json], Iterator[tuple[None, str]]]:
    def check(dashboard: Json) -> Iterator[tuple[None, str]]:
        found = [one for one in dashboard["templating"]["list"] if one["name"] == name]
        if not found:
            yield None, f"no {name} to choose"
        for one in found:
            wanted = {"type": "query", "label": name.title(), "multi": True, "allValue": ".+"}
            for key, value in wanted.items():
                if one.get(key) != value:
                    yield None, f"{key} is {one.get(key)}"
            if one.get("datasource", {}).get("uid") != "${datasource}":
                yield None, "it does not ask the chosen data source"

    return check


def template_label_promql(dashboard: Json) -> Iterator[tuple[None, str]]:
    for one in variables(dashboard, "query"):
        query = VARIABLE_QUERY.fullmatch(one["query"])
        if query is None or not _is_selector(query["selector"]):
            yield None, f"{one['name']} asks for {one['query']}"


def _is_selector(text: str) -> bool:
    try:
        return isinstance(parse(text), promql.VectorSelector)
    except ValueError:
        return False


def template_on_time_change_reload(dashboard: Json) -> Iterator[tuple[None, str]]:
    for one in variables(dashboard, "query"):
        if one["refresh"] != 2:
            yield None, f"{one['name']} is not read again for another time range"


def panel_datasource(dashboard: Json) -> Iterator[tuple[str, str]]:
    for panel in panels(dashboard):
        for asks in (panel, *panel["targets"]):
            if asks["datasource"] != {"type": "prometheus", "uid": "${datasource}"}:
                yield panel["title"], "it does not ask the chosen data source"


def panel_title_description(dashboard: Json) -> Iterator[tuple[str, str]]:
    for panel in panels(dashboard):
        if not panel.get("title") or not panel.get("description"):
            yield panel.get("title", ""), "no title or description"


def panel_units(dashboard: Json) -> Iterator[tuple[str, str]]:
    for panel in panels(dashboard):
        if panel["fieldConfig"]["defaults"].get("unit") not in UNITS:
            yield panel["title"], "no unit that Grafana knows"


def panel_no_targets(dashboard: Json) -> Iterator[tuple[str, str]]:
    for panel in panels(dashboard):
        if not panel.get("targets"):
            yield panel["title"], "no query"


def target_promql(dashboard: Json) -> Iterator[tuple[str, str]]:
    for target in targets(dashboard):
        try:
            assert target.tree is not None
        except ValueError as error:
            yield target.title, str(error)


def target_rate_interval(dashboard: Json) -> Iterator[tuple[str, str]]:
    for target in targets(dashboard):
        for node, above in nodes(target.tree):
            if isinstance(node, promql.MatrixSelector) and node.range.total_seconds() != RATE_INTERVAL_S:
                call = above[-1] if above else None
                if isinstance(call, promql.Call) and call.func.name in RATES:
                    yield target.title, f"{call.func.name} over a fixed time"


def _target(label: str) -> Callable[[Json], Iterator[tuple[str, str]]]:
    def check(dashboard: Json) -> Iterator[tuple[str, str]]:
        for target in targets(dashboard):
            for selector in selectors(target.tree):
                wanted = [
                    one.op == promql.MatchOp.Re and one.value == f"${label}"
                    for one in selector.matchers.matchers
                    if one.name == label
                ]
                if not any(wanted):
                    yield target.title, f"{selector.name} is not of the chosen {label}"

    return check


def target_counter_agg(dashboard: Json) -> Iterator[tuple[str, str]]:
    for target in targets(dashboard):
        for node, above in nodes(target.tree):
            if isinstance(node, promql.VectorSelector) and (node.name or "").endswith("_total"):
                call = above[-2] if len(above) > 1 else None
                if not (isinstance(call, promql.Call) and call.func.name in RATES | {"increase"}):
                    yield target.title, f"the counter {node.name} as it is"


def uneditable(dashboard: Json) -> Iterator[tuple[None, str]]:
    if dashboard["editable"]:
        yield None, "what is changed by hand would be lost"


RULES: dict[str, Callable[[Json], Iterator[tuple[str | None, str]]]] = {
    "template-datasource-rule": template_datasource,
    "template-job-rule": _template("job"),
    "template-instance-rule": _template("instance"),
    "template-label-promql-rule": template_label_promql,
    "template-on-time-change-reload-rule": template_on_time_change_reload,
    "panel-datasource-rule": panel_datasource,
    "panel-title-description-rule": panel_title_description,
    "panel-units-rule": panel_units,
    "panel-no-targets-rule": panel_no_targets,
    "target-promql-rule": target_promql,
    "target-rate-interval-rule": target_rate_interval,
    "target-job-rule": _target("job"),
    "target-instance-rule": _target("instance"),
    "target-counter-agg-rule": target_counter_agg,
    "uneditable-dashboard": uneditable,
}


def findings(dashboard: Json, rule: str) -> list[Finding]:
    return [Finding(rule, panel, words) for panel, words in RULES[rule](dashboard)]


def exclusions() -> dict[tuple[str, str | None], str]:
    """Return the reason of each exclusion by rule and panel, None for all panels."""
    found = {}
    for rule, given in yaml.safe_load(LINT.read_text())["exclusions"].items():
        for entry in given.get("entries", [given]):
            found[rule, entry.get("panel")] = entry["reason"]
    return found


def is_excluded(finding: Finding) -> bool:
    return not {(finding.rule, None), (finding.rule, finding.panel)}.isdisjoint(exclusions())


@pytest.mark.parametrize("rule", RULES)
def test_the_dashboard_keeps_the_rule(rule: str) -> None:
    assert [finding for finding in findings(load(), rule) if not is_excluded(finding)] == []


def test_nothing_is_excluded_that_would_pass_and_everything_has_a_reason() -> None:
    found = {
        key
        for rule in RULES
        for finding in findings(load(), rule)
        for key in ((rule, None), (rule, finding.panel))
    }
    assert exclusions().keys() <= found
    assert all(len(reason) > 20 for reason in exclusions().values())
    assert not NOT_CHECKED.keys() & RULES.keys()


def test_of_the_rule_for_jobs_only_its_value_for_all_is_not_kept() -> None:
    assert [finding.words for finding in findings(load(), "template-job-rule")] == ["allValue is rdservice.*"]


def _without_variables(dashboard: Json) -> None:
    dashboard["templating"]["list"] = []


def _variable(name: str, **changes: Any) -> Callable[[Json], None]:
    def change(dashboard: Json) -> None:
        [found] = [one for one in dashboard["templating"]["list"] if one["name"] == name]
        found.update(changes)

    return change


def _panel(**changes: Any) -> Callable[[Json], None]:
    return lambda dashboard: panels(dashboard)[3].update(changes)


def _unit(dashboard: Json) -> None:
    panels(dashboard)[3]["fieldConfig"]["defaults"]["unit"] = "requests"


def _query(expression: str) -> Callable[[Json], None]:
    return lambda dashboard: panels(dashboard)[3]["targets"][0].update(expr=expression)


def _without_datasource_of_a_query(dashboard: Json) -> None:
    panels(dashboard)[3]["targets"][0]["datasource"] = {"type": "prometheus", "uid": "mine"}


BROKEN: list[tuple[str, Callable[[Json], None]]] = [
    ("template-datasource-rule", _without_variables),
    ("template-datasource-rule", _variable("datasource", label="Prometheus")),
    ("template-job-rule", _without_variables),
    ("template-job-rule", _variable("job", multi=False)),
    ("template-label-promql-rule", _variable("job", query="label_values(up{, job)")),
    ("template-label-promql-rule", _variable("job", query="labels(up, job)")),
    ("template-on-time-change-reload-rule", _variable("job", refresh=1)),
    ("panel-datasource-rule", _panel(datasource={"type": "prometheus", "uid": "mine"})),
    ("panel-datasource-rule", _without_datasource_of_a_query),
    ("panel-title-description-rule", _panel(description="")),
    ("panel-units-rule", _unit),
    ("panel-no-targets-rule", _panel(targets=[])),
    ("target-promql-rule", _query('sum by (job (up{job=~"$job"})')),
    ("target-rate-interval-rule", _query('rate(rdstation_api_requests_total{job=~"$job"}[5m])')),
    ("target-job-rule", _query("up")),
    ("target-job-rule", _query('up{job="$job"}')),
    ("target-counter-agg-rule", _query('rdstation_api_requests_total{job=~"$job"}')),
    (
        "target-counter-agg-rule",
        _query('max_over_time(rdstation_api_requests_total{job=~"$job"}[$__rate_interval])'),
    ),
    ("uneditable-dashboard", lambda dashboard: dashboard.update(editable=True)),
]


@pytest.mark.parametrize(("rule", "spoil"), BROKEN, ids=[rule for rule, _ in BROKEN])
def test_the_rule_notices_a_dashboard_that_does_not_keep_it(rule: str, spoil: Callable[[Json], None]) -> None:
    dashboard = copy.deepcopy(load())
    before = set(findings(dashboard, rule))
    spoil(dashboard)
    assert set(findings(dashboard, rule)) - before


def test_every_rule_that_is_kept_can_be_broken() -> None:
    excluded = {rule for rule, panel in exclusions() if panel is None}
    assert {rule for rule, _ in BROKEN} | excluded == RULES.keys()
