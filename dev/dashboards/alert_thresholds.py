"""Thresholds for Grafana panels, derived from the alert rules."""

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

RULES = Path(__file__).resolve().parents[2] / "monitoring" / "rules" / "rdservice.yml"
GOOD = "green"
COLOURS = {"warning": "orange", "critical": "red"}

ABOVE, BELOW, EQUAL = (">", ">="), ("<", "<="), ("==",)
BETWEEN_ALERTS = ("and", "or", "unless")
ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}

Step = tuple[float, str]
"""The colour applies from this value up to the next step."""


class NoThresholdError(Exception):
    """An alert does not compare with a constant, or colours cannot show its comparison. The message names it."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """An alert's comparison. `quantity`: PromQL without the comparison; `sign`: PromQL's operator."""

    alert: str
    severity: str
    quantity: promql.Expr
    sign: str
    value: float


def read(alert: str) -> Threshold:
    """Return the first comparison of an alert with a constant. Raises KeyError, NoThresholdError."""
    rule = _rules(RULES)[alert]
    for found in _comparisons(promql.parse(rule["expr"])):
        quantity, value = found.lhs, _constant(found.rhs)
        if _is_now(found.rhs):
            # A time in the past means that no time is left.
            quantity, value = promql.parse(f"{found.lhs.prettify()} - time()"), 0.0
        if value is not None:
            return Threshold(
                alert=alert,
                severity=rule["labels"]["severity"],
                quantity=quantity,
                sign=str(found.op),
                value=value,
            )
    raise NoThresholdError(f"{alert} compares nothing with a constant")


def steps(alerts: Sequence[str], *, whole: bool) -> list[Step]:
    """Return the steps of a panel that these alerts judge; the first step starts at minus infinity.

    `whole`: its values are whole numbers, or, as increases, never less than one; more than 0 is then 1 or more. Raises
    NoThresholdError where some alerts are about high values and others about low ones.
    """
    thresholds = [read(alert) for alert in alerts]
    if thresholds and all(_is_below(threshold) for threshold in thresholds):
        # From worst to best: each colour ends where the next alert's begins.
        ordered = sorted(thresholds, key=lambda threshold: threshold.value)
        ends = [_end(threshold) for threshold in ordered]
        colours = [COLOURS[threshold.severity] for threshold in ordered] + [GOOD]
        return list(zip([-math.inf, *ends], colours, strict=True))
    if any(_is_below(threshold) for threshold in thresholds):
        raise NoThresholdError(f"no colours show what is too high and too low: {', '.join(alerts)}")
    begins = sorted((_begin(threshold, whole=whole), COLOURS[threshold.severity]) for threshold in thresholds)
    return [(-math.inf, GOOD), *begins]


def severities() -> dict[str, str]:
    """Return the severity of each alert, by its name."""
    return {alert: rule["labels"]["severity"] for alert, rule in _rules(RULES).items()}


@cache
def _rules(file: Path) -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(file.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def _comparisons(expression: promql.Expr) -> Iterator[promql.BinaryExpr]:
    """Yield the comparisons of an alert's expression, from left to right."""
    if isinstance(expression, promql.ParenExpr):
        yield from _comparisons(expression.expr)
    elif isinstance(expression, promql.BinaryExpr):
        if str(expression.op) in BETWEEN_ALERTS:
            yield from _comparisons(expression.lhs)
            yield from _comparisons(expression.rhs)
        elif str(expression.op) in ABOVE + BELOW + EQUAL:
            yield expression


def _constant(expression: promql.Expr) -> float | None:
    """Return the value of a constant expression; None for any other."""
    if isinstance(expression, promql.NumberLiteral):
        return expression.val
    if isinstance(expression, promql.BinaryExpr) and str(expression.op) in ARITHMETIC:
        left, right = _constant(expression.lhs), _constant(expression.rhs)
        if left is not None and right is not None:
            # Rounds 14.4 * 0.005 to 0.072, since people read the file.
            return float(f"{ARITHMETIC[str(expression.op)](left, right):.12g}")
    return None


def _is_now(expression: promql.Expr) -> bool:
    return isinstance(expression, promql.Call) and expression.func.name == "time"


def _is_below(threshold: Threshold) -> bool:
    return threshold.sign in BELOW or (threshold.sign in EQUAL and threshold.value == 0)


def _end(threshold: Threshold) -> float:
    """For a count that is bad at 0, every other value is good, from 1 on."""
    return 1.0 if threshold.sign in EQUAL else threshold.value


def _begin(threshold: Threshold, *, whole: bool) -> float:
    return threshold.value + 1 if whole and threshold.sign == ">" else threshold.value
