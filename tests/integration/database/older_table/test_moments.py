"""Whatever an older backend wrote as an expiry: the release reads a moment, or none, and never stops."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rdservice.database.older_table.adopt import MOMENT
from tests.support.outside_data import MOMENTS, NUMBERS, ODD_TEXTS

PIECES = [
    "2026",
    "-",
    "01",
    "31",
    "T",
    " ",
    "25",
    ":",
    "60",
    ".",
    "Z",
    "+",
    "e",
    "E9",
    "99999999999",
    "infinity",
    "now",
]
PIECES += ["epoch", "BC", "UTC", "America/Sao_Paulo", "allballs", "x", "'", "\\", "1e400", "NaN"]
WRITTEN = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    NUMBERS.map(str),
    ODD_TEXTS,
    st.text(max_size=40),
).filter(lambda text: text.isprintable() or text.isspace())
"""What PostgreSQL can hold as text."""


@pytest.fixture(scope="module")
def moments(server: Any) -> Iterator[psycopg.Connection[Any]]:
    """A connection with the function that adopts an expiry."""
    with psycopg.connect(server.url, autocommit=True) as conn:
        conn.execute(MOMENT)
        yield conn


def moment(conn: psycopg.Connection[Any], written: str) -> datetime | None:
    row = conn.execute("SELECT pg_temp.moment(%s)", [written]).fetchone()
    assert row is not None
    found: datetime | None = row[0]
    return found


@given(written=WRITTEN)
@example(written="9" * 400)
@example(written="1e999999999")
@example(written="2026-01-01 00:00 Nowhere/Land")
def test_any_text_is_a_moment_of_our_times_or_none(moments: psycopg.Connection[Any], written: str) -> None:
    found = moment(moments, written)
    assert found is None or datetime(1970, 1, 1, tzinfo=UTC) <= found <= datetime(9999, 12, 31, tzinfo=UTC)


@given(at=MOMENTS, places=st.sampled_from([0, 3, 6, 9]))
def test_a_time_since_1970_is_the_same_in_all_its_units(
    moments: psycopg.Connection[Any], at: datetime, places: int
) -> None:
    seconds = int(at.timestamp())
    # Nearer to 1970 than the units can tell apart.
    if seconds < 10**8 * 2 or seconds > 10**11:
        return
    assert moment(moments, str(seconds * 10**places)) == at


@given(at=MOMENTS, offset_h=st.integers(-12, 14))
def test_a_date_means_its_offset_and_utc_without_one(
    moments: psycopg.Connection[Any], at: datetime, offset_h: int
) -> None:
    if at.year > 9900:
        return
    local = (at + timedelta(hours=offset_h)).strftime("%Y-%m-%d %H:%M:%S") if at.year > 1970 else None
    if local is not None:
        assert moment(moments, f"{local}{offset_h:+03d}:00") == at
    assert (
        moment(moments, at.strftime("%Y-%m-%dT%H:%M:%SZ"))
        == moment(moments, at.strftime("%Y-%m-%d %H:%M:%S"))
        == at
    )
