"""`/rd/api/<path>` over HTTP, with the sandbox as RD Station."""

import socket
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from rdservice.gunicorn_hooks.worker_class import ClientSocket
from rdservice.passthrough.relay import relay
from rdservice.rdstation.streaming import StreamedResponse
from rdservice.services import Services
from rdservice.web import create_app
from rdservice.web.api import passthrough
from rdservice.web.api.passthrough import MAX_UPLOAD_BYTES, REPEATABLE_BYTES
from tests.integration.web.conftest import EMAIL, PASSWORD
from tests.support.accounts import connect_account, stored_pair
from tests.support.browser import Browser
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

Conn = psycopg.Connection[Any]
CONVERSION = {
    "event_type": "CONVERSION",
    "event_family": "CDP",
    "payload": {"conversion_identifier": "form", "email": "nova@example.com", "name": "Nova"},
}


@pytest.fixture
def app(connected: Services) -> Flask:
    return create_app(connected)


Ask = Callable[..., TestResponse]


@pytest.fixture
def ask(app: Flask, make_key: Callable[..., str]) -> Ask:
    """Sends a request as a program with an API key."""
    browser = Browser(app, accept="*/*")
    authorization = {"Authorization": f"Bearer {make_key('api:call')}"}

    def ask(method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> TestResponse:
        return browser.open(method, f"/rd/api{path}", authorization | (headers or {}), **more)

    return ask


@pytest.fixture
def pair(connected: Services, sandbox: SandboxProcess) -> dict[str, Any]:
    return connect_account(connected, sandbox, due=False)


def test_a_route_of_rd_station_is_read_with_the_services_token(ask: Ask, pair: dict[str, Any]) -> None:
    response = ask("GET", "/platform/contacts/fields")
    assert response.status_code == 200
    assert response.headers["X-Answer-From"] == "rdstation"
    assert response.json is not None
    assert response.json["fields"]


def test_what_a_program_writes_takes_effect(ask: Ask, pair: dict[str, Any]) -> None:
    assert ask("POST", "/platform/events?event_type=conversion", json=CONVERSION).status_code == 200
    path = "/platform/contacts/email:nova@example.com"
    assert (ask("GET", path).json or {})["name"] == "Nova"
    changed = ask("PATCH", path, json={"name": "Nova Silva"})
    assert (changed.status_code, (changed.json or {})["name"]) == (200, "Nova Silva")
    assert (ask("GET", path).json or {})["name"] == "Nova Silva"
    funnel = {"lifecycle_stage": "Client", "opportunity": True, "contact_owner_email": None}
    assert ask("PUT", f"{path}/funnels/default", json=funnel).status_code == 200
    assert (ask("GET", f"{path}/funnels/default").json or {})["lifecycle_stage"] == "Client"


def test_webhooks_can_be_subscribed_and_deleted(ask: Ask, pair: dict[str, Any]) -> None:
    wanted = {
        "event_type": "WEBHOOK.CONVERTED",
        "entity_type": "CONTACT",
        "url": "https://example.com/hook",
        "http_method": "POST",
    }
    made = ask("POST", "/integrations/webhooks", json=wanted)
    assert made.status_code in (200, 201)
    uuid = (made.json or {})["uuid"]
    assert ask("DELETE", f"/integrations/webhooks/{uuid}").status_code in (200, 204)
    assert ask("GET", f"/integrations/webhooks/{uuid}").status_code == 404


def test_rd_stations_own_errors_come_back_as_they_are(ask: Ask, pair: dict[str, Any]) -> None:
    response = ask("GET", "/platform/contacts/7a1f8e0c-2b0c-4b0e-9b57-7d1f4f0c2a11")
    assert (response.status_code, response.headers["X-Answer-From"]) == (404, "rdstation")
    assert "RESOURCE_NOT_FOUND" in response.text
    assert response.mimetype == "application/json"


def test_an_error_of_this_service_is_told_apart(ask: Ask) -> None:
    response = ask("GET", "/platform/contacts/fields")
    assert (response.status_code, response.mimetype) == (409, "application/problem+json")
    assert (response.json or {})["code"] == "not_connected"
    assert "X-Answer-From" not in response.headers


def test_paging_of_rd_station_comes_back_and_nothing_may_be_kept(ask: Ask, pair: dict[str, Any]) -> None:
    response = ask("GET", "/platform/segmentations/1/contacts?page=2&page_size=3")
    assert response.headers["pagination-page"] == "2"
    assert len((response.json or {})["contacts"]) == 3
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Length"] == str(len(response.data))


def test_head_has_the_headers_without_a_body(ask: Ask, pair: dict[str, Any]) -> None:
    response = ask("HEAD", "/platform/contacts/fields")
    assert response.data == b""
    assert response.headers["X-Answer-From"] == "rdstation"


def test_the_account_is_named_by_a_header(
    ask: Ask, pair: dict[str, Any], connected: Services, sandbox: SandboxProcess
) -> None:
    connect_account(connected, sandbox, "loja são joão", rd_account="account-2", due=False)
    mine = ask("GET", "/marketing/account_info").json
    # As bytes of UTF-8, which WSGI shows as Latin-1.
    other = {"RD-Account": "loja são joão".encode().decode("latin-1")}
    assert ask("GET", "/marketing/account_info", other).json != mine
    missing = ask("GET", "/marketing/account_info", {"RD-Account": "absent"})
    assert (missing.status_code, (missing.json or {})["code"]) == (409, "not_connected")
    for bad in ("a/b", "ã", "x" * 201, ""):
        response = ask("GET", "/marketing/account_info", {"RD-Account": bad})
        assert (response.status_code, (response.json or {})["field"]) == (422, "account_id"), bad


@pytest.mark.parametrize(
    "path", ["/auth/token", "/auth/token?token_by=code", "/auth/dialog", "/AUTH/token", "/%61uth/token"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_token_routes_are_closed(
    ask: Ask, pair: dict[str, Any], sandbox: SandboxProcess, path: str, method: str
) -> None:
    before = sandbox.calls()
    response = ask(method, path)
    assert (response.status_code, (response.json or {})["code"]) == (403, "route_forbidden")
    assert sandbox.calls() == before


@pytest.mark.parametrize(
    "path",
    [
        "/platform/../auth/token",
        "/platform//contacts",
        "/platform/%2e%2e/x",
        "/platform/%5cx",
        "/platform/%00",
    ],
)
def test_a_path_that_can_be_read_in_two_ways_is_refused(ask: Ask, pair: dict[str, Any], path: str) -> None:
    response = ask("GET", path)
    assert (response.status_code, (response.json or {})["code"]) == (400, "bad_request")


def test_a_refused_token_is_renewed_and_the_request_repeated(
    ask: Ask, pair: dict[str, Any], connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    sandbox.patch(faults=[{"operation": "other", "kind": "status", "status": 401, "count": 1}])
    assert ask("POST", "/platform/events?event_type=conversion", json=CONVERSION).status_code == 200
    calls = sandbox.calls()
    assert (calls["other"], calls["token_refresh"]) == ({"401": 1, "200": 1}, {"200": 1})
    assert stored_pair(connected, conn)[0] != pair["access_token"]


def test_a_second_refusal_is_the_answer(ask: Ask, pair: dict[str, Any], sandbox: SandboxProcess) -> None:
    sandbox.patch(faults=[{"operation": "other", "kind": "status", "status": 401}])
    response = ask("GET", "/platform/contacts/fields")
    assert (response.status_code, response.headers["X-Answer-From"]) == (401, "rdstation")
    assert sandbox.calls()["other"] == {"401": 2}


def test_a_body_that_passed_through_is_not_repeated_but_the_token_is_renewed(
    ask: Ask, pair: dict[str, Any], connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    sandbox.patch(faults=[{"operation": "other", "kind": "status", "status": 401, "count": 1}])
    large = CONVERSION | {"padding": "x" * (REPEATABLE_BYTES + 1)}
    response = ask("POST", "/platform/events?event_type=conversion", json=large)
    assert (response.status_code, (response.json or {})["reached_rd_station"]) == (503, "no")
    assert response.headers["Retry-After"] == "1"
    assert stored_pair(connected, conn)[0] != pair["access_token"]
    assert ask("POST", "/platform/events?event_type=conversion", json=large).status_code == 200


def test_a_revoked_account_is_told_to_connect_again(
    ask: Ask, pair: dict[str, Any], sandbox: SandboxProcess
) -> None:
    sandbox.revoke("default")
    response = ask("GET", "/platform/contacts/fields")
    assert (response.status_code, (response.json or {})["code"]) == (409, "reauthorization_required")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("status", [502, 503, 504])
def test_what_may_be_done_twice_is_repeated_when_rd_station_fails_for_a_moment(
    ask: Ask, pair: dict[str, Any], sandbox: SandboxProcess, method: str, status: int
) -> None:
    sandbox.patch(faults=[{"operation": "other", "kind": "status", "status": status, "count": 2}])
    assert ask(method, "/platform/nowhere").status_code == 404
    assert sandbox.calls()["other"] == {str(status): 2, "404": 1}


def test_after_two_repetitions_the_failure_is_the_answer(
    ask: Ask, pair: dict[str, Any], sandbox: SandboxProcess
) -> None:
    sandbox.patch(faults=[{"operation": "other", "kind": "status", "status": 503}])
    response = ask("GET", "/platform/contacts/fields")
    assert (response.status_code, response.headers["X-Answer-From"]) == (503, "rdstation")
    assert sandbox.calls()["other"] == {"503": 3}


@pytest.mark.parametrize("kind", ["status", "drop_before", "drop_after"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_what_may_not_be_done_twice_is_never_repeated(
    ask: Ask, pair: dict[str, Any], sandbox: SandboxProcess, method: str, kind: str
) -> None:
    fault = {"operation": "other", "kind": kind} | ({"status": 503} if kind == "status" else {})
    sandbox.patch(faults=[fault])
    response = ask(method, "/platform/contacts/email:nova@example.com", json={"name": "x"})
    assert response.status_code == 503
    assert sum(sandbox.calls()["other"].values()) == 1
    if kind != "status":
        assert (response.json or {})["reached_rd_station"] == "unknown"
        assert "check before you repeat it" in (response.json or {})["detail"]


def test_a_cut_connection_is_worth_another_attempt_for_what_may_be_done_twice(
    ask: Ask, pair: dict[str, Any], sandbox: SandboxProcess
) -> None:
    sandbox.patch(faults=[{"operation": "other", "kind": "drop_before", "count": 1}])
    assert ask("GET", "/platform/contacts/fields").status_code == 200


def test_a_server_error_that_is_not_passing_is_the_answer(
    ask: Ask, pair: dict[str, Any], sandbox: SandboxProcess
) -> None:
    sandbox.patch(faults=[{"operation": "other", "kind": "status", "status": 500}])
    assert ask("GET", "/platform/contacts/fields").status_code == 500
    assert sandbox.calls()["other"] == {"500": 1}


def test_rd_stations_429_is_passed_on_once_and_closes_the_budget(
    ask: Ask, pair: dict[str, Any], sandbox: SandboxProcess
) -> None:
    sandbox.patch(
        faults=[{"operation": "other", "kind": "status", "status": 429, "retry_after": 30, "count": 1}]
    )
    first = ask("GET", "/platform/contacts/fields")
    assert (first.status_code, first.headers["X-Answer-From"], first.headers["Retry-After"]) == (
        429,
        "rdstation",
        "30",
    )
    second = ask("GET", "/platform/contacts/fields")
    assert (second.status_code, (second.json or {})["code"]) == (429, "too_many_requests")
    assert 20 <= int(second.headers["Retry-After"]) <= 30
    assert sandbox.calls()["other"] == {"429": 1}


def test_a_page_of_rd_station_is_no_active_content_of_this_service(
    ask: Ask, pair: dict[str, Any], sandbox: SandboxProcess
) -> None:
    sandbox.patch(faults=[{"operation": "other", "kind": "html"}])
    response = ask("GET", "/platform/contacts/fields")
    assert response.mimetype == "text/html"
    policy = response.headers["Content-Security-Policy"]
    assert "sandbox" in policy
    assert "default-src 'none'" in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_page_may_not_embed_what_rd_station_answers(ask: Ask, pair: dict[str, Any]) -> None:
    for destination in ("script", "style", "iframe", "image"):
        response = ask("GET", "/platform/contacts/fields", {"Sec-Fetch-Dest": destination})
        assert (response.status_code, (response.json or {})["code"]) == (403, "route_forbidden")
    assert ask("GET", "/platform/contacts/fields", {"Sec-Fetch-Dest": "empty"}).status_code == 200


def test_a_body_over_the_bound_is_refused_before_anything_is_sent(
    ask: Ask, pair: dict[str, Any], sandbox: SandboxProcess
) -> None:
    response = ask("POST", "/platform/events", data=b"x" * (MAX_UPLOAD_BYTES + 1))
    assert (response.status_code, (response.json or {})["code"]) == (413, "payload_too_large")
    assert "10 MiB" in (response.json or {})["detail"]
    assert sandbox.calls()["other"] == {}


def test_an_operator_may_use_it_with_the_csrf_token_in_the_header(
    app: Flask, operator: object, pair: dict[str, Any]
) -> None:
    browser = Browser(app)
    assert browser.log_in(EMAIL, PASSWORD).status_code == 303
    assert browser.get("/rd/api/platform/contacts/fields").status_code == 200
    path = "/rd/api/platform/contacts/email:nova@example.com"
    token = browser.csrf_token("/")
    refused = browser.open("PATCH", path, {"Accept": "*/*"}, json={"name": "x"})
    assert (refused.status_code, (refused.json or {})["code"]) == (403, "csrf_failed")
    in_the_body = {"csrf_token": token}
    form = browser.open("PATCH", path, {"Accept": "*/*"}, data=in_the_body)
    assert (form.status_code, (form.json or {})["code"]) == (403, "csrf_failed")
    changed = browser.open("PATCH", path, {"X-CSRFToken": token}, json={"name": "Nova"})
    assert changed.status_code == 200


def test_calls_are_counted_with_what_came_of_them(
    ask: Ask, pair: dict[str, Any], connected: Services, sandbox: SandboxProcess
) -> None:
    ask("GET", "/platform/contacts/fields")
    ask("GET", "/platform/nowhere")
    sandbox.patch(faults=[{"operation": "other", "kind": "drop_before"}])
    ask("POST", "/platform/events", json={})

    def count(name: str, **labels: str) -> float:
        found = {"operation": "other", **labels}
        return connected.metrics.current()[name, tuple(sorted(found.items()))]

    def requests_of(status_class: str) -> float:
        return count("rdstation_api_requests_total", status_class=status_class)

    wait_until(lambda: requests_of("none") == 1, "all calls are counted")
    assert (requests_of("2xx"), requests_of("4xx")) == (1, 1)
    assert count("rdstation_api_failures_total", reason="connection") == 1
    assert count("rdstation_api_failures_total", reason="client_error") == 1
    assert count("rdstation_api_request_duration_seconds_count") == 3


def test_a_call_knows_whether_its_client_is_still_connected(
    ask: Ask, pair: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    seen = []

    def relay_after_the_client_has_gone(
        *args: Any, is_connected: Callable[[], bool], **named: Any
    ) -> StreamedResponse:
        seen.append(is_connected())
        theirs.close()
        seen.append(is_connected())
        return relay(*args, **named)

    monkeypatch.setattr(passthrough, "relay", relay_after_the_client_has_gone)
    with ours:
        client = ClientSocket(ours, threading.BoundedSemaphore(1))
        ask("GET", "/platform/contacts/fields", environ_overrides={"gunicorn.socket": client})
    assert seen == [True, False]
