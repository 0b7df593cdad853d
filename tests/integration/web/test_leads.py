"""Leads over HTTP: who may read them, which headers they come with, and what errors look like."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from rdservice.services import Services
from rdservice.web import create_app
from tests.conftest import Clock
from tests.support.accounts import connect_account
from tests.support.browser import Browser
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
PAGING = {"pagination-page": "1", "pagination-page-size": "25", "pagination-total-rows": "1000"}


@pytest.fixture
def app(connected: Services) -> Flask:
    return create_app(connected)


class Program:
    """A program with an API key."""

    def __init__(self, app: Flask, key: str) -> None:
        self._browser = Browser(app, accept="*/*")
        self._authorization = {"Authorization": f"Bearer {key}"}

    def get(self, path: str, **headers: str) -> TestResponse:
        return self.open("GET", path, **headers)

    def open(self, method: str, path: str, *, json: object = None, **headers: str) -> TestResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        more = {} if json is None else {"json": json}
        return self._browser.open(method, path, self._authorization | named, **more)


@pytest.fixture
def program(app: Flask, make_key: Callable[..., str]) -> Program:
    return Program(app, make_key("leads:read"))


@pytest.fixture
def pair(connected: Services, sandbox: SandboxProcess) -> dict[str, Any]:
    return connect_account(connected, sandbox, due=False)


def test_leads_come_with_rd_stations_body_and_paging_and_say_how_old_they_are(
    program: Program, sandbox: SandboxProcess, pair: dict[str, Any]
) -> None:
    first = program.get("/rd/leads")
    assert (first.status_code, first.mimetype) == (200, "application/json")
    assert first.json is not None
    assert len(first.json["contacts"]) == 25
    assert {name: first.headers[name] for name in PAGING} == PAGING
    assert first.headers["X-Cache"] == "miss"
    assert int(first.headers["Age"]) <= 2
    again = program.get("/rd/leads?page=1&page_size=25")
    assert again.headers["X-Cache"] == "hit"
    assert again.data == first.data
    assert again.headers["ETag"] == first.headers["ETag"]
    assert sandbox.calls()["contacts_list"] == {"200": 1}


def test_leads_are_kept_by_no_shared_cache(program: Program, pair: dict[str, Any]) -> None:
    assert program.get("/rd/leads").headers["Cache-Control"] == "private, no-cache"


def test_who_has_the_current_leads_is_told_so(program: Program, pair: dict[str, Any]) -> None:
    etag = program.get("/rd/leads").headers["ETag"]
    assert etag.startswith('"')
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        response = program.get("/rd/leads", If_None_Match=known)
        assert (response.status_code, response.data) == (304, b"")
        assert response.headers["ETag"] == etag
        assert response.headers["Cache-Control"] == "private, no-cache"
        assert {name: response.headers[name] for name in PAGING} == PAGING
    for unknown in ('"other"', etag.strip('"')[:-1], ""):
        assert program.get("/rd/leads", If_None_Match=unknown).status_code == 200
    assert program.get("/rd/leads?page=2").headers["ETag"] != etag


def test_head_answers_without_body(program: Program, pair: dict[str, Any]) -> None:
    got = program.get("/rd/leads")
    head = program.open("HEAD", "/rd/leads")
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == str(len(got.data))
    assert head.headers["ETag"] == got.headers["ETag"]


def test_one_lead_is_the_same_by_uuid_by_path_and_by_lookup(program: Program, pair: dict[str, Any]) -> None:
    listed = program.get("/rd/leads").json
    assert listed is not None
    uuid, email = listed["contacts"][0]["uuid"], listed["contacts"][0]["email"]
    by_uuid = program.get(f"/rd/leads/{uuid}")
    by_path = program.get(f"/rd/leads/email/{email}")
    by_lookup = program.open("POST", "/rd/leads/lookup", json={"email": email})
    assert by_uuid.json is not None
    assert by_uuid.json["email"] == email
    assert by_uuid.data == by_path.data == by_lookup.data
    assert by_path.headers["ETag"] == by_lookup.headers["ETag"]
    # RFC 9110 13.1.2: on other methods than GET and HEAD a 304 would be wrong.
    known = by_lookup.headers["ETag"]
    assert (
        program.open("POST", "/rd/leads/lookup", json={"email": email}, If_None_Match=known).status_code
        == 200
    )


def test_an_address_with_a_slash_can_be_read_by_path(
    program: Program, sandbox: SandboxProcess, pair: dict[str, Any]
) -> None:
    assert program.get("/rd/leads/email/a%2Fb@example.com").status_code == 404
    assert sandbox.calls()["contact_get"] == {"404": 1}


def test_segmentations_are_listed_and_one_can_be_named(program: Program, pair: dict[str, Any]) -> None:
    listed = program.get("/rd/segmentations?page_size=3&order=name:desc")
    assert listed.json is not None
    assert len(listed.json["segmentations"]) == 3
    assert listed.headers["pagination-total-rows"] == "10"
    by_name = program.get("/rd/leads?segmentation=Assinantes da newsletter")
    assert by_name.data == program.get("/rd/leads?segmentation=5").data


def test_each_account_has_its_own(program: Program, connected: Services, sandbox: SandboxProcess) -> None:
    connect_account(connected, sandbox, "shop", rd_account="account-2", due=False)
    assert program.get("/rd/leads?account_id=shop").status_code == 200
    missing = program.get("/rd/leads")
    assert (missing.status_code, (missing.json or {})["code"]) == (409, "not_connected")
    assert (missing.json or {})["reauthorize_url"] == "http://localhost:8000/rd/login?account_id=default"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/rd/leads?page=0", "page"),
        ("/rd/leads?page_size=126", "page_size"),
        ("/rd/leads?order=name", "order"),
        ("/rd/leads?segmentation=", "segmentation"),
        ("/rd/leads?account_id=", "account_id"),
        ("/rd/segmentations?page=x", "page"),
        ("/rd/leads/4711", "uuid"),
        ("/rd/leads/email/nobody", "email"),
    ],
)
def test_a_wrong_parameter_is_named_without_a_call(
    program: Program, sandbox: SandboxProcess, pair: dict[str, Any], path: str, field: str
) -> None:
    response = program.get(path)
    assert response.json is not None
    assert (response.status_code, response.json["code"], response.json["field"]) == (
        422,
        "invalid_field",
        field,
    )
    assert not any(sandbox.calls()[name] for name in ("contacts_list", "contact_get", "segmentations_list"))


def test_the_lookup_has_no_other_method_than_post(program: Program, pair: dict[str, Any]) -> None:
    response = program.get("/rd/leads/lookup")
    assert (response.status_code, (response.json or {})["code"]) == (405, "method_not_allowed")
    for one in (response, program.open("OPTIONS", "/rd/leads/lookup")):
        assert {method.strip() for method in one.headers["Allow"].split(",")} == {"POST", "OPTIONS"}


def test_a_lookup_wants_a_json_object_with_an_address(
    program: Program, pair: dict[str, Any], app: Flask
) -> None:
    def look_up(body: object) -> tuple[int, str]:
        response = program.open("POST", "/rd/leads/lookup", json=body)
        assert response.json is not None
        return response.status_code, response.json["code"]

    assert look_up(["ana@example.com"]) == (400, "bad_request")
    assert look_up({}) == (422, "invalid_field")
    assert look_up({"email": 7}) == (422, "invalid_field")
    assert look_up({"email": "nobody@example.com"}) == (404, "not_found")
    assert program.open("POST", "/rd/leads/lookup").status_code == 415


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/rd/leads"),
        ("GET", "/rd/leads/6a0ff8d2-7c2a-4f5e-9b1d-0123456789ab"),
        ("GET", "/rd/leads/email/ana@example.com"),
        ("POST", "/rd/leads/lookup"),
        ("GET", "/rd/segmentations"),
    ],
)
def test_leads_need_the_scope_leads_read(
    app: Flask, make_key: Callable[..., str], pair: dict[str, Any], method: str, path: str
) -> None:
    assert Browser(app, accept="*/*").open(method, path).status_code == 401
    others = Program(app, make_key("tokens:read", "tokens:write", "tokens:status", "api:call"))
    refused = others.open(method, path, json={"email": "ana@example.com"} if method == "POST" else None)
    assert (refused.status_code, (refused.json or {})["code"]) == (403, "insufficient_scope")


def test_an_operator_may_read_leads(signed_in: Browser, pair: dict[str, Any]) -> None:
    assert signed_in.get("/rd/leads").mimetype == "application/json"


def test_old_leads_say_that_they_are_stale_and_how_old(
    program: Program,
    make_services: Callable[..., Services],
    connected: Services,
    sandbox: SandboxProcess,
    pair: dict[str, Any],
    clock: Clock,
    make_key: Callable[..., str],
) -> None:
    fresh = program.get("/rd/leads?segmentation=1")
    sandbox.patch(faults=[{"operation": "contacts_list", "kind": "status", "status": 503}])
    clock.advance(2_000)
    elsewhere = Program(create_app(make_services(connected.settings)), make_key("leads:read"))
    for _ in range(2):
        stale = elsewhere.get("/rd/leads?segmentation=1")
        assert (stale.status_code, stale.headers["X-Cache"]) == (200, "stale")
        assert 2_000 <= int(stale.headers["Age"]) < 2_030
        assert (stale.data, stale.headers["ETag"]) == (fresh.data, fresh.headers["ETag"])


def test_a_failure_without_old_leads_is_a_problem_with_retry_after(
    program: Program, sandbox: SandboxProcess, pair: dict[str, Any]
) -> None:
    sandbox.patch(faults=[{"operation": "*", "kind": "drop_before"}])
    response = program.get("/rd/leads")
    assert response.json is not None
    assert (response.status_code, response.json["code"]) == (503, "rdstation_unavailable")
    assert int(response.headers["Retry-After"]) >= 1
    assert "ETag" not in response.headers


def test_a_dead_account_is_a_409_with_the_url_to_open(
    program: Program, connected: Services, pair: dict[str, Any], conn: Conn
) -> None:
    assert program.get("/rd/leads").status_code == 200
    conn.execute(
        "UPDATE rdstation_tokens SET status = 'reauthorization_required', issued_at = rd_now() - interval '1 day',"
        " expires_at = rd_now()"
    )
    connected.memory.forget("default")
    response = program.get("/rd/leads", Host="evil.example.com")
    assert response.json is not None
    assert (response.status_code, response.json["code"]) == (409, "reauthorization_required")
    assert response.json["reauthorize_url"] == "http://localhost:8000/rd/login?account_id=default"


def test_served_leads_are_counted_by_what_the_cache_had(
    program: Program, connected: Services, pair: dict[str, Any]
) -> None:
    for path in ("/rd/leads", "/rd/leads", "/rd/leads", "/rd/segmentations", "/rd/leads?page=0"):
        program.get(path)
    counted = {
        sample.labels["cache"]: sample.value
        for metric in connected.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "rdstation_leads_served_total"
    }
    assert counted == {"hit": 2, "miss": 1, "stale": 0}
