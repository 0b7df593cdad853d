"""Secrets and people's data that must not come out, and the search for them in any form."""

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus

SHORTEST = 8
PIECE = 12
"""Characters of a long value in a row that are as bad as all of it: 12 of base64 are 72 bits."""
SHORTEST_WITH_PIECES = 24
WHITE_SPACE = re.compile(r"\s+|\\n")


@dataclass(frozen=True)
class Found:
    """A planted value that was seen. Its value stays out of the message of a failed test, which is written to logs."""

    name: str
    form: str
    around: str

    def __str__(self) -> str:
        return f"{self.name} ({self.form}) in: {self.around}"


@dataclass
class Planted:
    """The values by name; `add` them before they are used, or as soon as they are known."""

    values: dict[str, str] = field(default_factory=dict, repr=False)

    def add(self, **values: str) -> None:
        for name, value in values.items():
            assert len(value) >= SHORTEST, f"{name} is too short to be searched for"
            self.values[name] = value

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def found_in(self, text: str, *, shown: Iterable[str] = ()) -> list[Found]:
        """Return what is in `text`, save for the values named `shown`, which are meant to be there.

        A name that ends in `*` stands for all that begin so.
        """
        allowed = {name for wanted in shown for name in self._named(wanted)}
        for name in allowed:
            for _, written in _whole_forms(self.values[name]):
                text = text.replace(written, "<shown>")
        # In pieces over several lines, as base64 and tracebacks are wrapped.
        joined = WHITE_SPACE.sub("", text)
        found = []
        for name, value in self.values.items():
            if name not in allowed:
                found += _first(name, value, text, joined)
        return found

    def _named(self, wanted: str) -> list[str]:
        if wanted.endswith("*"):
            return [name for name in self.values if name.startswith(wanted[:-1])]
        assert wanted in self.values, f"{wanted} was never planted"
        return [wanted]


def _first(name: str, value: str, text: str, joined: str) -> list[Found]:
    for form, written in _forms(value):
        for searched in (text, joined):
            place = searched.find(written)
            if place >= 0:
                before, after = searched[max(0, place - 120) : place], searched[place + len(written) :]
                return [Found(name, form, f"{before[-120:]}<here>{after[:120]}")]
    return []


def _forms(value: str) -> Iterator[tuple[str, str]]:
    yield from _whole_forms(value)
    raw = value.encode()
    for skipped in range(3):
        # Whatever stands before it, the middle of its base64 is one of three.
        encoded = base64.b64encode(b"\0" * skipped + raw).decode().rstrip("=")[skipped + 1 : -1]
        if len(encoded) >= PIECE:
            yield "base64", encoded
            yield "base64", encoded.replace("+", "-").replace("/", "_")
    yield "hexadecimal", raw.hex()
    if len(value) >= SHORTEST_WITH_PIECES:
        # The first part of a JSON Web Token says only that it is one.
        begin = value.find(".") if value.startswith("eyJ") else 0
        for start in range(begin, len(value) - PIECE + 1, PIECE // 2):
            yield "in part", value[start : start + PIECE]


def _whole_forms(value: str) -> Iterator[tuple[str, str]]:
    yield "plain", value
    yield "in a URL", quote(value, safe="")
    yield "in a URL", quote(value)
    yield "in a URL in a URL", quote(quote(value, safe=""))
    yield "in a form", quote_plus(value)
    yield "in JSON", json.dumps(value)[1:-1]
    yield "in JSON in JSON", json.dumps(json.dumps(value))[3:-3]
    yield "in HTML", html.escape(value)
    yield "in Python", repr(value)[1:-1]
    yield "in capital letters", value.upper()
    yield "backwards", value[::-1]
