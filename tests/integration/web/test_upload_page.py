"""Uploading tokens by form, and what a page says before it disconnects an account."""

import html
import re
from typing import Any

import psycopg
import pytest
from flask import Flask

from rdservice.rdstation.token_responses import MAX_LIFETIME_S, MAX_TOKEN_LENGTH
from rdservice.services import Services
from rdservice.web import create_app
from tests.support.accounts import connect_account, stored_pair
from tests.support.browser import Browser
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
GOOD = {
    "account_id": "default",
    "access_token": "secret-access-token",
    "refresh_token": "secret-refresh-token",
    "expires_in": "86400",
}


@pytest.fixture
def app(connected: Services) -> Flask:
    return create_app(connected)


def upload(browser: Browser, **fields: str) -> Any:
    return browser.submit("/upload", page="/upload", **(GOOD | fields))


def test_a_pair_is_stored_as_a_program_s_is(
    signed_in: Browser, conn: Conn, connected: Services, sandbox: SandboxProcess
) -> None:
    pair = sandbox.pair()
    response = upload(
        signed_in,
        account_id="filial 2",
        access_token=pair["access_token"],
        refresh_token=pair["refresh_token"],
    )
    assert (response.status_code, response.location) == (303, "/accounts/filial%202")
    assert stored_pair(connected, conn, "filial 2") == (pair["access_token"], pair["refresh_token"])
    page = signed_in.get(response.location).text
    assert "The tokens of filial 2 are stored." in page
    entry = conn.execute(
        "SELECT action, account_id, actor_name FROM rdservice_audit ORDER BY entry_id DESC"
    ).fetchone()
    assert entry == ("tokens_uploaded", "filial 2", "ana@example.com")


@pytest.mark.parametrize(
    ("field", "value", "english", "portuguese"),
    [
        ("access_token", "", "Fill in this field.", "Preencha este campo."),
        ("refresh_token", "", "Fill in this field.", "Preencha este campo."),
        ("expires_in", "", "Fill in this field.", "Preencha este campo."),
        ("access_token", "two words", "neither spaces", "não tem espaços"),
        ("refresh_token", "ação", "neither spaces", "não tem espaços"),
        ("access_token", "x" * (MAX_TOKEN_LENGTH + 1), "16,384 characters", "16.384 caracteres"),
        ("expires_in", "soon", "whole number of seconds", "número inteiro de segundos"),
        ("expires_in", "0", "from 1 to 31,536,000", "de 1 a 31.536.000"),
        ("expires_in", "1.5", "whole number of seconds", "número inteiro de segundos"),
        ("expires_in", str(MAX_LIFETIME_S + 1), "whole number of seconds", "número inteiro de segundos"),
        ("account_id", "", "Enter 1 to 200 characters.", "Digite de 1 a 200 caracteres."),
        ("account_id", "a/b", "no slash", "nenhuma barra"),
        ("account_id", "x" * 201, "Enter 1 to 200 characters.", "Digite de 1 a 200 caracteres."),
    ],
)
def test_what_is_wrong_stands_at_its_field_in_the_reader_s_language(
    signed_in: Browser, conn: Conn, field: str, value: str, english: str, portuguese: str
) -> None:
    for language, words in (("en", english), ("pt-BR", portuguese)):
        signed_in.headers["Accept-Language"] = language
        response = upload(signed_in, **{field: value})
        assert response.status_code == 422
        invalid = re.findall(r'<input id="(\w+)"[^>]* aria-invalid="true"', response.text)
        assert invalid == [field]
        (problem,) = re.findall(
            rf'<p class="field-error" id="{field}-error">.*?</svg>([^<]+)</p>', response.text
        )
        assert words in html.unescape(problem)
        assert re.search(rf'<input id="{field}"[^>]* aria-describedby="[^"]*\b{field}-error"', response.text)
        assert "secret-" not in response.text
    assert conn.execute("SELECT count(*) FROM rdstation_tokens").fetchone() == (0,)


def test_what_is_no_secret_stays_in_the_form(signed_in: Browser) -> None:
    page = upload(signed_in, account_id="<b>", expires_in="x&y").text
    assert 'id="account_id" name="account_id" type="text" value="&lt;b&gt;"' in page
    assert 'value="x&amp;y"' in page


def test_a_token_that_rd_station_refuses_is_not_stored(signed_in: Browser, conn: Conn) -> None:
    response = upload(signed_in)
    assert response.status_code == 422
    assert "RD Station does not accept this token." in response.text
    assert "Nothing was stored." in response.text
    assert "secret-" not in response.text
    assert conn.execute("SELECT count(*) FROM rdstation_tokens").fetchone() == (0,)


def test_while_rd_station_is_silent_a_pair_that_works_is_not_replaced(
    signed_in: Browser, conn: Conn, connected: Services, sandbox: SandboxProcess
) -> None:
    connect_account(connected, sandbox)
    before = stored_pair(connected, conn)
    sandbox.patch(faults=[{"operation": "*", "kind": "drop_before"}])
    response = upload(signed_in)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "30")
    assert "RD Station does not answer at the moment." in response.text
    assert stored_pair(connected, conn) == before


def test_the_form_names_the_account_that_it_is_asked_for(signed_in: Browser) -> None:
    assert 'value="filial 2"' in signed_in.get("/upload?account_id=filial+2").text
    assert 'value="default"' in signed_in.get("/upload").text


@pytest.mark.parametrize(
    ("language", "lost"),
    [
        (
            "en",
            [
                "The tokens of the account default",
                "All leads",
                "not_connected",
                "accept its tokens no longer",
            ],
        ),
        (
            "pt-BR",
            ["Os tokens da conta default", "Todos os leads", "not_connected", "não aceitar mais os tokens"],
        ),
    ],
)
def test_before_an_account_is_disconnected_the_page_says_what_is_lost(
    signed_in: Browser,
    conn: Conn,
    connected: Services,
    sandbox: SandboxProcess,
    language: str,
    lost: list[str],
) -> None:
    connect_account(connected, sandbox)
    page = signed_in.get("/accounts/default/disconnect", {"Accept-Language": language}).text
    for words in lost:
        assert words in page
    assert conn.execute("SELECT count(*) FROM rdstation_tokens").fetchone() == (1,)
    response = signed_in.submit("/rd/tokens/default/disconnect", page="/accounts/default/disconnect")
    assert (response.status_code, response.location) == (303, "/")
    assert sandbox.calls()["revoke"] == {"200": 1}
    overview = signed_in.get("/").text
    assert "default is disconnected, and RD Station no longer accepts its tokens." in overview
    assert "data-account" not in overview


def test_the_page_says_when_the_app_keeps_its_access(
    signed_in: Browser, conn: Conn, connected: Services
) -> None:
    for name in ("default", "twin"):
        connect_account(connected, account_id=name)
    conn.execute("UPDATE rdstation_tokens SET name = 'ACME'")
    page = signed_in.get("/accounts/twin/disconnect").text
    assert "the same RD Station account is connected here as default too" in page
    conn.execute("UPDATE rdstation_tokens SET name = NULL WHERE account_id = 'default'")
    page = signed_in.get("/accounts/twin/disconnect").text
    assert "not known yet whether default is connected to the same RD Station account" in page


def test_refreshing_leads_back_to_where_it_was_asked_for_and_never_elsewhere(
    signed_in: Browser, connected: Services, sandbox: SandboxProcess
) -> None:
    connect_account(connected, sandbox)
    for wanted, location in {
        "/accounts/default": "/accounts/default",
        "": "/",
        "//evil.example": "/",
        "https://evil.example/": "/",
        "/\\evil.example": "/",
    }.items():
        response = signed_in.submit("/rd/tokens/default/refresh", page="/", next=wanted)
        assert (response.status_code, response.location) == (303, location)
