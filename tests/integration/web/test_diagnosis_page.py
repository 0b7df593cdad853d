"""The page that gives the diagnosis as a file."""

import json
import threading
from typing import Any

import psycopg
import pytest
from flask import Flask

from rdservice.diagnosis.report.build import diagnose_running
from rdservice.diagnosis.report.report_file import NAME
from rdservice.services import Services
from rdservice.web import create_app
from rdservice.web.pages import diagnosis as page
from tests.integration.web.conftest import EMAIL, PASSWORD
from tests.support.accounts import connect_account
from tests.support.browser import Browser
from tests.support.sandbox_process import SandboxProcess


@pytest.fixture
def app(connected: Services) -> Flask:
    return create_app(connected)


def test_the_page_says_what_the_file_holds_and_does_not_hold(signed_in: Browser) -> None:
    shown = signed_in.get("/diagnosis").text
    assert "You can send it to anyone who helps you." in shown
    assert "no token, password, key or other secret" in shown
    assert NAME in shown


def test_the_button_gives_the_file_and_it_may_be_sent_to_a_stranger(
    signed_in: Browser, connected: Services, sandbox: SandboxProcess, conn: psycopg.Connection[Any]
) -> None:
    pair = connect_account(connected, sandbox, account_id="joana@example.com", due=False)
    conn.execute("UPDATE rdstation_tokens SET name = 'Padaria da Joana'")
    response = signed_in.submit("/diagnosis", "/diagnosis")
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert response.headers["Content-Disposition"] == f'attachment; filename="{NAME}"'
    assert response.headers["Cache-Control"] == "no-store"
    content = json.loads(response.data)
    assert content["leads_call"]["result"] == "ok"
    assert [account["account_id"] for account in content["accounts"]["shown"]] == ["e-mail-1"]
    settings = connected.settings
    secrets = [
        pair["access_token"],
        pair["refresh_token"],
        settings.secret_key,
        *settings.client_secrets,
        EMAIL,
        "joana",
        "Padaria",
    ]
    assert not [secret for secret in secrets if secret in response.text]


def test_it_renews_nothing(signed_in: Browser, connected: Services, sandbox: SandboxProcess) -> None:
    connect_account(connected, sandbox, due=False)
    signed_in.submit("/diagnosis", "/diagnosis")
    assert sandbox.calls()["token_refresh"] == {}
    assert sandbox.calls()["segmentations_list"]


def test_a_second_one_at_the_same_time_is_told_to_wait_and_the_first_one_ends(
    app: Flask, signed_in: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = threading.Event(), threading.Event()
    diagnose = diagnose_running

    def slowly(*arguments: Any, **more: Any) -> Any:
        begun.set()
        assert may_end.wait(60)
        return diagnose(*arguments, **more)

    monkeypatch.setattr(page, "diagnose_running", slowly)
    statuses: list[int] = []
    first = threading.Thread(
        target=lambda: statuses.append(signed_in.submit("/diagnosis", "/diagnosis").status_code)
    )
    other = Browser(app, accept="application/json")
    other.log_in(EMAIL, PASSWORD)
    token = other.csrf_token("/diagnosis")
    first.start()
    try:
        assert begun.wait(60)
        second = other.open("POST", "/diagnosis", {"X-CSRFToken": token})
        assert (second.status_code, (second.json or {})["code"]) == (429, "too_many_requests")
        assert second.headers["Retry-After"] == str(page.LONGEST_S)
        assert other.get("/healthz").status_code == 200
    finally:
        may_end.set()
        first.join()
    assert statuses == [200]
    assert other.open("POST", "/diagnosis", {"X-CSRFToken": token}).status_code == 200


def test_one_that_breaks_off_leaves_the_way_free(signed_in: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*arguments: Any, **more: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(page, "diagnose_running", break_down)
        assert signed_in.submit("/diagnosis", "/diagnosis").status_code == 500
    assert signed_in.submit("/diagnosis", "/diagnosis").status_code == 200
