"""Writes leads as lines: NDJSON for programs, CSV for people."""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol

Format = Literal["ndjson", "csv"]

LISTED_COLUMNS = ("uuid", "name", "email", "last_conversion_date", "created_at")
OTHER_COLUMNS = ("tags", "legal_bases")
"""Columns of a full record besides the listed ones and the account's fields."""
UTF8_MARK = b"\xef\xbb\xbf"
"""The byte order mark. Without it Excel reads the file in the machine's own encoding."""
FORMULA = "=+@＝＋－＠﹦﹢﹣﹫-"
BEGINS_A_FORMULA = tuple(FORMULA + "\t\r\n")
"""A cell with such a beginning is a formula: https://owasp.org/www-community/attacks/CSV_Injection"""
BORDER = r',;:|~^"\s\x00-\x1f\ufeff'
"""Where a program that splits at another separator than the comma, or does not know quotes, begins a new cell. Quotes
and blanks may stand between the separator and the text."""
FORMULA_AT_BORDER = re.compile(rf"(?<![{BORDER}])[{BORDER}]++(?=[{FORMULA}])")

Lead = dict[str, Any]


class Lines(Protocol):
    """A format of leads. Write `head` once, before the first lead of an export."""

    content_type: str

    def head(self) -> bytes: ...

    def lines(self, leads: Iterable[Lead]) -> bytes: ...


class Ndjson:
    """One JSON object per line."""

    content_type = "application/x-ndjson"

    def head(self) -> bytes:
        return b""

    def lines(self, leads: Iterable[Lead]) -> bytes:
        text = "".join(_json(lead) + "\n" for lead in leads)
        # RD Station's JSON may hold an unpaired surrogate, which UTF-8 cannot encode.
        return text.encode("utf-8", "replace")


class Csv:
    """RFC 4180 with a header line and fixed columns.

    What a spreadsheet could read as a formula gets an apostrophe in front, at the beginning of a cell and wherever
    another separator than the comma would begin one. Lists of strings are joined with `; `; other nested values are
    JSON.
    """

    content_type = "text/csv; charset=utf-8; header=present"

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)

    def head(self) -> bytes:
        return UTF8_MARK + self._rows([[_inert(name) for name in self.columns]])

    def lines(self, leads: Iterable[Lead]) -> bytes:
        return self._rows([_cell(lead.get(name)) for name in self.columns] for lead in leads)

    def _rows(self, rows: Iterable[Sequence[str]]) -> bytes:
        written = io.StringIO(newline="")
        csv.writer(written, lineterminator="\r\n").writerows(rows)
        return written.getvalue().encode("utf-8", "replace")


def full_columns(fields: Iterable[str]) -> tuple[str, ...]:
    """Return the columns of full records for an account with these fields, each name once."""
    return tuple(dict.fromkeys((*LISTED_COLUMNS, *fields, *OTHER_COLUMNS)))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        text = value
    elif isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        text = "; ".join(value)
    else:
        text = _json(value)
    return _inert(text)


def _inert(text: str) -> str:
    """Return `text` so that no spreadsheet calculates with it, whichever separator it splits the text at."""
    return FORMULA_AT_BORDER.sub(_with_apostrophe, f"'{text}" if text.startswith(BEGINS_A_FORMULA) else text)


def _with_apostrophe(border: re.Match[str]) -> str:
    between = border.group()
    next_one = border.string[border.end() + 1 : border.end() + 2]
    # Quotes alone begin no cell, and a dash or an equals sign on its own ("Centro - Sul") is no formula.
    is_harmless = not between.strip('"') or (
        border.start() > 0 and not between.strip(" ") and next_one in ("", " ")
    )
    return between if is_harmless else f"{between}'"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
