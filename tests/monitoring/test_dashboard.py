"""The Grafana dashboard: whole, explained, and about metrics that are really exported."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.monitoring.names import Exposed, metrics, unknown_selectors

DASHBOARD = Path(__file__).resolve().parents[2] / "monitoring" / "grafana" / "rdservice.json"
TIMES = {"s"}
RATES = {"reqps"}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


@pytest.fixture(scope="module")
def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions(panels: list[dict[str, Any]]) -> list[str]:
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_every_panel_has_a_title_of_its_own_a_description_and_a_unit(panels: list[dict[str, Any]]) -> None:
    assert Counter(panel["title"] for panel in panels).most_common(1)[0][1] == 1
    for panel in panels:
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_units_fit_what_is_computed(panels: list[dict[str, Any]]) -> None:
    for panel in panels:
        unit = panel["fieldConfig"]["defaults"]["unit"]
        for expression in expressions([panel]):
            assert ("seconds" in expression) == (unit in TIMES), panel["title"]
            is_rate = "rate(" in expression and "seconds" not in expression and " / " not in expression
            assert is_rate == (unit in RATES), panel["title"]


def test_leads_calls_and_authentication_failures_are_shown(panels: list[dict[str, Any]]) -> None:
    shown = {panel["title"]: " ".join(expressions([panel])) for panel in panels}
    assert "rdstation_leads_served_total" in shown["Leads throughput"]
    assert "by (status_class) (rate(rdstation_api_requests_total" in shown["Calls by status class"]
    assert "rdstation_auth_failures_total" in shown["Authentication failures"]


def test_every_metric_and_label_of_the_dashboard_is_metrics(
    panels: list[dict[str, Any]], exposed: Exposed
) -> None:
    text = "\n".join(expressions(panels))
    assert metrics(text) <= exposed.keys()
    assert unknown_selectors(text, exposed) == []
    for panel in panels:
        (legends,) = {target["legendFormat"] for target in panel["targets"]}
        for expression in expressions([panel]):
            known = {label for name in metrics(expression) for labels in exposed[name] for label in labels}
            grouped = {
                label for by in re.findall(r"by \(([\w, ]+)\)", expression) for label in by.split(", ")
            }
            assert grouped <= known, panel["title"]
            assert set(re.findall(r"\{\{(\w+)\}\}", legends)) <= grouped, panel["title"]


def test_every_query_goes_to_the_chosen_prometheus(
    dashboard: dict[str, Any], panels: list[dict[str, Any]]
) -> None:
    (variable,) = dashboard["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels:
        assert panel["datasource"] == chosen
        assert [target["datasource"] for target in panel["targets"]] == [chosen] * len(panel["targets"])


def test_ids_are_unique_and_panels_neither_overlap_nor_leave_the_grid(dashboard: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    covered: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not covered & cells, panel["title"]
        covered |= cells
