"""The definition of a panel."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from grafana_foundation_sdk.models import units

Kind = Literal["stat", "timeseries", "table"]

COUNT = units.Short
RATE = units.RequestsPerSecond
RATIO = units.PercentUnit
SECONDS = units.Seconds


@dataclass(frozen=True, kw_only=True)
class Query:
    """PromQL, and how its series are named: `{{label}}` stands for a label's value."""

    expression: str
    legend: str = "{{job}}"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """`width` is of the 24 columns of a row. `values`: words in place of numbers."""

    title: str
    description: str
    kind: Kind = "timeseries"
    unit: str
    width: int
    queries: Sequence[Query]
    alerts: Sequence[str] = ()
    values: dict[int, str] = field(default_factory=dict)
    empty: str | None = None
    """The text for a panel without series; None: Grafana's default."""
    steps: Sequence[tuple[float, str]] = ()
    """Thresholds of a panel that no alert judges: value to colour."""


@dataclass(frozen=True, kw_only=True)
class Row:
    title: str
    panels: Sequence[Panel]
