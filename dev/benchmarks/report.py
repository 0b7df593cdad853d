"""Figures, and their presentation: a table for people, JSON for programs."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

QUICK_SHARE = 0.9
"""Share of a goal that a quick run, whose figures are rough, must reach."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A limit that the figure should meet."""

    kind: Literal["at least", "at most"]
    value: float

    def is_met_by(self, figure: float) -> bool:
        return figure >= self.value if self.kind == "at least" else figure <= self.value

    def share_reached_by(self, figure: float) -> float:
        """How near the figure is: 1 where the goal is met, less where it is not."""
        if self.is_met_by(figure):
            return 1.0
        return figure / self.value if self.kind == "at least" else self.value / figure


def at_least(value: float) -> Goal:
    return Goal(kind="at least", value=value)


def at_most(value: float) -> Goal:
    return Goal(kind="at most", value=value)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure. `key` names it in the JSON, `text` in the table; `spread` is smallest and largest of its rounds."""

    key: str
    text: str
    figure: float
    unit: str = ""
    spread: tuple[float, float] | None = None
    goal: Goal | None = None

    @classmethod
    def of_rounds(
        cls, key: str, text: str, rounds: Sequence[float], *, unit: str = "", goal: Goal | None = None
    ) -> Self:
        """The median of `rounds`, with their spread."""
        spread = (min(rounds), max(rounds))
        return cls(key=key, text=text, figure=statistics.median(rounds), unit=unit, spread=spread, goal=goal)

    @property
    def is_met(self) -> bool | None:
        """None without a goal."""
        return None if self.goal is None else self.goal.is_met_by(self.figure)


@dataclass(kw_only=True)
class PartReport:
    """The result of one part: its measures, or the error that ended it."""

    name: str
    seconds: float = 0.0
    measures: list[Measure] = field(default_factory=list)
    error: str | None = None


@dataclass(kw_only=True)
class Report:
    """A whole run. `machine`: facts about the machine, by name."""

    quick: bool
    machine: dict[str, str | int]
    parts: list[PartReport] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether a part could not be measured or a goal is missed; in a quick run, missed by more than a tenth."""
        return any(
            part.error is not None or any(self._falls_short(measure) for measure in part.measures)
            for part in self.parts
        )

    def _falls_short(self, measure: Measure) -> bool:
        if measure.goal is None:
            return False
        if self.quick:
            return measure.goal.share_reached_by(measure.figure) < QUICK_SHARE
        return not measure.is_met

    def as_json(self) -> str:
        return json.dumps(
            {
                "quick": self.quick,
                "machine": self.machine,
                "parts": {part.name: _part_as_json(part) for part in self.parts},
            },
            indent=2,
        )

    def as_table(self) -> str:
        rows = [("", "goal", "figure", "smallest … largest", "")]
        for part in self.parts:
            rows.append((f"{part.name} ({part.seconds:.0f} s)", "", "", "", ""))
            rows += [_row(measure) for measure in part.measures]
            if part.error is not None:
                rows.append((f"  failed: {part.error}", "", "", "", ""))
        widths = [
            max(len(row[column]) for row in rows if not row[0].startswith("  failed: "))
            for column in range(5)
        ]
        lines = [
            f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}  {row[4]}"
            for row in rows
        ]
        facts = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        note = "Quick: small loads and few rounds, so the figures are rough.\n" if self.quick else ""
        return "\n".join(line.rstrip() for line in lines) + f"\n\n{note}{facts}"


def _row(measure: Measure) -> tuple[str, str, str, str, str]:
    goal = measure.goal
    sign = "" if goal is None else ("≥ " if goal.kind == "at least" else "≤ ")
    spread = measure.spread
    verdict = {None: "", True: "met", False: "MISSED"}[measure.is_met]
    return (
        f"  {measure.text}",
        "" if goal is None else sign + _number(goal.value, measure.unit),
        _number(measure.figure, measure.unit),
        "" if spread is None else f"{_number(spread[0], '')} … {_number(spread[1], '')}",
        verdict,
    )


def _number(value: float, unit: str) -> str:
    """About three significant digits."""
    if float(value).is_integer() or abs(value) >= 100:
        return f"{value:,.0f} {unit}".rstrip()
    return f"{value:,.{2 if abs(value) < 10 else 1}f} {unit}".rstrip()


def _part_as_json(part: PartReport) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "seconds": round(part.seconds, 1),
        "measures": {measure.key: _measure_as_json(measure) for measure in part.measures},
    }
    return shown if part.error is None else shown | {"error": part.error}


def _measure_as_json(measure: Measure) -> dict[str, Any]:
    goal = measure.goal
    return {
        "text": measure.text,
        "figure": round(measure.figure, 4),
        "unit": measure.unit,
        "spread": None if measure.spread is None else [round(end, 4) for end in measure.spread],
        "goal": None if goal is None else {"kind": goal.kind, "value": goal.value},
        "met": measure.is_met,
        "reached": None if goal is None else round(goal.share_reached_by(measure.figure), 4),
    }
