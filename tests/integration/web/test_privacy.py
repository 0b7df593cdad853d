"""Erasing a person over HTTP."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from rdservice.access import audit, keys
from rdservice.services import Services
from rdservice.web import create_app
from tests.support.accounts import connect_account
from tests.support.browser import Browser
from tests.support.deliveries import ANA
from tests.support.sandbox_process import SandboxProcess

PATH = "/rd/privacy/erase"


@pytest.fixture
def app(connected: Services) -> Flask:
    return create_app(connected)


Ask = Callable[..., TestResponse]


@pytest.fixture
def ask(app: Flask, make_key: Callable[..., str]) -> Ask:
    """Sends requests with a key that may read leads and erase them."""
    headers = {"Authorization": f"Bearer {make_key('leads:read', 'privacy:erase')}"}
    program = Browser(app, accept="*/*")

    def send(method: str, path: str, **more: Any) -> TestResponse:
        return program.open(method, path, headers, **more)

    return send


def test_a_program_erases_a_person_and_is_told_in_numbers_what_went(
    ask: Ask, connected: Services, sandbox: SandboxProcess, conn: psycopg.Connection[Any]
) -> None:
    connect_account(connected, sandbox, due=False)
    listed = ask("GET", "/rd/leads?segmentation=1").get_json()
    email = listed["contacts"][0]["email"]
    assert ask("GET", f"/rd/leads/email/{email}").headers["X-Cache"] == "miss"
    response = ask("POST", PATH, json={"email": email.upper()})
    assert response.status_code == 200
    body = response.get_json()
    assert body["notes"][0].startswith("RD Station still has this person's data")
    del body["notes"]
    assert body == {
        "accounts": 1,
        "removed": {"cached_answers": 2, "events": 0},
        "left": 0,
        "unreadable": 0,
        "fetched_again": 0,
        "at_rd_station": None,
        "mentions": {},
        "audit_entry": audit.newest(conn, limit=1)[0].entry_id,
    }
    assert email.lower() not in response.text.lower()
    # RD Station still has the lead.
    assert ask("GET", f"/rd/leads/email/{email}").headers["X-Cache"] == "miss"


def test_a_program_erases_a_lead_by_its_uuid_here_and_at_rd_station(
    ask: Ask, connected: Services, sandbox: SandboxProcess
) -> None:
    connect_account(connected, sandbox, due=False)
    lead = ask("GET", "/rd/leads?segmentation=1").get_json()["contacts"][0]
    response = ask("POST", PATH, json={"uuid": lead["uuid"], "at_rd_station": True})
    assert response.get_json()["at_rd_station"] == {"leads": 1, "accounts": 1, "failed": []}
    assert response.get_json()["notes"] == []
    assert ask("GET", f"/rd/leads/{lead['uuid']}").status_code == 404
    assert ask("GET", f"/rd/leads/email/{lead['email']}").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (["ana@example.com"], 400, "bad_request"),
        ({}, 422, "invalid_field"),
        ({"email": None}, 422, "invalid_field"),
        ({"email": "nobody"}, 422, "invalid_field"),
        ({"uuid": "nobody"}, 422, "invalid_field"),
        ({"uuid": 7}, 422, "invalid_field"),
        ({"email": "ana@example.com", "uuid": ANA}, 422, "invalid_field"),
        ({"email": "ana@example.com", "at_rd_station": "yes"}, 422, "invalid_field"),
    ],
)
def test_what_names_nobody_is_refused(ask: Ask, body: object, status: int, code: str) -> None:
    response = ask("POST", PATH, json=body)
    assert (response.status_code, response.get_json()["code"]) == (status, code)
    assert ask("POST", PATH).status_code == 415


def test_no_other_scope_may_erase(app: Flask, make_key: Callable[..., str]) -> None:
    others = [scope for scope in keys.SCOPES if scope != "privacy:erase"]
    headers = {"Authorization": f"Bearer {make_key(*others)}"}
    response = Browser(app, accept="*/*").open("POST", PATH, headers, json={"email": "ana@example.com"})
    assert (response.status_code, response.get_json()["scope"]) == (403, "privacy:erase")


def test_an_operator_may_erase_with_a_csrf_token_only(
    signed_in: Browser, conn: psycopg.Connection[Any]
) -> None:
    body = {"email": "ana@example.com"}
    assert signed_in.open("POST", PATH, {"Accept": "*/*"}, json=body).status_code == 403
    token = {"Accept": "*/*", "X-CSRFToken": signed_in.csrf_token("/")}
    response = signed_in.open("POST", PATH, token, json=body)
    assert response.status_code == 200
    # The operator herself has that address: her account is no lead.
    assert response.get_json()["mentions"]["rdservice_operators"] == 1
    entry = audit.newest(conn, limit=1)[0]
    assert (entry.action, entry.actor_kind, entry.origin) == ("person_erased", "operator", f"POST {PATH}")
