"""Telephone numbers and CPFs are removed from text; ids, times and quantities stay."""

import string
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdservice.logs import redaction

redact = redaction.redactor([])

PHONES = [
    "(11) 98888-7777",
    "(11)988887777",
    "(011) 9 8888-7777",
    "(85) 3222-4444",
    "+55 (11) 98888-7777",
    "55 11 98888-7777",
    "5511988887777",
    "551132224444",
    "005511988887777",
    "55-11-98888-7777",
    "5511 988887777",
    "11 98888-7777",
    "11 9 8888 7777",
    "11.98888.7777",
    "11-98888-7777",
    "11988887777",
    "011988887777",
    "11 3222-4444",
    "98888-7777",
    "(11)\u00a098888\u20117777",
]
CPFS = ["529.982.247-25", "52998224725", "529982247-25", "529.982.24725", "111.444.777-35", "012.345.678-90"]
AROUND = [
    "{}",
    "phone {} of a lead",
    '{{"personal_phone":"{}"}}',
    "tel:{}",
    "x_{}",
    "a {},{}",
    "{}.",
    "loja-{}",
]


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("number", PHONES + CPFS)
def test_no_telephone_number_and_no_cpf_stays(number: str, around: str) -> None:
    shown = redact(around.format(number, number))
    assert shown == around.format(redaction.BLOT, redaction.BLOT)


@given(
    ddd=st.sampled_from([11, 19, 21, 48, 55, 61, 79, 85, 99]),
    digits=st.text(string.digits, min_size=8, max_size=8),
    form=st.sampled_from(["({0}) 9{1}-{2}", "55{0}9{1}{2}", "{0}9{1}{2}", "55 {0} 9{1} {2}", "{0} 9{1}-{2}"]),
)
def test_no_mobile_number_stays_however_it_is_written(ddd: int, digits: str, form: str) -> None:
    assert redact(f"x {form.format(ddd, digits[:4], digits[4:])} y") == f"x {redaction.BLOT} y"


def _with_check_digits(first: str) -> str:
    """Return the CPF that begins with these nine digits."""
    for weight in (10, 11):
        left = sum(int(digit) * (weight - place) for place, digit in enumerate(first)) % 11
        first += str(0 if left < 2 else 11 - left)
    return first


@given(st.text(string.digits, min_size=9, max_size=9).filter(lambda digits: len(set(digits)) > 1))
def test_a_cpf_is_known_by_its_check_digits(first: str) -> None:
    cpf = _with_check_digits(first)
    for written in (cpf, f"{cpf[:3]}.{cpf[3:6]}.{cpf[6:9]}-{cpf[9:]}"):
        assert redact(f"cpf {written}") == f"cpf {redaction.BLOT}"
    for wrong in (cpf[:9] + f"{(int(cpf[9:]) + 1) % 100:02d}", cpf[:9] + f"{(int(cpf[9:]) + 50) % 100:02d}"):
        written = f"{wrong[:3]}.{wrong[3:6]}.{wrong[6:9]}-{wrong[9:]}"
        assert redact(written) == written


MOMENTS = st.datetimes(
    datetime.fromisoformat("2001-09-09"), datetime.fromisoformat("2100-01-01"), timezones=st.just(UTC)
)
STAYING = st.one_of(
    st.integers(0, 9_999_999_999).map("claim {}".format),
    st.integers(0, 9_999_999_999).map("{} bytes".format),
    st.integers(0, 65_535).map("http://127.0.0.1:{}/rd/leads".format),
    st.integers(100, 599).map("HTTP {}".format),
    st.uuids().map(str),
    st.text("0123456789", min_size=32, max_size=32).map(
        lambda d: f"{d[:8]}-{d[8:12]}-{d[12:16]}-{d[16:20]}-{d[20:]}"
    ),
    st.text("0123456789abcdef", min_size=16, max_size=16).filter(lambda text: not text.isdigit()),
    st.floats(0, 1e6).map("took {} s".format),
    st.floats(0, 99.999_999_999).map("took {:.9f} s".format),
    st.timedeltas(timedelta(0), timedelta(days=900)).map(str),
    MOMENTS.map(datetime.isoformat),
    MOMENTS.map(lambda moment: moment.strftime("%Y-%m-%d %H:%M:%S.%f")),
    MOMENTS.map(lambda moment: moment.strftime("%Y%m%dT%H%M%S")),
    MOMENTS.map(lambda moment: str(int(moment.timestamp()))),
    MOMENTS.map(lambda moment: str(int(moment.timestamp() * 1_000))),
    MOMENTS.map(lambda moment: str(moment.timestamp())),
    MOMENTS.map(lambda moment: str(int(moment.timestamp() * 1_000_000_000))),
    st.ip_addresses(v=4).map(str),
)


@given(st.lists(STAYING, min_size=1, max_size=4))
def test_ids_times_and_quantities_stay(parts: list[str]) -> None:
    line = ", ".join(parts)
    assert redact(line) == line


@pytest.mark.parametrize(
    "line",
    [
        "06:39:31.123 INFO    rdservice.worker: refreshed 12 of 3000 accounts [claim 1234567]",
        "the pool has 11 of 16 connections (9 idle)",
        "Listening at: http://127.0.0.1:8000 (12345)",
        "[2026-11-30 06:39:31 +0000] [11] [INFO] Booting worker with pid: 98765",
        "bytes 90000-99999/5511988",
        "ports 49152-65535, years 2025-2026",
        "CEP 01310-100",
        "PostgreSQL 15.14 (Debian 15.14-0+deb12u1)",
        "Applied migration 0023 own_search_path.",
        "000.000.000-00 is no CPF, nor is 11111111111",
    ],
)
def test_lines_of_programs_stay(line: str) -> None:
    assert redact(line) == line


@given(st.sampled_from(["1", "11 ", "(11", "(11) 9", "55", "529.", "9-", "98888-", "0 "]))
def test_a_long_line_of_digits_costs_its_length(piece: str) -> None:
    redact(piece * (400_000 // len(piece)))
