"""The status page."""

import re
from datetime import timedelta
from typing import Any, get_args

import psycopg
import pytest
from flask import Flask

from rdservice.services import Services
from rdservice.tokens import store, workers
from rdservice.web.status_texts import advice, outcome_words, status_words
from tests.web.browser import Browser
from tests.web.conftest import EMAIL, PASSWORD

Conn = psycopg.Connection[Any]
ERRORS = [
    "revoked",
    "answer_lost",
    "unauthorized",
    "credentials",
    "rate_limited",
    "client_error",
    "server_error",
    "timeout",
    "connection",
    "bad_payload",
    "damaged",
    "upload_refused",
    "no_refresh_token",
]


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
        rf'<section class="card" data-account="{re.escape(account_id)}".*?</section>', page, re.S
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
    answer = signed_in.get("/")
    shown = card(answer.text)
    assert "ACME Ltda" in shown
    assert 'data-status="connected"' in shown
    assert "Nothing to do" in shown
    assert re.search(
        r'<time datetime="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00" title="[^"]+">[^<]+</time>', shown
    )
    assert "in 1 day" in shown
    assert "secret-" not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"


def test_times_are_told_in_portuguese_too(signed_in: Browser, conn: Conn, services: Services) -> None:
    connect(conn, services)
    change(conn, attempted_at=None)
    conn.execute("UPDATE rdstation_tokens SET expires_at = rd_now() + interval '3 hours'")
    shown = card(signed_in.get("/", {"Accept-Language": "pt-BR"}).text)
    assert "em 3 horas" in shown
    assert "Ainda não houve tentativa" in shown


def test_the_page_offers_what_can_be_done(signed_in: Browser, conn: Conn, services: Services) -> None:
    connect(conn, services, "filial 2 & co")
    shown = card(signed_in.get("/").text, "filial 2 &amp; co")
    path = "/rd/tokens/filial%202%20%26%20co"
    assert 'href="/rd/login?account_id=filial%202%20%26%20co"' in shown
    for action in ("refresh", "disconnect"):
        form = re.search(rf'<form method="post" action="{path}/{action}">\s*<input ([^>]+)>', shown)
        assert form is not None
        assert 'name="csrf_token"' in form[1]


def test_markup_in_names_is_shown_as_text(signed_in: Browser, conn: Conn, services: Services) -> None:
    connect(conn, services, "default", "<img src=x onerror=alert(1)>")
    page = signed_in.get("/").text
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def test_the_form_s_buttons_work(signed_in: Browser, conn: Conn, services: Services) -> None:
    connect(conn, services)
    answer = signed_in.submit("/rd/tokens/default/disconnect", page="/")
    assert (answer.status_code, answer.location) == (303, "/")
    page = signed_in.get("/").text
    assert "default is disconnected" in page
    assert "data-account" not in page


@pytest.mark.parametrize(
    ("changes", "status", "sentence"),
    [
        (
            {"status": "reauthorization_required", "last_error": "revoked"},
            "Authorization needed",
            "no longer accepts",
        ),
        (
            {"status": "reauthorization_required", "last_error": "answer_lost"},
            "Authorization needed",
            "got lost",
        ),
        (
            {"status": "credentials_refused", "last_error": "credentials"},
            "Credentials refused",
            "do not connect again",
        ),
        ({"status": "unverified"}, "Not verified yet", "still to be tried"),
        ({"last_error": "connection"}, "Connected", "RDSTATION_API_URL"),
        ({"last_error": "timeout", "failures": 3}, "Connected", "tried again by itself"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "Expired", "Make sure that the worker is running"),
    ],
)
def test_each_state_says_what_to_do(
    signed_in: Browser, conn: Conn, services: Services, changes: dict[str, object], status: str, sentence: str
) -> None:
    connect(conn, services)
    change(conn, **changes)
    shown = card(signed_in.get("/").text)
    assert f"{status}</span>" in shown
    assert sentence in shown


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
        assert len({status_words(status) for status in states}) == len(states)
        assert len({outcome_words(error, attempted=True) for error in ERRORS}) == len(ERRORS)
        assert "Failed" not in " ".join(outcome_words(error, attempted=True) for error in ERRORS)
        for status in states:
            for error in [*ERRORS, "something_new", None]:
                assert advice(status, error)


@pytest.mark.parametrize(
    ("language", "what_happened", "what_to_do"),
    [
        ("en", ("got lost", "was killed", "refuses the refresh token"), "Connect the account again."),
        ("pt-BR", ("se perdeu", "foi morto", "recusa o refresh token"), "Conecte a conta de novo."),
    ],
)
def test_the_page_says_how_a_rotated_token_was_lost(
    app: Flask, language: str, what_happened: tuple[str, ...], what_to_do: str
) -> None:
    with app.test_request_context(headers={"Accept-Language": language}):
        said = advice("reauthorization_required", "answer_lost")
    assert all(part in said for part in what_happened)
    assert said.endswith(what_to_do)


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
    assert "Nothing to do" not in signed_in.get("/").text
    workers.beat(conn, "worker-1")
    assert "Nothing to do" in signed_in.get("/").text


def test_the_connect_page_leads_on_to_rd_station(signed_in: Browser) -> None:
    page = signed_in.get("/connect?account_id=%22%3E%3Cb%3E").text
    assert 'content="0; url=/rd/login?account_id=%22%3E%3Cb%3E"' in page
    assert "<b>" not in page
    assert 'url=/rd/login?account_id=default"' in signed_in.get("/connect?account_id=%20").text


def test_the_page_needs_an_operator(app: Flask) -> None:
    assert Browser(app).get("/").location == "/login?next=/"
    stranger = Browser(app)
    assert stranger.log_in(EMAIL, PASSWORD).status_code == 401
