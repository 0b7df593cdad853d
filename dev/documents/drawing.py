"""Draws diagrams for the documents as SVG: boxes on a grid with arrows, from a text file beside this module."""

import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from dev.documents.tables import Language

SOURCES = [Path(__file__).with_name("processes.toml")]
COLUMN, ROW, GAP, EDGE = 230, 92, 44, 20
LINE = 19
FILLS = {"ours": "#d9edf5", "state": "#e4efe0", "other": "#f2f2f2"}
HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="14"'
    ' text-anchor="middle">\n'
    '<marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8"'
    ' orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="#456"/></marker>\n'
    '<rect width="{width}" height="{height}" rx="8" fill="#fff"/>\n'
)


class Rectangle(NamedTuple):
    left: int
    top: int
    right: int
    bottom: int


def drawings(language: Language) -> Iterator[tuple[str, str]]:
    """Yield each drawing as its file's name and its SVG."""
    for source in SOURCES:
        yield f"{source.stem}.svg", _svg(tomllib.loads(source.read_text(encoding="utf-8")), language)


def _svg(drawing: dict[str, Any], language: Language) -> str:
    places = {name: _rectangle(*box["place"]) for name, box in drawing["boxes"].items()}
    width = max(place.right for place in places.values()) + EDGE
    height = max(place.bottom for place in places.values()) + EDGE
    parts = [HEAD.format(width=width, height=height)]
    for arrow in drawing["arrows"]:
        start, end = (places[name] for name in arrow["ends"])
        parts += _arrow(start, end, both=arrow.get("both", False), label=arrow.get(language, ""))
    for name, box in drawing["boxes"].items():
        parts += _box(places[name], FILLS[box.get("kind", "other")], box[language])
    return "".join([*parts, "</svg>\n"])


def _rectangle(column: int, row: int, columns: int, rows: int) -> Rectangle:
    left, top = EDGE + column * (COLUMN + GAP), EDGE + row * (ROW + GAP)
    return Rectangle(left, top, left + columns * (COLUMN + GAP) - GAP, top + rows * (ROW + GAP) - GAP)


def _box(place: Rectangle, fill: str, lines: list[str]) -> Iterator[str]:
    size = f'width="{place.right - place.left}" height="{place.bottom - place.top}"'
    yield f'<rect x="{place.left}" y="{place.top}" {size} rx="6" fill="{fill}" stroke="#456"/>\n'
    x, middle = (place.left + place.right) // 2, (place.top + place.bottom) // 2
    for number, line in enumerate(lines):
        y = middle + 5 + (2 * number - len(lines) + 1) * LINE // 2
        weight = ' font-weight="bold"' if number == 0 else ""
        yield f'<text x="{x}" y="{y}"{weight}>{escape(line)}</text>\n'


def _arrow(start: Rectangle, end: Rectangle, *, both: bool, label: str) -> Iterator[str]:
    """Draw a straight line between the facing sides of two boxes."""
    left, right = max(start.left, end.left), min(start.right, end.right)
    if left < right:
        x1 = x2 = (left + right) // 2
        y1, y2 = (start.bottom, end.top) if start.top < end.top else (start.top, end.bottom)
    else:
        y1 = y2 = (max(start.top, end.top) + min(start.bottom, end.bottom)) // 2
        x1, x2 = (start.right, end.left) if start.left < end.left else (start.left, end.right)
    tips = 'marker-end="url(#tip)"' + (' marker-start="url(#tip)"' if both else "")
    yield f'<path d="M{x1} {y1}L{x2} {y2}" stroke="#456" stroke-width="1.5" {tips}/>\n'
    if label:
        place = f'x="{(x1 + x2) // 2 + 8}" y="{(y1 + y2) // 2 + 5}"'
        yield f'<text {place} text-anchor="start" font-size="13" fill="#345">{escape(label)}</text>\n'
