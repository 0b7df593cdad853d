"""The charts of the status page: calls to RD Station and leads served in each of the last 24 hours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from flask_babel import format_datetime

from rdservice.metrics import store as metric_totals
from rdservice.metrics.store import Hour
from rdservice.web.text.datetimes import number_words
from rdservice.web.text.languages import gettext

WIDTH, HEIGHT = 480.0, 96.0
GAP = 4.0
LEAST = 3.0
"""Minimum height of a part, so that one failure among thousands of calls is visible."""

CALLS, LEADS = "rdstation_api_requests_total", "rdstation_leads_served_total"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A rectangle of a bar. `kind`: its pattern: good, other or poor."""

    kind: str
    y: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """The bar of an hour: its parts from bottom to top, and their description in words."""

    x: float
    width: float
    parts: list[Part]
    hour: str
    numbers: list[str]
    words: str
    empty: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart with 24 bars, a legend and a summary. `top`: the number at the top of the scale."""

    metric: str
    """Identifies the chart in the page."""
    title: str
    summary: str
    bars: list[Bar]
    legend: list[tuple[str, str, str]]
    """Kind, text and number of each part."""
    top: str
    first_hour: str
    empty: bool
    width: float = WIDTH
    height: float = HEIGHT


def read(conn: psycopg.Connection[Any]) -> list[Chart]:
    """Return both charts for this request's reader."""
    hours = metric_totals.hourly(conn)
    return [_calls(hours), _leads(hours)]


def _calls(hours: list[Hour]) -> Chart:
    kinds = [
        ("good", gettext("succeeded"), lambda hour: _count(hour, CALLS, "2xx")),
        ("other", gettext("refused (3xx, 4xx)"), lambda hour: _count(hour, CALLS, "3xx", "4xx")),
        ("poor", gettext("failed or unanswered"), lambda hour: _count(hour, CALLS, "5xx", "none")),
    ]
    return _chart("calls", gettext("Calls to RD Station"), hours, kinds)


def _leads(hours: list[Hour]) -> Chart:
    kinds = [
        ("good", gettext("from the cache"), lambda hour: _count(hour, LEADS, "hit")),
        ("other", gettext("fetched fresh"), lambda hour: _count(hour, LEADS, "miss")),
        ("poor", gettext("out of date"), lambda hour: _count(hour, LEADS, "stale")),
    ]
    return _chart("leads", gettext("Answers with leads"), hours, kinds)


def _count(hour: Hour, name: str, *kinds: str) -> int:
    return round(sum(hour.counts.get((name, kind), 0.0) for kind in kinds))


def _chart(
    metric: str, title: str, hours: list[Hour], kinds: list[tuple[str, str, Callable[[Hour], int]]]
) -> Chart:
    numbers = [[count(hour) for _, _, count in kinds] for hour in hours]
    totals = [sum(column) for column in zip(*numbers, strict=True)]
    highest = max(sum(row) for row in numbers)
    legend = [
        (kind, words, number_words(total)) for (kind, words, _), total in zip(kinds, totals, strict=True)
    ]
    bars = [
        _bar(place, hour, row, kinds, highest)
        for place, (hour, row) in enumerate(zip(hours, numbers, strict=True))
    ]
    return Chart(
        metric=metric,
        title=title,
        summary=gettext("Last 24 hours: %(numbers)s.", numbers=_listed(legend)),
        bars=bars,
        legend=legend,
        top=number_words(highest),
        first_hour=bars[0].hour,
        empty=highest == 0,
    )


def _bar(
    place: int,
    hour: Hour,
    row: list[int],
    kinds: list[tuple[str, str, Callable[[Hour], int]]],
    highest: int,
) -> Bar:
    step = WIDTH / 24
    parts, floor = [], HEIGHT
    for (kind, _, _), number in zip(kinds, row, strict=True):
        if number:
            height = max(LEAST, number / highest * (HEIGHT - len(kinds) * LEAST))
            floor -= height
            parts.append(Part(kind=kind, y=round(floor, 1), height=round(height, 1)))
    hour_words = str(format_datetime(hour.start, "HH:mm"))
    said = [(kind, words, number_words(number)) for (kind, words, _), number in zip(kinds, row, strict=True)]
    return Bar(
        x=place * step + GAP / 2,
        width=step - GAP,
        parts=parts,
        hour=hour_words,
        numbers=[number for _, _, number in said],
        words=gettext("From %(hour)s: %(numbers)s", hour=hour_words, numbers=_listed(said)),
        empty=not any(row),
    )


def _listed(counts: list[tuple[str, str, str]]) -> str:
    return ", ".join(f"{number} {words}" for _, words, number in counts)
