"""The charts of the overview, and the timeline of an account: what they show, and what they say in words."""

import re
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from flask import Flask

from rdservice.metrics import store as metric_totals
from rdservice.metrics.definitions import Series
from rdservice.metrics.store import Batch
from rdservice.services import Services
from rdservice.tokens import workers
from tests.conftest import Clock
from tests.integration.web.conftest import EMAIL, PASSWORD
from tests.support.accounts import connect_account
from tests.support.browser import Browser

Conn = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def _an_account(services: Services, conn: Conn) -> None:
    connect_account(services, due=False)
    workers.beat(conn, "worker-1")


def leads(cache: str) -> Series:
    return "rdstation_leads_served_total", (("cache", cache),)


def calls(status_class: str, operation: str = "contacts_list") -> Series:
    return "rdstation_api_requests_total", (("operation", operation), ("status_class", status_class))


def count(conn: Conn, deltas: dict[Series, float]) -> None:
    metric_totals.add(conn, Batch(process=uuid4(), sequence=1, deltas=deltas))


def figure(browser: Browser, metric: str, language: str = "en", path: str = "/") -> str:
    page = browser.get(path, {"Accept-Language": language}).text
    found = re.search(rf'<figure class="card chart"[^>]* data-chart="{metric}">.*?</figure>', page, re.S)
    assert found
    return found[0]


def summary(shown: str) -> str:
    (words,) = re.findall(r"<figcaption[^>]*>(.*?)</figcaption>", shown)
    return str(words)


@pytest.mark.usefixtures("operator")
def test_the_numbers_are_those_of_all_processes_in_the_last_24_hours(
    app: Flask, conn: Conn, clock: Clock
) -> None:
    count(conn, {leads("hit"): 50_000.0, calls("2xx"): 9.0})
    clock.advance(30 * 3600)
    for _ in range(2):
        count(conn, {leads("hit"): 1000.0, leads("miss"): 3.0, calls("2xx"): 20.0})
    clock.advance(3 * 3600)
    count(
        conn, {calls("2xx", "token_refresh"): 2.0, calls("4xx"): 4.0, calls("5xx"): 1.0, calls("none"): 7.0}
    )
    workers.beat(conn, "worker-1")
    browser = Browser(app)
    browser.log_in(EMAIL, PASSWORD)
    assert (
        summary(figure(browser, "leads"))
        == "Last 24 hours: 2,000 from the cache, 6 fetched fresh, 0 out of date."
    )
    assert (
        summary(figure(browser, "calls"))
        == "Last 24 hours: 42 succeeded, 4 refused (3xx, 4xx), 8 failed or unanswered."
    )
    assert "2.000 do cache" in summary(figure(browser, "leads", "pt-BR"))


def test_each_hour_is_a_bar_with_words_and_a_row_of_numbers(
    signed_in: Browser, conn: Conn, clock: Clock
) -> None:
    count(conn, {leads("hit"): 40.0, leads("stale"): 10.0})
    clock.advance(2 * 3600)
    count(conn, {leads("hit"): 20.0})
    workers.beat(conn, "worker-1")
    shown = figure(signed_in, "leads")
    said = re.findall(r"<title>([^<]+)</title>", shown)
    assert len(said) == 24
    first, between, last = said[-3:]
    assert re.fullmatch(r"From \d\d:\d\d: 40 from the cache, 0 fetched fresh, 10 out of date", first), first
    assert "0 from the cache" in between
    assert "20 from the cache" in last
    rows = re.findall(r"<tr><th scope=\"row\">[^<]+</th>(.*?)</tr>", shown)
    assert [re.findall(r">(\d+)<", row) for row in rows] == [["40", "0", "10"], ["20", "0", "0"]]
    heights = [
        float(height) for height in re.findall(r'<rect class="good"[^>]*? height="([\d.]+)" rx="1.5"', shown)
    ]
    assert len(heights) == 2
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2)


def test_a_single_failure_among_thousands_is_seen(signed_in: Browser, conn: Conn) -> None:
    count(conn, {calls("2xx"): 100_000.0, calls("5xx"): 1.0})
    shown = figure(signed_in, "calls")
    (height,) = re.findall(r'<rect class="poor"[^>]*? height="([\d.]+)" rx="1.5"', shown)
    assert float(height) >= 3
    for y in re.findall(r'<rect class="(?:good|other|poor)"[^>]*? y="([\d.-]+)"', shown):
        assert float(y) >= 0


def test_without_anything_to_show_a_chart_says_so(signed_in: Browser) -> None:
    for metric in ("calls", "leads"):
        shown = figure(signed_in, metric)
        assert "Nothing in the last 24 hours." in shown
        assert "<table" not in shown


def attempt(conn: Conn, days_ago: float, outcome: str | None, error: str | None = None) -> None:
    conn.execute(
        "INSERT INTO rdstation_refresh_attempts"
        " (claim_no, account_id, authorization_id, reason, claimed_by, started_at, outcome, error)"
        " VALUES (nextval('rdstation_claims'), 'default', gen_random_uuid(), 'due', 'w',"
        " rd_now() - %s * interval '1 day', %s, %s)",
        [days_ago, outcome, error],
    )


def days(page: str) -> list[str]:
    return re.findall(r'<span class="day (\w+)"', page)


def test_the_timeline_has_a_sign_for_each_of_30_days(signed_in: Browser, conn: Conn) -> None:
    for days_ago, outcome in {29: "stored", 10: "transient", 9: "refused", 3: "stored", 0: "stored"}.items():
        attempt(conn, days_ago, outcome, "timeout" if outcome == "transient" else None)
    attempt(conn, 3.001, "transient", "timeout")
    attempt(conn, 31, "refused", "revoked")
    for path in ("/", "/accounts/default"):
        page = signed_in.get(path).text
        strip = days(page)
        assert len(strip) == 30
        assert (strip[0], strip[-11], strip[-10], strip[-1]) == ("ok", "bad", "bad", "ok")
        assert 24 <= strip.count("none") <= 25
        assert "Renewals of the last 30 days: 3 succeeded, 1 refused, 2 postponed." in page


def test_a_day_with_failures_and_successes_is_neither_good_nor_bad(signed_in: Browser, conn: Conn) -> None:
    attempt(conn, 0, "transient", "server_error")
    attempt(conn, 0, "stored")
    page = signed_in.get("/").text
    assert days(page)[-1] == "warn"
    assert re.search(r'title="[^"]+: 1 succeeded, 0 refused, 1 postponed"', page)


def test_the_latest_attempts_are_told_in_words(signed_in: Browser, conn: Conn) -> None:
    attempt(conn, 1, None)
    attempt(conn, 0.9, "released")
    attempt(conn, 0.8, "superseded")
    attempt(conn, 0.7, "refused", "revoked")
    attempt(conn, 0.6, "transient", "timeout")
    attempt(conn, 0.5, "stored")
    attempt(conn, 0, None)
    page = signed_in.get("/accounts/default").text
    timeline = "".join(re.findall(r'<ol class="timeline">.*?</ol>', page, re.S))
    told = re.findall(r'<li class="(\w+)">.*?<strong>([^<]+)</strong>', timeline, re.S)
    assert told == [
        ("plain", "Under way"),
        ("ok", "Renewed"),
        ("warn", "Postponed: No answer in time"),
        ("bad", "Refused: the refresh token is no longer valid"),
        ("plain", "Not needed: the account was connected again in the meantime"),
        ("plain", "Not begun, and left to another process"),
        ("warn", "Cut off: its process ended before the answer was stored"),
    ]
    assert timeline.count("<time ") == 7


def test_days_are_those_of_the_reader_s_time_zone(signed_in: Browser, conn: Conn) -> None:
    attempt(conn, 0, "stored")
    row = conn.execute(
        "SELECT to_char(rd_now() AT TIME ZONE 'Pacific/Kiritimati', 'FMMon FMDD, YYYY')"
    ).fetchone()
    assert row is not None
    signed_in.client.set_cookie("rdservice_zone", "Pacific/Kiritimati")
    assert f'title="{row[0]}: 1 succeeded' in signed_in.get("/").text


def test_an_account_that_was_never_renewed_says_so(signed_in: Browser) -> None:
    page = signed_in.get("/accounts/default").text
    assert "No renewal was attempted yet." in page
    assert days(page) == ["none"] * 30
