"""How leads are written: for programs, and for spreadsheets that must not calculate with what strangers typed."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdservice.leads.export.formats import LISTED_COLUMNS, Csv, Ndjson, full_columns
from rdservice.leads.export.resume import NotAnExport, whole_part

UUID = "5408c5a3-4711-4f2e-8d0b-13407a3e30f3"
LEAD = {
    "uuid": UUID,
    "name": "Ana",
    "email": "ana@example.com",
    "created_at": "2026-05-04T10:00:00.000-03:00",
}


def read(written: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(written.decode("utf-8-sig"), newline=""), strict=True))


def rows(*leads: dict[str, Any]) -> list[list[str]]:
    lines = Csv(LISTED_COLUMNS)
    return read(lines.head() + lines.lines(leads))


@pytest.mark.parametrize("begins", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_no_cell_begins_as_a_formula_does(begins: str) -> None:
    _, row = rows(LEAD | {"name": f"{begins}HYPERLINK(1)"})
    assert row[1] == f"'{begins}HYPERLINK(1)"


@pytest.mark.parametrize(
    ("name", "inert"),
    [
        ("Ana;=cmd|'/C calc'!A0;Silva", "Ana;'=cmd|'/C calc'!A0;Silva"),
        ("Ana\t+1+1", "Ana\t'+1+1"),
        ("Ana, -1", "Ana, '-1"),
        ("Ana =1+1", "Ana '=1+1"),
        ("Ana|@SUM(1)", "Ana|'@SUM(1)"),
        # Where quotes are not understood a line break begins a row.
        ("Ana\n=1+1", "Ana\n'=1+1"),
        ('Ana;"=1+1"', 'Ana;"\'=1+1"'),
        ("Ana; ;\0＝1", "Ana; ;\0'＝1"),
        ("\t=1+1", "'\t'=1+1"),
        (" =1+1", " '=1+1"),
    ],
)
def test_no_part_of_a_cell_is_a_formula_for_who_splits_at_another_separator(name: str, inert: str) -> None:
    _, row = rows(LEAD | {"name": name})
    assert row[1] == inert


@pytest.mark.parametrize(
    "name",
    [
        "Loja Centro - Sul",
        "a=b",
        "ana+loja@example.com",
        '<a href="=">',
        "2026-05-04T10:00:00-03:00",
        "Ana -",
    ],
)
def test_what_no_separator_makes_a_formula_stays_as_it_is(name: str) -> None:
    _, row = rows(LEAD | {"name": name})
    assert row[1] == name


def test_header_cells_and_entries_of_lists_are_no_formulas_either() -> None:
    columns = full_columns(["=1+1", "cf;=1+1"])
    lines = Csv(columns)
    header, row = read(lines.head() + lines.lines([LEAD | {"tags": ["a", "=1+1", "b"], "cf;=1+1": ["a;-1"]}]))
    assert header[5:8] == ["'=1+1", "cf;'=1+1", "tags"]
    assert row[6:8] == ["a;'-1", "a; '=1+1; b"]


HOSTILE = st.text(alphabet="a=+-@＝;,|:\t\r\n \"'\0", max_size=12)


@given(name=HOSTILE, tags=st.lists(HOSTILE, max_size=3), field=HOSTILE)
@pytest.mark.parametrize("separator", [*",;|:\t "])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_NONE])
def test_whichever_separator_splits_a_file_no_cell_of_it_is_calculated(
    separator: str, quoting: Any, name: str, tags: list[str], field: str
) -> None:
    lines = Csv((*LISTED_COLUMNS, field, "tags"))
    text = (lines.head() + lines.lines([LEAD | {"name": name, "tags": tags, field: name}])).decode(
        "utf-8-sig"
    )
    split = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting)
    for cell in (cell for row in split for cell in row):
        assert not cell.lstrip().startswith(("=", "+", "-", "@", "＝")) or cell.strip(" =+-@＝") == "", cell


@given(name=st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_whatever_a_name_holds_stays_in_its_cell(name: str) -> None:
    header, row = rows(LEAD | {"name": name})
    assert header == list(LISTED_COLUMNS)
    assert len(row) == len(LISTED_COLUMNS)
    assert row[1].replace("'", "") == name.replace("'", "")


def test_csv_is_utf_8_with_a_mark_and_lines_that_end_as_rfc_4180_says() -> None:
    lines = Csv(LISTED_COLUMNS)
    assert lines.head() == b"\xef\xbb\xbfuuid,name,email,last_conversion_date,created_at\r\n"
    assert lines.lines([LEAD | {"name": "João"}]).endswith(b"\r\n")
    assert "João".encode() in lines.lines([LEAD | {"name": "João"}])


def test_lists_and_objects_of_full_records_have_a_form_in_csv() -> None:
    columns = full_columns(["name", "cf_segmento", "email"])
    assert columns == (*LISTED_COLUMNS, "cf_segmento", "tags", "legal_bases")
    record = LEAD | {"tags": ["a", "b"], "legal_bases": [{"type": "consent"}], "cf_segmento": 5}
    (row,) = read(Csv(columns).lines([record]))
    assert row[5:] == ["5", "a; b", '[{"type":"consent"}]']


def test_ndjson_has_an_object_a_line_whatever_it_holds() -> None:
    leads = [LEAD | {"name": "João\nSilva"}, LEAD | {"name": "\ud800"}]
    first, second, end = Ndjson().lines(leads).decode().split("\n")
    assert (json.loads(first), json.loads(second)["name"], end) == (leads[0], "?", "")


@given(names=st.lists(st.text(alphabet='a"\r\n,é'), min_size=1, max_size=4), cut=st.integers(0, 60))
@pytest.mark.parametrize("written_as", ["csv", "ndjson"])
def test_a_file_that_was_cut_anywhere_is_whole_up_to_its_last_complete_lead(
    written_as: Any, names: list[str], cut: int
) -> None:
    lines = Csv(LISTED_COLUMNS) if written_as == "csv" else Ndjson()
    leads = [LEAD | {"name": name, "uuid": f"{UUID[:-1]}{number}"} for number, name in enumerate(names)]
    parts = [lines.head(), *(lines.lines([lead]) for lead in leads)]
    whole = b"".join(parts)
    end, after = whole_part(io.BytesIO(whole[: max(0, len(whole) - cut)]), written_as)
    complete = next(
        n for n in range(len(parts), -1, -1) if n == 0 or len(b"".join(parts[:n])) <= len(whole) - cut
    )
    if complete < 2:
        assert (end, after) == (0, None)
    else:
        assert end == len(b"".join(parts[:complete]))
        assert after is not None
        assert after.uuid == leads[complete - 2]["uuid"]


@pytest.mark.parametrize("written_as", ["csv", "ndjson"])
def test_another_file_is_no_export(written_as: Any) -> None:
    with pytest.raises(NotAnExport):
        whole_part(io.BytesIO(b'"a","b"\r\n"c","d"\r\n[1]\r\n'), written_as)
