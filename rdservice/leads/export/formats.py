"""Leads as lines: NDJSON for programs, CSV for people."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol

Format = Literal["ndjson", "csv"]

LISTED_COLUMNS = ("uuid", "name", "email", "last_conversion_date", "created_at")
OTHER_COLUMNS = ("tags", "legal_bases")
"""Of a full record, beside the fields that the account defines."""
UTF8_MARK = b"\xef\xbb\xbf"
"""Without it Excel takes UTF-8 for the machine's own encoding."""
BEGINS_A_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""https://owasp.org/www-community/attacks/CSV_Injection"""

Lead = dict[str, Any]


class Lines(Protocol):
    """How leads are written. `head` comes once, before the first lead of an export."""

    content_type: str

    def head(self) -> bytes: ...

    def lines(self, leads: Iterable[Lead]) -> bytes: ...


class Ndjson:
    """A JSON object a line."""

    content_type = "application/x-ndjson"

    def head(self) -> bytes:
        return b""

    def lines(self, leads: Iterable[Lead]) -> bytes:
        text = "".join(_json(lead) + "\n" for lead in leads)
        # RD Station's JSON may hold half a surrogate pair, which no UTF-8 can.
        return text.encode("utf-8", "replace")


class Csv:
    """RFC 4180 with a header line and fixed columns.

    A cell that a spreadsheet would take for a formula begins with an apostrophe. Lists of texts are joined with `; `,
    anything deeper is JSON.
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
    """Return the columns of full records for an account with these fields."""
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
