"""The Grafana dashboard as it is committed, and its queries as trees."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser as promql

from dev.dashboards.__main__ import DASHBOARD

RATE_INTERVAL_S = 8_869_990
"""Stands for $__rate_interval, which is no PromQL until Grafana has put a time there. Nobody would write it."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One query of a panel, both as Grafana has them."""

    panel: dict[str, Any]
    target: dict[str, Any]

    @property
    def title(self) -> str:
        return str(self.panel["title"])

    @property
    def expression(self) -> str:
        return str(self.target["expr"])

    @property
    def tree(self) -> promql.Expr:
        return parse(self.expression)


def load() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the panels that show something, without the rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def targets(dashboard: dict[str, Any]) -> list[Target]:
    return [
        Target(panel=panel, target=target)
        for panel in panels(dashboard)
        for target in panel.get("targets", [])
    ]


def parse(expression: str) -> promql.Expr:
    """Return the tree of a query. Raises ValueError where it is no PromQL."""
    return promql.parse(expression.replace("$__rate_interval", f"{RATE_INTERVAL_S}s"))


def nodes(tree: promql.Expr) -> Iterator[tuple[promql.Expr, list[promql.Expr]]]:
    """Yield each node of a tree with its ancestors, the nearest last."""
    found: list[tuple[promql.Expr, list[promql.Expr]]] = []
    above: list[promql.Expr] = []

    def enter(node: promql.Expr) -> None:
        found.append((node, list(above)))
        above.append(node)

    def leave(_node: promql.Expr) -> None:
        above.pop()

    promql.walk(tree, enter, leave)
    yield from found


def selectors(tree: promql.Expr) -> list[promql.VectorSelector]:
    return [node for node, _ in nodes(tree) if isinstance(node, promql.VectorSelector)]


def comparable(tree: promql.Expr) -> str:
    """Return a query without the matchers of jobs, and with no window in a rate: what it is about."""
    text = re.sub(r'job=~"[^"]*",?', "", tree.prettify()).replace(",}", "}").replace("{}", "")
    return re.sub(r"\brate\(([^\[\]]*)\[\w+\]", r"rate(\1[]", re.sub(r"\s+", "", text))
