"""The overview, and the page of an account."""

import html
import re
from datetime import timedelta
from typing import Any, LiteralString, get_args

import psycopg
import pytest
from flask import Flask

from rdservice.services import Services
from rdservice.tokens import attempts, listing, store, workers
from rdservice.web.text.status_texts import advice, attempt_words, outcome_words, reason_words, state_words
from tests.integration.web.conftest import EMAIL, PASSWORD
from tests.support.browser import Browser
from tests.support.facts import KNOWN_ERRORS

Conn = psycopg.Connection[Any]
REASONS = ["due", "early", "operator", "rejected"]


def connect(
    conn: Conn, services: Services, account_id: str = "default", name: str | None = "ACME Ltda"
) -> None:
    store.authorize(
        conn,
        services.keys,
        account_id,
        access_token="secret-access-token",
        refresh_token="secret-refresh-token",
        expires_in_s=86_400,
        name=name,
        verified=True,
        proven=True,
    )


def change(conn: Conn, **values: object) -> None:
    for column, value in values.items():
        conn.execute(f"UPDATE rdstation_tokens SET {column} = %s", [value])  # noqa: S608


def card(page: str, account_id: str = "default") -> str:
    found = re.search(
        rf'<section class="card"[^>]* data-account="{re.escape(account_id)}".*?</section>', page, re.S
    )
    assert found, f"no card for {account_id}"
    return found[0]


@pytest.mark.parametrize(
    ("language", "words"), [("en", "Connect to RD Station"), ("pt-BR", "Conectar ao RD Station")]
)
def test_an_empty_installation_shows_one_big_link_to_connect(
    signed_in: Browser, language: str, words: str
) -> None:
    page = signed_in.get("/", {"Accept-Language": language}).text
    assert re.search(rf'<a class="button big" href="/rd/login\?account_id=default">{words}</a>', page)
    assert "data-account" not in page


def test_a_connected_account_is_shown_with_its_times_and_no_token(
    signed_in: Browser, conn: Conn, services: Services
) -> None:
    connect(conn, services)
    workers.beat(conn, "worker-1")
    response = signed_in.get("/")
    shown = card(response.text)
    assert "ACME Ltda" in shown
    assert 'data-status="connected"' in shown
    assert "You don&#39;t need to do anything." in response.text
    assert re.search(
        r'<time datetime="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00" title="[^"]+">[^<]+</time>', shown
    )
    assert "in 24 hours" in shown
    assert "secret-" not in response.text
    assert response.headers["Cache-Control"] == "no-store"


def test_times_are_told_in_portuguese_too(signed_in: Browser, conn: Conn, services: Services) -> None:
    connect(conn, services)
    change(conn, attempted_at=None)
    conn.execute("UPDATE rdstation_tokens SET expires_at = rd_now() + interval '3 hours'")
    shown = card(signed_in.get("/", {"Accept-Language": "pt-BR"}).text)
    assert "daqui a 3 horas" in shown
    assert "Ainda não houve tentativa" in shown


def test_the_page_offers_what_can_be_done(signed_in: Browser, conn: Conn, services: Services) -> None:
    connect(conn, services, "filial 2 & co")
    shown = card(signed_in.get("/").text, "filial 2 &amp; co")
    path = "filial%202%20%26%20co"
    assert f'href="/rd/login?account_id={path}"' in shown
    assert f'href="/accounts/{path}/disconnect"' in shown
    assert 'href="/upload?account_id=filial+2+%26+co"' in shown
    form = re.search(rf'<form method="post" action="/rd/tokens/{path}/refresh">(.*?)</form>', shown, re.S)
    assert form is not None
    assert 'name="csrf_token"' in form[1]
    assert f'name="next" value="/accounts/{path}"' in form[1]


def test_markup_in_names_is_shown_as_text(signed_in: Browser, conn: Conn, services: Services) -> None:
    connect(conn, services, "default", "<img src=x onerror=alert(1)>")
    page = signed_in.get("/").text
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


@pytest.mark.parametrize(
    ("changes", "status", "sentence"),
    [
        (
            {"status": "reauthorization_required", "last_error": "revoked"},
            "Authorization needed",
            "no longer accepts its refresh token",
        ),
        (
            {"status": "reauthorization_required", "last_error": "answer_lost"},
            "Authorization needed",
            "got lost",
        ),
        (
            {"status": "credentials_refused", "last_error": "credentials"},
            "Credentials refused",
            "Do not connect the accounts again",
        ),
        ({"status": "unverified"}, "Not verified yet", "the worker tries them within a minute"),
        ({"last_error": "connection"}, "Renewal failing", "RDSTATION_API_URL"),
        ({"last_error": "timeout", "failures": 3}, "Renewal failing", "tries again automatically"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "Expired", "was not renewed in time"),
    ],
)
def test_each_state_says_what_to_do(
    signed_in: Browser, conn: Conn, services: Services, changes: dict[str, object], status: str, sentence: str
) -> None:
    connect(conn, services)
    change(conn, **changes)
    workers.beat(conn, "worker-1")
    for path in ("/", "/accounts/default"):
        page = html.unescape(signed_in.get(path).text)
        assert re.search(rf'<span class="badge \w+"><svg class="sign".*?</svg>{status}</span>', card(page))
        assert sentence in page


def test_an_account_that_must_be_authorized_cannot_be_refreshed(
    signed_in: Browser, conn: Conn, services: Services
) -> None:
    connect(conn, services)
    change(conn, status="reauthorization_required", last_error="revoked")
    shown = card(signed_in.get("/").text)
    assert "/refresh" not in shown
    assert "Connect again" in shown


def test_every_state_and_error_has_words_of_its_own(app: Flask) -> None:
    with app.test_request_context(headers={"Accept-Language": "en"}):
        states = get_args(store.Status)
        assert len({state_words(state) for state in listing.STATES}) == len(listing.STATES) == len(states) + 1
        assert len({outcome_words(error, attempted=True) for error in KNOWN_ERRORS}) == len(KNOWN_ERRORS)
        assert "Failed" not in " ".join(outcome_words(error, attempted=True) for error in KNOWN_ERRORS)
        outcomes = get_args(attempts.Outcome)
        assert len({attempt_words(outcome, None, cut_off=False) for outcome in outcomes}) == len(outcomes)
        assert attempt_words(None, None, cut_off=True) != attempt_words(None, None, cut_off=False)
        assert len({reason_words(reason) for reason in REASONS}) == len(REASONS)
        for status in states:
            for error in [*KNOWN_ERRORS, "something_new", None]:
                assert advice("shop", status, error)


@pytest.mark.parametrize(
    ("language", "what_happened", "what_to_do"),
    [
        ("en", ("got lost", "was killed", "refresh token was used up"), "Connect the account again:"),
        ("pt-BR", ("se perdeu", "foi morto", "refresh token foi gasto"), "Conecte a conta de novo:"),
    ],
)
def test_the_page_says_how_a_rotated_token_was_lost(
    app: Flask, language: str, what_happened: tuple[str, ...], what_to_do: str
) -> None:
    with app.test_request_context(headers={"Accept-Language": language}):
        said = advice("shop", "reauthorization_required", "answer_lost")
    assert all(part in said for part in what_happened)
    assert what_to_do in said


def test_without_a_heartbeat_the_page_says_that_the_worker_is_not_running(
    signed_in: Browser, conn: Conn
) -> None:
    warning = "The worker is not running"
    assert warning in signed_in.get("/").text
    workers.beat(conn, "worker-1")
    assert warning not in signed_in.get("/").text
    conn.execute("UPDATE rdstation_workers SET beat_at = rd_now() - %s", [timedelta(seconds=61)])
    assert warning in signed_in.get("/").text


def test_an_account_is_not_called_well_while_no_worker_renews_it(
    signed_in: Browser, conn: Conn, services: Services
) -> None:
    connect(conn, services)
    for path in ("/", "/accounts/default"):
        assert "need to do anything" not in signed_in.get(path).text
    workers.beat(conn, "worker-1")
    for path in ("/", "/accounts/default"):
        assert "need to do anything" in signed_in.get(path).text


def test_the_connect_page_leads_on_to_rd_station(signed_in: Browser) -> None:
    page = signed_in.get("/connect?account_id=%22%3E%3Cb%3E").text
    assert 'content="0; url=/rd/login?account_id=%22%3E%3Cb%3E"' in page
    assert "<b>" not in page
    assert 'url=/rd/login?account_id=default"' in signed_in.get("/connect?account_id=%20").text


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ("failures = 0", r"The token is renewed automatically in \d+ hours\."),
        (
            "last_error = 'timeout', refresh_after = rd_now(), retry_at = rd_now() + interval '4 min 30 s'",
            r"The renewal is tried again automatically in 4 minutes\.",
        ),
        ("refresh_after = rd_now()", r"The token is being renewed now\."),
        ("status = 'unverified'", r"tried with RD Station within a minute"),
        ("status = 'credentials_refused'", r"asked again every five minutes"),
        ("status = 'reauthorization_required'", r"Waiting for someone to reconnect it\.<"),
        (
            "status = 'reauthorization_required', second_look_at = rd_now() + interval '15 minutes'",
            r"In case RD Station was wrong, the token is tried again in 15 minutes",
        ),
    ],
)
def test_the_page_says_what_happens_next_and_when(
    signed_in: Browser, conn: Conn, services: Services, changes: LiteralString, step: str
) -> None:
    connect(conn, services)
    workers.beat(conn, "worker-1")
    conn.execute(f"UPDATE rdstation_tokens SET {changes}")  # noqa: S608
    assert re.search(step, card(signed_in.get("/").text))


def test_nothing_happens_by_itself_without_a_worker(
    signed_in: Browser, conn: Conn, services: Services
) -> None:
    connect(conn, services)
    shown = card(signed_in.get("/").text)
    assert "Nothing is renewed: the worker is not running" in shown
    assert '<div class="next bad">' in shown


@pytest.mark.parametrize(
    ("prepare", "tone", "sentence"),
    [
        ("", "ok", "All is well"),
        ("UPDATE rdstation_tokens SET status = 'reauthorization_required'", "bad", "One account needs you"),
        ("UPDATE rdstation_tokens SET last_error = 'timeout'", "warn", "It works, but look at this"),
        ("DELETE FROM rdstation_workers", "bad", "Your administrator needs to act"),
        ("UPDATE rdstation_tokens SET status = 'unverified'", "ok", "All is well"),
    ],
)
def test_the_first_sentence_is_the_verdict(
    signed_in: Browser, conn: Conn, services: Services, prepare: LiteralString, tone: str, sentence: str
) -> None:
    connect(conn, services)
    workers.beat(conn, "worker-1")
    if prepare:
        conn.execute(prepare)
    page = signed_in.get("/").text
    assert re.findall(r'data-verdict="(\w+)"', page) == [tone]
    assert f"<h2 data-live-title>{sentence}</h2>" in page
    assert page.index(sentence) < page.index('data-account="default"')


def test_the_verdict_counts_all_who_need_somebody_also_beyond_the_findings(
    signed_in: Browser, conn: Conn, services: Services
) -> None:
    workers.beat(conn, "worker-1")
    for number in range(120):
        connect(conn, services, f"account-{number}", None)
    change(conn, status="reauthorization_required")
    assert "120 accounts need you" in signed_in.get("/").text
    assert "120 contas precisam de você" in signed_in.get("/", {"Accept-Language": "pt-BR"}).text


def test_each_button_of_a_finding_leads_where_it_helps(
    signed_in: Browser, conn: Conn, services: Services
) -> None:
    workers.beat(conn, "worker-1")
    for name in ("to connect", "to refresh", "to upload"):
        connect(conn, services, name, None)
    for name, changes in {
        "to connect": "status = 'reauthorization_required'",
        "to refresh": "expires_at = rd_now() - interval '1 hour'",
        "to upload": "last_error = 'upload_refused'",
    }.items():
        conn.execute(
            f"UPDATE rdstation_tokens SET {changes} WHERE account_id = %s".encode(),  # noqa: S608
            [name],
        )
    page = signed_in.get("/").text
    finding = r'<article class="finding[^>]*data-finding="(\w+)"(.*?)</article>'
    found = dict(re.findall(finding, page, re.S))
    assert (
        '<a class="button" href="/rd/login?account_id=to%20connect">Connect again</a>'
        in found["reauthorization_required"]
    )
    assert '<form method="post" action="/rd/tokens/to%20refresh/refresh">' in found["token_expired"]
    assert (
        '<a class="button" href="/upload?account_id=to+upload">Upload tokens</a>' in found["upload_refused"]
    )
    for article in found.values():
        assert 'href="/accounts/to%20' in article


def test_a_consequence_stands_with_its_cause_and_has_no_button_of_its_own(
    signed_in: Browser, conn: Conn, services: Services
) -> None:
    connect(conn, services)
    conn.execute("UPDATE rdstation_tokens SET expires_at = rd_now() - interval '1 hour'")
    page = signed_in.get("/").text
    (article,) = re.findall(r'<article class="finding.*?</article>', page, re.S)
    assert re.findall(r'data-finding="(\w+)"', article) == ["worker_not_running", "token_expired"]
    assert "Refresh now" not in article


def test_an_account_s_page_tells_of_this_account_alone(
    signed_in: Browser, conn: Conn, services: Services
) -> None:
    workers.beat(conn, "worker-1")
    connect(conn, services, "good", "Good Ltda")
    connect(conn, services, "poor", "Poor Ltda")
    conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required' WHERE account_id = 'poor'")
    good, poor = (signed_in.get(f"/accounts/{name}").text for name in ("good", "poor"))
    assert "<title>Good Ltda" in good
    assert "data-finding" not in good
    assert "Poor" not in good
    assert re.findall(r'data-finding="(\w+)"', poor) == ["reauthorization_required"]
    assert 'href="/">← All accounts' in poor


def test_the_page_of_an_unknown_account_is_not_found(signed_in: Browser) -> None:
    for path in ("/accounts/nobody", "/accounts/nobody/disconnect"):
        assert signed_in.get(path).status_code == 404


def test_the_page_needs_an_operator(app: Flask) -> None:
    assert Browser(app).get("/").location == "/login?next=/"
    stranger = Browser(app)
    assert stranger.log_in(EMAIL, PASSWORD).status_code == 401


def test_beside_an_account_under_another_name_the_operators_own_is_still_invited(
    signed_in: Browser, conn: Conn, services: Services
) -> None:
    connect(conn, services, "demo")
    page = signed_in.get("/").text
    assert "Connect your own account" in page
    assert 'href="/rd/login?account_id=default">Connect to RD Station</a>' in page
    connect(conn, services)
    assert "Connect your own account" not in signed_in.get("/").text
