"""The findings on the overview."""

import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from argon2 import PasswordHasher
from flask import Flask

from rdservice.access import operators, passwords
from rdservice.config.settings import Settings
from rdservice.services import Services
from rdservice.tokens import workers
from rdservice.web import create_app
from tests.support.accounts import connect_account
from tests.support.browser import Browser
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
PASSWORD = "correct horse battery"


@pytest.fixture
def browser(services: Services, conn: Conn, monkeypatch: pytest.MonkeyPatch) -> Browser:
    """An operator's browser, signed in."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
    assert operators.create(conn, "ana@example.com", passwords.hash_password(PASSWORD))
    signed_in = Browser(create_app(services))
    assert signed_in.log_in("ana@example.com", PASSWORD).status_code == 303
    return signed_in


def findings(page: str) -> list[str]:
    return re.findall(r'data-finding="(\w+)"', page)


def test_when_all_is_well_the_page_says_so_above_the_accounts(
    browser: Browser, services: Services, conn: Conn
) -> None:
    connect_account(services, due=False)
    workers.beat(conn, "worker-1")
    page = browser.get("/").text
    assert findings(page) == []
    assert 'id="diagnosis"' not in page
    assert page.index("All is well") < page.index('data-account="default"')


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", "default must be authorized again."),
        ("pt-BR", "default precisa ser autorizada de novo."),
    ],
)
def test_findings_stand_above_the_accounts_in_the_reader_s_language(
    browser: Browser, services: Services, conn: Conn, language: str, words: str
) -> None:
    connect_account(services, due=False)
    conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required', last_error = 'revoked'")
    page = browser.get("/", {"Accept-Language": language}).text
    assert findings(page) == ["worker_not_running", "reauthorization_required"]
    assert words in page
    assert page.index('id="diagnosis"') < page.index('data-account="default"')
    assert page.count('<article class="finding bad"') == 2


def test_an_unconnected_installation_is_told_by_its_button_alone(browser: Browser, conn: Conn) -> None:
    workers.beat(conn, "worker-1")
    page = browser.get("/").text
    assert findings(page) == []
    assert "Connect to RD Station</a>" in page


def test_names_in_findings_are_shown_as_text(browser: Browser, services: Services, conn: Conn) -> None:
    connect_account(services, account_id="<b>bold</b>", due=False)
    workers.beat(conn, "worker-1")
    conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required'")
    page = browser.get("/").text
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page


def test_many_findings_are_cut_short_and_counted(browser: Browser, services: Services, conn: Conn) -> None:
    workers.beat(conn, "worker-1")
    for number in range(12):
        connect_account(services, account_id=f"account-{number}", due=False)
    conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required'")
    page = browser.get("/").text
    assert len(findings(page)) == 10
    assert "Further findings: 2." in page


def test_rd_station_is_not_asked_while_the_page_is_made(
    make_services: Callable[[Settings], Services],
    sandbox_settings: Settings,
    sandbox: SandboxProcess,
    browser: Browser,
    conn: Conn,
) -> None:
    live = make_services(sandbox_settings)
    connect_account(live, sandbox)
    conn.execute("UPDATE rdstation_tokens SET expires_at = rd_now() - interval '1 hour'")
    before = sandbox.calls()
    app: Flask = create_app(live)
    page = Browser(app)
    assert page.log_in("ana@example.com", PASSWORD).status_code == 303
    assert "token_expired" in findings(page.get("/").text)
    assert sandbox.calls() == before
