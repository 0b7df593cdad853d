"""Times in the reader's zone, distances and numbers in the reader's language."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask, render_template_string

from rdservice.web.text import datetimes
from tests.support.browser import Browser

NOON = datetime(2026, 7, 1, 12, 0, 5, tzinfo=UTC)


def element(
    app: Flask, zone: str | None, language: str = "en", source: str = "{{ noon | local_time }}"
) -> str:
    headers = {"Accept-Language": language}
    if zone is not None:
        headers["Cookie"] = f"{datetimes.COOKIE}={zone}"
    with app.test_request_context(headers=headers):
        return render_template_string(source, noon=NOON, later=NOON + timedelta(hours=5))


@pytest.mark.parametrize(
    ("zone", "hour"),
    [
        ("America/Sao_Paulo", 9),
        ("Europe/Lisbon", 13),
        ("Asia/Kolkata", 17),
        ("America/Argentina/Buenos_Aires", 9),
        ("Etc/GMT+5", 7),
        ("UTC", 12),
    ],
)
def test_times_are_in_the_zone_of_the_browsers_cookie(app: Flask, zone: str, hour: int) -> None:
    minute = 30 if zone == "Asia/Kolkata" else 0
    text = element(app, zone, "pt-BR")
    assert re.fullmatch(
        r'<time datetime="2026-07-01T12:00:05\+00:00" title="[^"<>]+">'
        rf"1 de jul\. de 2026,? {hour:02}:{minute:02}:05</time>",
        text,
    )


@pytest.mark.parametrize(
    "zone",
    [
        None,
        "",
        "Mars/Base",
        "America",
        "../../../../etc/passwd",
        "/etc/passwd",
        "tzdata.zi",
        "leapseconds",
        "zone1970.tab",
        "America/Sao_Paulo/",
        "America//Sao_Paulo",
        "a" * 4000,
        "%2e%2e%2fetc",
        "\xe9",
        "Am erica",
        '"<script>"',
    ],
)
def test_without_a_zone_that_exists_times_are_those_of_sao_paulo(app: Flask, zone: str | None) -> None:
    assert element(app, zone) == element(app, datetimes.DEFAULT)


def test_a_time_names_its_zone_when_pointed_at(app: Flask) -> None:
    assert 'title="July 1, 2026, 1:00:05\u202fPM +0100"' in element(app, "Europe/Lisbon")
    assert element(app, "Asia/Kolkata", source="{{ zone_words() }}") == "India Time (Asia/Kolkata)"
    assert element(app, None, "pt", "{{ zone_words() }}") == "Horário de Brasília (America/Sao_Paulo)"
    assert element(app, "UTC", source="{{ zone_words() }}") == "UTC"
    assert element(app, "Etc/GMT+3", source="{{ zone_words() }}") == "Etc/GMT+3"


def test_distances_are_in_words(app: Flask) -> None:
    def distance(source: str, language: str) -> str:
        return re.sub(r"<[^>]+>", "", element(app, None, language, source).split("</time>")[1])

    assert distance("{{ later | local_time(noon) }}", "en") == " (in 5 hours)"
    assert distance("{{ noon | local_time(later) }}", "en") == " (5 hours ago)"
    assert distance("{{ later | local_time(noon) }}", "pt-BR") == " (daqui a 5 horas)"
    assert distance("{{ noon | local_time(later) }}", "pt-BR") == " (há 5 horas)"
    assert distance("{{ noon | local_time(noon) }}", "en") == " (now)"
    assert distance("{{ noon | local_time }}", "en") == ""


def test_numbers_have_the_separators_of_the_language(app: Flask) -> None:
    assert element(app, None, "en", "{{ 1234567.5 | number }}") == "1,234,567.5"
    assert element(app, None, "pt-BR", "{{ 1234567.5 | number }}") == "1.234.567,5"


def test_pages_of_operators_say_which_zone_they_use(signed_in: Browser) -> None:
    assert "Time zone: Brasilia Time (America/Sao_Paulo)" in signed_in.get("/audit").text
    signed_in.client.set_cookie(datetimes.COOKIE, "Europe/Lisbon")
    assert "(Europe/Lisbon)" in signed_in.get("/audit").text
    assert '<script src="/static/zone.js" defer></script>' in signed_in.get("/audit").text
