"""Writes leads as lines: NDJSON for programs, CSV for people."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol

Format = Literal["ndjson", "csv"]

LISTED_COLUMNS = ("uuid", "name", "email", "last_conversion_date", "created_at")
OTHER_COLUMNS = ("tags", "legal_bases")
"""Columns of a full record besides the listed ones and the account's fields."""
UTF8_MARK = b"\xef\xbb\xbf"
"""The byte order mark. Without it Excel reads the file in the machine's own encoding."""
BEGINS_A_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""A cell with such a beginning is a formula: https://owasp.org/www-community/attacks/CSV_Injection"""

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

    A cell that a spreadsheet would read as a formula gets a leading apostrophe. Lists of strings are joined with `; `;
    other nested values are JSON.
    """

    content_type = "text/csv; charset=utf-8; header=present"

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)

    def head(self) -> bytes:
        return UTF8_MARK + self._rows([self.columns])

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
    return f"'{text}" if text.startswith(BEGINS_A_FORMULA) else text


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
