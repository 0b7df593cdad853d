"""Files of interrupted exports: how many bytes are complete, and which lead is the last complete one."""

import csv
import json
from typing import Any, BinaryIO

from rdservice.errors import InvalidField
from rdservice.leads.export.formats import UTF8_MARK, Format
from rdservice.leads.export.paging import Position
from rdservice.leads.export.run import parse_after


class NotAnExport(Exception):
    """The file is not an export in this format."""


def whole_part(file: BinaryIO, written_as: Format) -> tuple[int, Position | None]:
    """Return the number of complete bytes in the file, and the position of its last complete lead.

    Returns (0, None) for a file without complete leads. Raises NotAnExport.
    """
    file.seek(0)
    end, last = _last_ndjson(file) if written_as == "ndjson" else _last_csv(file)
    if last is None:
        return 0, None
    try:
        return end, parse_after(f"{last['created_at']},{last['uuid']}")
    except (KeyError, TypeError, InvalidField):
        raise NotAnExport from None


def _last_ndjson(file: BinaryIO) -> tuple[int, dict[str, Any] | None]:
    end, line = 0, b""
    for read in file:
        if read.endswith(b"\n"):
            end, line = end + len(read), read
    try:
        return end, json.loads(line) if line else None
    except ValueError:
        raise NotAnExport from None


def _last_csv(file: BinaryIO) -> tuple[int, dict[str, Any] | None]:
    """Find the last complete row. A cell may contain line breaks: a row is complete when its quotation marks pair."""
    end, read_so_far, rows = 0, 0, 0
    header, row, begun = b"", b"", b""
    for read in file:
        read_so_far += len(read)
        begun += read
        if begun.count(b'"') % 2 == 0 and begun.endswith(b"\r\n"):
            header = header or begun
            end, row, rows, begun = read_so_far, begun, rows + 1, b""
    if rows < 2:
        return end, None
    try:
        text = [part.removeprefix(UTF8_MARK).decode() for part in (header, row)]
        names, cells = csv.reader(text, strict=True)
    except (ValueError, csv.Error):
        raise NotAnExport from None
    return end, dict(zip(names, cells, strict=False))
