"""Exports over HTTP: their forms, and how their end can be told from their being cut off."""

import csv
import io
import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from rdservice.access import audit
from rdservice.config.settings import Settings
from rdservice.services import Services
from rdservice.web import create_app
from rdservice.web.api import export
from tests.support.accounts import connect_account
from tests.support.browser import Browser
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
LEADS = 300
EXPORT = "/rd/leads/export"


@pytest.fixture
def app(
    make_services: Callable[[Settings], Services], variables: dict[str, str], sandbox: SandboxProcess
) -> Flask:
    sandbox.patch(rate_limit=None, leads=LEADS)
    more = {"RDSTATION_API_URL": sandbox.url, "RDSTATION_RATE_LIMIT": "100000"}
    services = make_services(Settings.from_mapping(variables | more))
    connect_account(services, sandbox, due=False)
    return create_app(services)


@pytest.fixture
def get(app: Flask, make_key: Callable[..., str]) -> Callable[..., TestResponse]:
    """Asks as a program does."""
    browser = Browser(app, accept="*/*")
    authorization = {"Authorization": f"Bearer {make_key('leads:read')}"}

    def ask(path: str = EXPORT, method: str = "GET", **headers: str) -> TestResponse:
        return browser.open(method, path, authorization | headers)

    return ask


def lines(response: TestResponse) -> list[dict[str, Any]]:
    assert response.data.endswith(b"\n") or not response.data
    return [json.loads(line) for line in response.data.splitlines()]


def test_an_export_is_a_line_of_json_for_every_lead(get: Callable[..., TestResponse]) -> None:
    response = get()
    assert (response.status_code, response.mimetype) == (200, "application/x-ndjson")
    assert response.headers["Content-Disposition"] == "attachment; filename=leads.ndjson"
    assert response.headers["Cache-Control"] == "no-store"
    assert "Content-Length" not in response.headers
    assert len({lead["uuid"] for lead in lines(response)}) == LEADS


def test_an_export_is_csv_for_whoever_asks_for_it(get: Callable[..., TestResponse]) -> None:
    for response in (get(f"{EXPORT}?format=csv"), get(Accept="text/csv")):
        assert (response.status_code, response.mimetype) == (200, "text/csv")
        assert response.headers["Content-Disposition"] == "attachment; filename=leads.csv"
        rows = list(csv.reader(io.StringIO(response.data.decode("utf-8-sig"), newline="")))
        assert rows[0] == ["uuid", "name", "email", "last_conversion_date", "created_at"]
        assert len(rows) == LEADS + 1


def test_the_format_of_the_query_goes_before_the_one_that_is_accepted(
    get: Callable[..., TestResponse],
) -> None:
    assert get(f"{EXPORT}?format=ndjson", Accept="text/csv").mimetype == "application/x-ndjson"


@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_what_follows_a_break_makes_the_whole(get: Callable[..., TestResponse], form: str) -> None:
    leads, whole = lines(get()), get(f"{EXPORT}?format={form}").data
    last = leads[201]
    after = quote(f"{last['created_at']},{last['uuid']}")
    rest = get(f"{EXPORT}?format={form}&after={after}").data
    assert whole.endswith(rest)
    assert len(rest.splitlines()) == LEADS - 202


def test_full_records_have_more(get: Callable[..., TestResponse]) -> None:
    assert {"job_title", "cf_segmento", "created_at"} <= lines(get(f"{EXPORT}?segmentation=7&full=true"))[
        0
    ].keys()


def test_an_operator_may_export_in_a_browser(app: Flask, signed_in: Browser) -> None:
    assert signed_in.get(EXPORT).mimetype == "application/x-ndjson"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("account_id=absent", 409, "not_connected"),
        ("segmentation=999", 404, "not_found"),
        ("segmentation=", 422, "invalid_field"),
        ("format=xlsx", 422, "invalid_field"),
        ("full=1", 422, "invalid_field"),
        ("after=yesterday", 422, "invalid_field"),
    ],
)
def test_an_export_that_cannot_begin_is_a_problem_document(
    get: Callable[..., TestResponse], query: str, status: int, code: str
) -> None:
    response = get(f"{EXPORT}?{query}")
    assert (response.status_code, response.mimetype) == (status, "application/problem+json")
    assert response.json is not None
    assert response.json["code"] == code


def test_an_export_that_fails_in_the_middle_is_cut_off(
    app: Flask, get: Callable[..., TestResponse], sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rdservice.leads.export.run.RETRY_PAUSES_S", (0.0,))
    response = app.test_client().get(EXPORT, headers=_authorization(get), buffered=False)
    sandbox.patch(faults=[{"operation": "contacts_list", "kind": "status", "status": 500}])
    # The server then closes the connection without the end of the body: tests/e2e/test_exports.py.
    with pytest.raises(BrokenPipeError):
        assert response.data


def _authorization(get: Callable[..., TestResponse]) -> dict[str, str]:
    return {"Authorization": get(f"{EXPORT}?segmentation=10").request.headers["Authorization"]}


def test_no_more_than_four_exports_run_in_a_process_and_each_gives_its_place_back(
    app: Flask, get: Callable[..., TestResponse]
) -> None:
    authorization = _authorization(get)
    running = [
        app.test_client().get(EXPORT, headers=authorization, buffered=False) for _ in range(export.AT_ONCE)
    ]
    refused = get()
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "30")
    running[0].close()
    assert get().status_code == 200
    assert len(running[1].data.splitlines()) == LEADS
    for response in running[1:]:
        response.close()
    places = app.extensions[export.PLACES]
    assert isinstance(places, threading.BoundedSemaphore)
    assert all(places.acquire(blocking=False) for _ in range(export.AT_ONCE))


def test_an_export_that_cannot_begin_gives_its_place_back(get: Callable[..., TestResponse]) -> None:
    for _ in range(export.AT_ONCE + 1):
        assert get(f"{EXPORT}?account_id=absent").status_code == 409


def test_the_audit_says_who_exported_which_segmentation(get: Callable[..., TestResponse], conn: Conn) -> None:
    get(f"{EXPORT}?segmentation=5&format=csv&full=false")
    entry = audit.newest(conn, limit=1)[0]
    assert (entry.action, entry.actor_kind, entry.subject) == ("leads_exported", "key", "5")
    assert entry.origin == "GET /rd/leads/export"
    assert entry.details == {"format": "csv", "full": False, "resumed": False}


def test_a_lead_cannot_be_called_export(get: Callable[..., TestResponse]) -> None:
    assert get(method="POST").status_code == 405
