"""The panels as Grafana's dashboard, made of the objects of grafana-foundation-sdk.

https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/. It is of the schema that
Grafana imports and provisions from files whatever its release; of the one that the library calls dashboardv2 only new
releases know.
"""

import itertools
import math
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat, QueryEditorMode

from dev.dashboards import alert_thresholds
from dev.dashboards.panel import COUNT, Panel, Query
from dev.dashboards.rows import ROWS

SCRAPING = Path(__file__).resolve().parents[2] / "monitoring" / "prometheus.yml"
JOBS = "rdservice.*"
"""The jobs that the rules cover."""
DATASOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
NEUTRAL = "text"
HEIGHTS = {"stat": 4, "table": 5, "timeseries": 8}

AnyPanel = stat.Panel | timeseries.Panel | table.Panel


def render() -> str:
    """Return the dashboard as the text of its file."""
    return JSONEncoder(indent=2, ensure_ascii=False, allow_nan=False).encode(_dashboard()) + "\n"


def _dashboard() -> dashboard.Dashboard:
    made = (
        builders.Dashboard("RD Station connection")
        .uid("rdservice")
        .description(
            "Accounts of RD Station Marketing, the calls made to it, and the leads served from it. Made by "
            "dev/dashboards: change it there, or save a copy under another name."
        )
        .tags(["rdstation"])
        # The next import would overwrite manual changes.
        .readonly()
        .refresh("1m")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .annotations([])
        .with_variable(_datasource_variable())
        .with_variable(_job_variable())
    )
    every = _scrape_interval()
    ids = itertools.count(1)
    for row in ROWS:
        made.with_row(builders.Row(row.title).id(next(ids)))
        for panel in row.panels:
            made.with_panel(_panel(panel, next(ids), every))
    return made.build()


def _scrape_interval() -> str:
    """Return how often Prometheus scrapes: the shortest step of a query, of which $__rate_interval is four."""
    interval: str = yaml.safe_load(SCRAPING.read_text())["global"]["scrape_interval"]
    return interval


def _datasource_variable() -> builders.DatasourceVariable:
    return (
        builders.DatasourceVariable("datasource")
        .label("Data source")
        .description("The Prometheus that scrapes the service.")
        .type("prometheus")
    )


def _job_variable() -> builders.QueryVariable:
    return (
        builders.QueryVariable("job")
        .label("Job")
        .description("The services that Prometheus scrapes, each judged apart.")
        .datasource(DATASOURCE)
        .query(f'label_values(up{{job=~"{JOBS}"}}, job)')
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(JOBS)
        .current(dashboard.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _panel(panel: Panel, number: int, every: str) -> AnyPanel:
    """Return the builder of a panel."""
    made = _of_kind(panel)
    steps = _steps(panel)
    (
        made.id(number)
        .title(panel.title)
        .description(_description(panel))
        .datasource(DATASOURCE)
        .unit(panel.unit)
        .span(panel.width)
        .height(HEIGHTS[panel.kind])
        .thresholds(builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps))
    )
    if panel.values:
        made.mappings(_words(panel))
    if panel.empty is not None:
        made.no_value(panel.empty)
    for letter, query in zip(string.ascii_uppercase, panel.queries, strict=False):
        made.with_target(_target(panel, query, every).ref_id(letter))
    return made


def _of_kind(panel: Panel) -> AnyPanel:
    if panel.kind == "stat":
        return _stat()
    if panel.kind == "table":
        return _table()
    return _timeseries(with_line=bool(panel.alerts))


def _stat() -> stat.Panel:
    last = common_builders.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False)
    return (
        stat.Panel()
        .reduce_options(last)
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
    )


def _table() -> table.Panel:
    # Only the labels matter.
    without = {"Time": True, "Value": True}
    return table.Panel().with_transformation(
        dashboard.DataTransformerConfig(id_val="organize", options={"excludeByName": without})
    )


def _timeseries(*, with_line: bool) -> timeseries.Panel:
    style = common.GraphThresholdsStyleMode.DASHED if with_line else common.GraphThresholdsStyleMode.OFF
    return (
        timeseries.Panel()
        .min(0)
        .color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC))
        .show_points(common.VisibilityMode.AUTO)
        .thresholds_style(common_builders.GraphThresholdsStyleConfig().mode(style))
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )


def _steps(panel: Panel) -> list[dashboard.Threshold]:
    # Without thresholds, Grafana applies its default, which is red from 80.
    found: Sequence[alert_thresholds.Step] = [(-math.inf, NEUTRAL)]
    if panel.alerts:
        found = alert_thresholds.steps(panel.alerts, whole=panel.unit == COUNT)
    elif panel.steps:
        found = [(-math.inf, alert_thresholds.GOOD), *panel.steps]
    return [dashboard.Threshold(value=_number(value), color=colour) for value, colour in found]


def _number(value: float) -> float | None:
    """Return a value for JSON: null for minus infinity, and 7200 for 7200.0."""
    if math.isinf(value):
        return None
    return int(value) if value == int(value) else value


def _description(panel: Panel) -> str:
    """Return the panel's description, including the alerts that judge it."""
    if not panel.alerts:
        return panel.description
    severities = alert_thresholds.severities()
    alerts = " and ".join(f"{alert} ({severities[alert]})" for alert in panel.alerts)
    return f"{panel.description} Judged by {alerts}."


def _words(panel: Panel) -> list[Any]:
    words = {
        str(value): dashboard.ValueMappingResult(text=text, index=place)
        for place, (value, text) in enumerate(panel.values.items())
    }
    return [dashboard.ValueMap(options=words)]


def _target(panel: Panel, query: Query, every: str) -> prometheus.Dataquery:
    made = (
        prometheus.Dataquery()
        .datasource(DATASOURCE)
        .expr(query.expression)
        .legend_format(query.legend)
        .editor_mode(QueryEditorMode.CODE)
    )
    if panel.kind == "timeseries":
        return made.range().interval(every)
    if panel.kind == "table":
        made.format(PromQueryFormat.TABLE)
    return made.instant()
