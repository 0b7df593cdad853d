"""The list of accounts on the overview: order, search, filters, pages."""

import html
import re
from typing import Any

import psycopg
import pytest

from rdservice.services import Services
from rdservice.tokens import store, workers
from rdservice.web.pages.overview.account_list import PAGE_SIZE
from tests.support.browser import Browser

Conn = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def _a_worker_runs(conn: Conn) -> None:
    workers.beat(conn, "worker-1")


def add(conn: Conn, services: Services, account_id: str, name: str | None = None, **changes: str) -> None:
    store.authorize(
        conn,
        services.keys,
        account_id,
        access_token="an-access-token",
        refresh_token=f"refresh-of-{account_id}",
        expires_in_s=86_400,
        name=name,
        verified=True,
        proven=True,
    )
    for column, value in changes.items():
        conn.execute(
            f"UPDATE rdstation_tokens SET {column} = %s WHERE account_id = %s".encode(),  # noqa: S608
            [value, account_id],
        )


def listed(browser: Browser, path: str = "/") -> list[str]:
    response = browser.get(path)
    assert response.status_code == 200
    return [
        html.unescape(name)
        for name in re.findall(r'<li class="row"[^>]* data-account="([^"]+)"', response.text)
    ]


def filters(browser: Browser, path: str = "/") -> dict[str, str]:
    page = browser.get(path).text
    (nav,) = re.findall(r'<nav class="filters".*?</nav>', page, re.S)
    words = r'<a href="([^"]+)"[^>]*>(?:<svg.*?</svg>)?([^<]+?) <strong>([^<]+)</strong></a>'
    return {f"{name} {number}": html.unescape(link) for link, name, number in re.findall(words, nav)}


@pytest.fixture
def states(conn: Conn, services: Services) -> None:
    """One account in each state, and two that are well."""
    add(conn, services, "z-well", "Azul Ltda")
    add(conn, services, "well")
    add(conn, services, "failing", last_error="timeout")
    add(conn, services, "unverified", status="unverified")
    add(conn, services, "credentials", status="credentials_refused", last_error="credentials")
    add(conn, services, "expired", expires_at="2020-01-01T00:00:00Z")
    add(conn, services, "refused", status="reauthorization_required", last_error="revoked")


@pytest.mark.usefixtures("states")
def test_those_who_need_somebody_come_first_and_then_by_name(signed_in: Browser) -> None:
    assert listed(signed_in) == [
        "refused",
        "expired",
        "credentials",
        "failing",
        "unverified",
        "z-well",
        "well",
    ]


@pytest.mark.usefixtures("states")
def test_each_state_has_a_filter_with_its_number(signed_in: Browser) -> None:
    found = filters(signed_in)
    assert list(found) == [
        "All 7",
        "Authorization needed 1",
        "Expired 1",
        "Credentials refused 1",
        "Renewal failing 1",
        "Not verified yet 1",
        "Connected 2",
    ]
    assert [listed(signed_in, link) for link in found.values()][1:] == [
        ["refused"],
        ["expired"],
        ["credentials"],
        ["failing"],
        ["unverified"],
        ["z-well", "well"],
    ]
    assert 'aria-current="true"' in signed_in.get("/?state=failing").text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("joao", ["sao-joao"]),
        ("JOÃO", ["sao-joao"]),
        ("são joão", ["sao-joao"]),
        ("SAO-", ["sao-joao"]),
        ("Água", ["agua"]),
        ("agua", ["agua"]),
        ("branch", ["branch.1", "branch_2", "branch%3"]),
        ("h.1", ["branch.1"]),
        ("h_2", ["branch_2"]),
        ("%", ["branch%3"]),
        (".*", []),
        ("[a-z]", []),
        ("(", []),
        ("\\", []),
        ("^s", []),
        ("  joao ", ["sao-joao"]),
        ("nobody", []),
    ],
)
def test_the_search_takes_text_as_it_stands_whatever_its_case_and_accents(
    signed_in: Browser, conn: Conn, services: Services, text: str, found: list[str]
) -> None:
    add(conn, services, "sao-joao", "Padaria São João")
    add(conn, services, "agua", "ÁGUA VIVA")
    for name in ("branch.1", "branch_2", "branch%3"):
        add(conn, services, name)
    response = signed_in.get("/", query_string={"q": text})
    rows = re.findall(r'<li class="row"[^>]* data-account="([^"]+)"', response.text)
    assert sorted(rows) == sorted(found)
    assert ("No matching accounts." in response.text) == (not found)


def test_what_was_searched_for_stays_in_the_field_and_in_the_links(
    signed_in: Browser, conn: Conn, services: Services
) -> None:
    add(conn, services, "a one", status="unverified")
    add(conn, services, "a two")
    add(conn, services, "other")
    page = signed_in.get("/?q=a+&state=unverified").text
    assert re.search(r'<input id="q" name="q" type="search" value="a"', page)
    assert '<input type="hidden" name="state" value="unverified">' in page
    assert filters(signed_in, "/?q=a+")["Not verified yet 1"] == "/?q=a&state=unverified"
    assert filters(signed_in, "/?q=a+")["All 2"] == "/?q=a"


def test_the_verdict_is_about_all_accounts_whatever_is_searched_for(
    signed_in: Browser, conn: Conn, services: Services
) -> None:
    add(conn, services, "well")
    add(conn, services, "refused", status="reauthorization_required")
    assert "One account needs you" in signed_in.get("/?q=well").text


def test_pages_hold_all_accounts_once(signed_in: Browser, conn: Conn, services: Services) -> None:
    names = [f"account-{number:03}" for number in range(2 * PAGE_SIZE + 3)]
    for name in names:
        add(conn, services, name)
    seen, path = [], "/"
    while path:
        seen += listed(signed_in, path)
        following = re.search(r'rel="next" href="([^"]+)"', signed_in.get(path).text)
        path = html.unescape(following[1]) if following else ""
    assert seen == names
    assert "Page 3 of 3" in signed_in.get("/?page=3").text
    # A page beyond the last is the last: accounts may have gone since the link was made.
    assert listed(signed_in, "/?page=4000") == listed(signed_in, "/?page=3")
    assert re.search(r'rel="prev" href="/\?page=2"', signed_in.get("/?page=3").text)
    assert re.search(r'rel="prev" href="/"', signed_in.get("/?page=2").text)


@pytest.mark.parametrize(
    "query",
    [
        "state=strange",
        "page=0",
        "page=-1",
        "page=x",
        "page=1234567",
        "q=%00",
        "q=%ff",
        f"q={'x' * 101}",
        "q=a&q=b",
    ],
)
def test_what_cannot_be_asked_for_is_refused(signed_in: Browser, query: str) -> None:
    response = signed_in.get(f"/?{query}", {"Accept": "application/json"})
    assert (response.status_code, response.get_json()["code"]) == (422, "invalid_field")


def test_a_row_offers_the_one_button_that_helps(signed_in: Browser, conn: Conn, services: Services) -> None:
    add(conn, services, "well", "Well Ltda")
    add(conn, services, "refused", "Refused & Co", status="reauthorization_required")
    page = signed_in.get("/").text
    rows = dict(re.findall(r'<li class="row"[^>]* data-account="(\w+)"(.*?)</li>', page, re.S))
    assert (
        'href="/rd/login?account_id=refused" aria-label="Connect again: Refused &amp; Co"' in rows["refused"]
    )
    assert "button" not in rows["well"]
    assert '<a class="row-name" href="/accounts/well">Well Ltda</a>' in rows["well"]
