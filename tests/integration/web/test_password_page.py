"""The page on which operators change their own password."""

from typing import Any

import psycopg
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from rdservice.access import audit, operators, passwords, throttle
from tests.integration.web.conftest import EMAIL, PASSWORD
from tests.support.browser import Browser

Conn = psycopg.Connection[Any]
NEW = "another horse, another battery"


def change(
    browser: Browser, current: str = PASSWORD, new: str = NEW, again: str | None = None
) -> TestResponse:
    return browser.submit(
        "/password",
        "/password",
        current_password=current,
        new_password=new,
        new_password_again=new if again is None else again,
    )


def session_cookie(browser: Browser) -> str:
    cookie = browser.client.get_cookie("rdservice_session_8000")
    assert cookie is not None
    return cookie.value


def test_the_password_is_changed_and_the_other_sessions_end(
    app: Flask, signed_in: Browser, conn: Conn
) -> None:
    elsewhere = Browser(app)
    elsewhere.log_in(EMAIL, PASSWORD)
    stolen = Browser(app)
    stolen.client.set_cookie("rdservice_session_8000", session_cookie(signed_in))
    assert stolen.get("/password").status_code == 200
    response = change(signed_in)
    assert (response.status_code, response.location) == (303, "/")
    assert "Your password was changed." in signed_in.get("/").text
    assert elsewhere.get("/").status_code == 302
    assert stolen.get("/").status_code == 302, "this browser's session has a new id"
    assert Browser(app).log_in(EMAIL, PASSWORD).status_code == 401
    assert Browser(app).log_in(EMAIL, NEW).status_code == 303
    entry = next(entry for entry in audit.newest(conn, limit=5) if entry.action == "password_changed")
    assert (entry.actor_name, entry.subject, entry.details) == (EMAIL, EMAIL, {})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"current": "guessed wrong"}, "This is not your current password."),
        ({"new": "too short"}, "at least 12 characters"),
        ({"new": "x" * 1001}, "not over 1000 bytes"),
        ({"again": "something else"}, "The passwords do not match."),
        ({"current": "", "new": "", "again": ""}, "at least 12 characters"),
    ],
)
def test_a_wrong_field_changes_nothing_and_says_which(
    app: Flask, signed_in: Browser, fields: dict[str, str], message: str
) -> None:
    response = change(signed_in, **fields)
    assert response.status_code == 422
    assert message in response.text
    assert response.text.count('class="field-error"') == 1
    assert not [text for text in (*fields.values(), NEW, PASSWORD) if text and f'"{text}"' in response.text]
    assert signed_in.get("/").status_code == 200
    assert Browser(app).log_in(EMAIL, PASSWORD).status_code == 303


def test_programs_are_told_the_field(app: Flask, operator: operators.Operator) -> None:
    browser = Browser(app, accept="application/json")
    browser.log_in(EMAIL, PASSWORD)
    token = Browser.csrf_token(browser, "/password")
    response = browser.open("POST", "/password", data={"csrf_token": token, "new_password": "short"})
    assert (response.status_code, (response.json or {})["field"]) == (422, "new_password_again")


def test_guessing_the_current_password_is_throttled_with_log_ins_and_audited(
    signed_in: Browser, conn: Conn
) -> None:
    for _ in range(throttle.LOGINS_PER_ADDRESS_AND_EMAIL):
        assert change(signed_in, current="guessed wrong").status_code == 422
    response = change(signed_in)
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) > 0
    failed = [entry for entry in audit.newest(conn, limit=20) if entry.action == "login_failed"]
    assert [(entry.subject, entry.origin, entry.actor_name) for entry in failed] == [
        (EMAIL, "POST /password", EMAIL)
    ]
    everything = str(conn.execute("SELECT a::text FROM rdservice_audit a").fetchall())
    assert not [text for text in (PASSWORD, NEW, "guessed") if text in everything]


def test_a_right_password_is_not_counted_as_an_attempt(signed_in: Browser, conn: Conn) -> None:
    change(signed_in)
    assert conn.execute("SELECT sum(failures) FROM rdservice_access_failures").fetchone() == (0,)


def test_a_reset_in_between_wins(
    signed_in: Browser, conn: Conn, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = passwords.verify

    def reset_after(password_hash: str | None, password: str) -> bool:
        right = verify(password_hash, password)
        operators.reset_password(conn, EMAIL, passwords.hash_password("set by whoever runs it"))
        return right

    monkeypatch.setattr(passwords, "verify", reset_after)
    assert change(signed_in).status_code == 422
    monkeypatch.undo()
    assert Browser(app).log_in(EMAIL, NEW).status_code == 401
