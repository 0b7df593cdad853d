"""Tokens over HTTP."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import requests
from flask import Flask
from requests_mock import Mocker
from werkzeug.test import TestResponse

from rdservice.access.keys import SCOPES
from rdservice.services import Services
from rdservice.web import create_app
from tests.support.accounts import connect_account, lease_one, row, stored_pair
from tests.support.browser import Browser
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
MakeKey = Callable[..., str]
JSON_TYPE = "application/json"
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
BODY: dict[str, Any] = {"access_token": "new-access", "refresh_token": "new-refresh", "expires_in": 86400}
REAUTHORIZE_URL = "http://localhost:8000/rd/login?account_id=default"


@pytest.fixture
def app(connected: Services) -> Flask:
    """The application whose RD Station is the sandbox."""
    return create_app(connected)


class Program:
    """A program with an API key, as curl would be."""

    def __init__(self, app: Flask, key: str | None) -> None:
        self._browser = Browser(app, accept="*/*")
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> TestResponse:
        return self._browser.open(method, path, self._headers | (headers or {}), **more)

    def upload(self, body: object = None, **more: Any) -> TestResponse:
        data = body if isinstance(body, bytes) else json.dumps(BODY if body is None else body)
        return self.ask("POST", "/rd/tokens", data=data, **{"content_type": JSON_TYPE} | more)


@pytest.fixture
def program(app: Flask, make_key: MakeKey) -> Program:
    return Program(app, make_key(*SCOPES))


def problem(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.json and response.json["code"]) == (status, code), response.text
    assert response.mimetype == "application/problem+json"
    assert response.json is not None
    for member in ("type", "title", "detail", "request_id"):
        assert response.json[member]
    assert response.json["status"] == status
    assert "new-access" not in response.text
    assert "new-refresh" not in response.text
    found: dict[str, Any] = response.json
    return found


def text_of(conn: Conn) -> Any:
    """Return every byte of the stored rows."""
    return (
        conn.execute("SELECT t::text FROM rdstation_tokens t ORDER BY account_id").fetchall(),
        conn.execute("SELECT t::text FROM rdstation_replaced_tokens t ORDER BY account_id").fetchall(),
    )


# Upload


def test_the_documented_upload_works(
    program: Program, sandbox: SandboxProcess, connected: Services, conn: Conn
) -> None:
    pair = sandbox.pair()
    response = program.upload(pair)
    assert response.status_code == 200
    assert response.mimetype == JSON_TYPE
    assert response.headers["Cache-Control"] == "no-store"
    assert response.json is not None
    assert set(response.json) == {"account_id", "status", "expires_at", "warnings"}
    assert (response.json["account_id"], response.json["status"], response.json["warnings"]) == (
        "default",
        "connected",
        [],
    )
    assert RFC_3339.fullmatch(response.json["expires_at"])
    assert stored_pair(connected, conn) == (pair["access_token"], pair["refresh_token"])
    assert pair["access_token"] not in response.text


def test_an_upload_may_name_its_account_and_forgo_the_check(program: Program, conn: Conn) -> None:
    response = program.upload(BODY | {"account_id": "acme", "verify": False})
    assert response.json is not None
    assert (response.json["account_id"], response.json["status"]) == ("acme", "unverified")
    assert row(conn, "acme")["status"] == "unverified"


def test_warnings_are_sentences(program: Program, sandbox: SandboxProcess) -> None:
    program.upload(sandbox.pair())
    sandbox.patch(scope="events")
    response = program.upload(sandbox.pair() | {"account_id": "second"})
    assert response.json is not None
    scope, same = response.json["warnings"]
    assert "contacts" in scope
    assert "The same RD Station account is also connected here as default." in same
    listed = program.ask("GET", "/rd/tokens").json
    assert listed is not None
    assert [account["same_account_as"] for account in listed["accounts"]] == [["second"], ["default"]]


def test_tokens_of_another_account_are_refused_unless_they_may_replace_it(
    program: Program, sandbox: SandboxProcess
) -> None:
    program.upload(sandbox.pair())
    pair = sandbox.pair("account-2")
    detail = problem(program.upload(pair), 409, "another_account")["detail"]
    assert "(default)" in detail
    assert "(account-2)" in detail
    assert program.upload(pair | {"replace_account": True}).status_code == 200


def test_without_a_key_nothing_is_taken(app: Flask, conn: Conn) -> None:
    for key in (None, "rdk_aaaaaaaa_" + "a" * 43, "nonsense"):
        problem(Program(app, key).upload(), 401, "unauthorized")
    assert text_of(conn) == ([], [])


MALFORMED: list[tuple[str, Any, int, str, str | None]] = [
    ("no JSON", b"access_token=new-access", 400, "bad_request", None),
    ("cut off", b'{"access_token": "new-access"', 400, "bad_request", None),
    ("empty", b"", 400, "bad_request", None),
    ("not UTF-8", b'{"access_token": "\xff"}', 400, "bad_request", None),
    ("nested too deep", b"[" * 60_000, 400, "bad_request", None),
    ("a list", [BODY], 400, "bad_request", None),
    ("null", b"null", 400, "bad_request", None),
    ("a string", "new-access", 400, "bad_request", None),
    ("nothing in it", {}, 422, "invalid_field", "access_token"),
    (
        "no refresh token",
        {"access_token": "new-access", "expires_in": 60},
        422,
        "invalid_field",
        "refresh_token",
    ),
    ("no expiry", {"access_token": "new-access", "refresh_token": "r"}, 422, "invalid_field", "expires_in"),
    ("an empty token", BODY | {"access_token": ""}, 422, "invalid_field", "access_token"),
    ("an oversized token", BODY | {"access_token": "a" * 16_385}, 422, "invalid_field", "access_token"),
    ("a token of another type", BODY | {"refresh_token": 7}, 422, "invalid_field", "refresh_token"),
    ("an account of another type", BODY | {"account_id": 7}, 422, "invalid_field", "account_id"),
    ("an account with a slash", BODY | {"account_id": "a/b"}, 422, "invalid_field", "account_id"),
    ("verify of another type", BODY | {"verify": "no"}, 422, "invalid_field", "verify"),
    *(
        (f"expires_in {value}", BODY | {"expires_in": value}, 422, "invalid_field", "expires_in")
        for value in (0, -1, 31_536_001, "86400", 86400.0, True, 1e3, None)
    ),
    (
        "expires_in 1e3 as written",
        b'{"access_token":"a","refresh_token":"r","expires_in":1e3}',
        422,
        "invalid_field",
        "expires_in",
    ),
]


def test_each_mistake_has_its_status_code_and_field_and_touches_nothing(
    program: Program, connected: Services, conn: Conn, sandbox: SandboxProcess
) -> None:
    connect_account(connected, sandbox, due=False)
    before = text_of(conn)
    for name, body, status, code, field in MALFORMED:
        response = program.upload(body)
        assert (response.status_code, response.json and response.json["code"]) == (status, code), name
        assert problem(response, status, code).get("field") == field, name
    assert text_of(conn) == before
    assert sandbox.calls().get("account_info", {}) == {}


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", "", None])
def test_another_content_type_is_not_taken(program: Program, conn: Conn, content_type: str | None) -> None:
    problem(program.upload(content_type=content_type), 415, "unsupported_media_type")
    assert text_of(conn) == ([], [])


def test_a_content_type_may_have_a_charset(program: Program) -> None:
    response = program.upload(BODY | {"verify": False}, content_type="application/json; charset=utf-8")
    assert response.status_code == 200


def test_a_body_above_64_kib_is_not_taken(program: Program, conn: Conn) -> None:
    problem(program.upload(BODY | {"unknown": "a" * 65_536}), 413, "payload_too_large")
    assert text_of(conn) == ([], [])


def test_a_refused_access_token_is_422_and_replaces_nothing(
    program: Program, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    before = text_of(conn)
    problem(program.upload(), 422, "token_refused")
    assert text_of(conn) == before


def test_rd_station_that_cannot_be_asked_is_503_over_a_usable_pair_and_unverified_without(
    program: Program, sandbox: SandboxProcess, conn: Conn
) -> None:
    sandbox.patch(faults=[{"operation": "account_info", "kind": "drop_before"}])
    response = program.upload()
    assert response.json is not None
    assert (response.status_code, response.json["status"], len(response.json["warnings"])) == (
        200,
        "unverified",
        1,
    )
    before = text_of(conn)
    refused = program.upload(BODY | {"access_token": "another"})
    problem(refused, 503, "rdstation_unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    assert text_of(conn) == before


def test_the_same_pair_again_answers_the_same_without_a_call(
    program: Program, sandbox: SandboxProcess, conn: Conn
) -> None:
    pair = sandbox.pair()
    first = program.upload(pair)
    before, calls = text_of(conn), sandbox.calls()
    again = program.upload(pair)
    assert (again.status_code, again.json) == (200, first.json)
    assert (text_of(conn), sandbox.calls()) == (before, calls)


# States


def test_the_list_of_accounts_has_exactly_the_documented_members(
    program: Program, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    assert program.ask("GET", "/rd/tokens").json == {"accounts": []}
    program.upload(sandbox.pair())
    connect_account(connected, sandbox, "acme", due=False)
    conn.execute(
        "UPDATE rdstation_tokens SET status = 'reauthorization_required', last_error = 'revoked', expires_at = now()"
        " WHERE account_id = 'acme'"
    )
    response = program.ask("GET", "/rd/tokens")
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert response.json is not None
    assert set(response.json) == {"accounts"}
    acme, default = response.json["accounts"]
    for account in (acme, default):
        assert set(account) == {
            "account_id",
            "name",
            "status",
            "expires_at",
            "refresh_after",
            "last_error",
            "same_account_as",
        }
        assert RFC_3339.fullmatch(account["expires_at"])
        assert RFC_3339.fullmatch(account["refresh_after"])
    assert (acme["account_id"], acme["name"], acme["status"], acme["last_error"]) == (
        "acme",
        None,
        "reauthorization_required",
        "revoked",
    )
    assert (default["status"], default["last_error"]) == ("connected", None)
    assert default["name"]


# Access tokens


def test_an_access_token_is_given_out_in_exactly_the_documented_form(
    program: Program, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    pair = connect_account(connected, sandbox, due=False)
    response = program.ask("GET", "/rd/tokens/default/access-token")
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert response.json is not None
    assert set(response.json) == {"access_token", "token_type", "expires_in", "expires_at"}
    assert response.json["access_token"] == pair["access_token"]
    assert response.json["token_type"] == "Bearer"
    assert 86_300 < response.json["expires_in"] <= 86_400
    told = datetime.fromisoformat(response.json["expires_at"])
    assert abs((told - row(conn)["expires_at"]).total_seconds()) < 1
    assert told.tzinfo == UTC


def test_an_expired_access_token_is_renewed_before_it_is_given_out(
    program: Program, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    pair = connect_account(connected, sandbox, due=False)
    conn.execute("UPDATE rdstation_tokens SET expires_at = now() - interval '1 second'")
    response = program.ask("GET", "/rd/tokens/default/access-token")
    assert response.json is not None
    assert response.json["access_token"] != pair["access_token"]
    assert sandbox.calls()["token_refresh"] == {"200": 1}


def test_more_life_can_be_asked_for_up_to_half_of_it(
    program: Program, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    conn.execute(
        "UPDATE rdstation_tokens SET issued_at = now() - interval '80000 s', expires_at = now() + interval '6400 s'"
    )
    path = "/rd/tokens/default/access-token?min_ttl="
    assert program.ask("GET", f"{path}6000").status_code == 200
    assert sandbox.calls().get("token_refresh", {}) == {}
    connected.memory.forget("default")
    response = program.ask("GET", f"{path}43000")
    assert response.json is not None
    assert response.json["expires_in"] >= 43_000
    assert sandbox.calls()["token_refresh"] == {"200": 1}
    assert problem(program.ask("GET", f"{path}43201"), 422, "invalid_field")["field"] == "min_ttl"


@pytest.mark.parametrize("value", ["", "-1", "1.5", "soon", "1e3", "999999999", "%2060", "٣"])
def test_a_min_ttl_that_is_no_whole_number_is_422(program: Program, value: str) -> None:
    response = program.ask("GET", f"/rd/tokens/default/access-token?min_ttl={value}")
    assert problem(response, 422, "invalid_field")["field"] == "min_ttl"


def test_an_account_that_is_not_connected_is_409_with_the_url_of_the_redirect_uri(program: Program) -> None:
    for headers in (
        {},
        {"Host": "evil.example"},
        {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"},
    ):
        response = program.ask("GET", "/rd/tokens/default/access-token", headers)
        assert problem(response, 409, "not_connected")["reauthorize_url"] == REAUTHORIZE_URL
        assert "evil" not in response.text
    response = program.ask("GET", "/rd/tokens/a%20%26b/access-token")
    assert problem(response, 409, "not_connected")["reauthorize_url"].endswith("?account_id=a+%26b")


def test_a_dead_account_is_409_once_its_access_token_has_ended(
    program: Program, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required'")
    assert program.ask("GET", "/rd/tokens/default/access-token").status_code == 200
    conn.execute("UPDATE rdstation_tokens SET expires_at = now()")
    connected.memory.forget("default")
    response = program.ask("GET", "/rd/tokens/default/access-token")
    assert problem(response, 409, "reauthorization_required")["reauthorize_url"] == REAUTHORIZE_URL


@pytest.mark.parametrize("account", ["a" * 201, "%20a", "a%0Ab", "%E2%80%AE"])
def test_an_account_that_cannot_be_is_422_on_every_route(program: Program, account: str) -> None:
    for method, path in [("GET", "access-token"), ("POST", "refresh")]:
        response = program.ask(method, f"/rd/tokens/{account}/{path}")
        assert problem(response, 422, "invalid_field")["field"] == "account_id"
    assert (
        problem(program.ask("DELETE", f"/rd/tokens/{account}"), 422, "invalid_field")["field"] == "account_id"
    )


# Refresh now


def test_refresh_now_renews_the_tokens_and_shows_the_account(
    program: Program, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    before = connect_account(connected, sandbox, due=False)
    response = program.ask("POST", "/rd/tokens/default/refresh")
    assert response.status_code == 200
    assert response.json is not None
    assert (response.json["result"], response.json["status"], response.json["account_id"]) == (
        "stored",
        "connected",
        "default",
    )
    assert stored_pair(connected, conn)[0] != before["access_token"]
    assert sandbox.calls()["token_refresh"] == {"200": 1}


def test_refreshing_a_revoked_account_is_409_with_the_way_back(
    program: Program, connected: Services, sandbox: SandboxProcess
) -> None:
    connect_account(connected, sandbox, due=False)
    sandbox.revoke()
    response = program.ask("POST", "/rd/tokens/default/refresh", {"Host": "evil.example"})
    assert problem(response, 409, "reauthorization_required")["reauthorize_url"] == REAUTHORIZE_URL


def test_refreshing_an_unknown_account_is_409(program: Program) -> None:
    problem(program.ask("POST", "/rd/tokens/default/refresh"), 409, "not_connected")


def test_a_refresh_that_rd_station_did_not_answer_is_told_and_the_pair_is_kept(
    program: Program, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    before = connect_account(connected, sandbox, due=False)
    sandbox.patch(faults=[{"operation": "token_refresh", "kind": "status", "status": 500}])
    response = program.ask("POST", "/rd/tokens/default/refresh")
    assert response.status_code in (502, 503)
    problem(response, response.status_code, response.json["code"] if response.json else "")
    assert stored_pair(connected, conn) == (before["access_token"], before["refresh_token"])


def test_a_back_off_binds_refresh_now_and_says_how_long(
    program: Program, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    conn.execute(
        "UPDATE rdstation_tokens SET retry_at = now() + interval '100 seconds', last_error = 'timeout'"
    )
    response = program.ask("POST", "/rd/tokens/default/refresh")
    assert response.status_code in (429, 503)
    assert 95 <= int(response.headers["Retry-After"]) <= 100
    assert sandbox.calls().get("token_refresh", {}) == {}


# Removal


def test_a_removed_account_is_gone_revoked_and_unknown(
    program: Program, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    pair = connect_account(connected, sandbox, due=False)
    response = program.ask("DELETE", "/rd/tokens/default")
    assert response.status_code == 200
    assert response.json == {"account_id": "default", "removed": True, "revoked": True, "warnings": []}
    assert text_of(conn) == ([], [])
    assert sandbox.calls()["revoke"] == {"200": 1}
    assert (
        requests.get(
            f"{sandbox.url}/marketing/account_info",
            headers={"Authorization": f"Bearer {pair['access_token']}"},
            timeout=10,
        ).status_code
        == 401
    )
    problem(program.ask("DELETE", "/rd/tokens/default"), 404, "not_found")
    problem(program.ask("GET", "/rd/tokens/default/access-token"), 409, "not_connected")


def test_an_account_that_cannot_be_revoked_is_removed_with_a_warning(
    program: Program, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    sandbox.patch(faults=[{"operation": "revoke", "kind": "status", "status": 500}])
    response = program.ask("DELETE", "/rd/tokens/default")
    assert response.json is not None
    assert (response.status_code, response.json["revoked"], len(response.json["warnings"])) == (200, False, 1)
    assert text_of(conn) == ([], [])


# Who may do what

ROUTES = [
    ("POST", "/rd/tokens", "tokens:write", 200),
    ("GET", "/rd/tokens", "tokens:status", 200),
    ("GET", "/rd/tokens/default/access-token", "tokens:read", 200),
    ("POST", "/rd/tokens/default/refresh", "tokens:write", 200),
    ("DELETE", "/rd/tokens/default", "tokens:write", 200),
]


def arguments(method: str, path: str) -> dict[str, Any]:
    if (method, path) == ("POST", "/rd/tokens"):
        return {"json": BODY | {"account_id": "acme", "verify": False}}
    return {}


@pytest.mark.parametrize(("method", "path", "scope", "status"), ROUTES)
def test_each_route_asks_for_its_scope_and_no_other_will_do(
    app: Flask,
    make_key: MakeKey,
    connected: Services,
    sandbox: SandboxProcess,
    method: str,
    path: str,
    scope: str,
    status: int,
) -> None:
    connect_account(connected, sandbox, due=False)
    others = Program(app, make_key(*(other for other in SCOPES if other != scope)))
    assert (
        problem(others.ask(method, path, **arguments(method, path)), 403, "insufficient_scope")["scope"]
        == scope
    )
    problem(Program(app, None).ask(method, path, **arguments(method, path)), 401, "unauthorized")
    allowed = Program(app, make_key(scope))
    assert allowed.ask(method, path, **arguments(method, path)).status_code == status


def test_an_operator_may_do_all_of_it_with_the_token_of_the_page(
    app: Flask, signed_in: Browser, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    json_please = {"Accept": "application/json"}
    token = {"X-CSRFToken": signed_in.csrf_token("/")}
    for method, path, _, status in ROUTES:
        if method != "GET":
            without = signed_in.open(method, path, json_please, **arguments(method, path))
            problem(without, 403, "csrf_failed")
        response = signed_in.open(method, path, json_please | token, **arguments(method, path))
        assert response.status_code == status, path
    assert [account for (account,) in conn.execute("SELECT account_id FROM rdstation_tokens")] == ["acme"]


def test_the_forms_of_the_page_refresh_and_disconnect(
    signed_in: Browser, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    response = signed_in.submit("/rd/tokens/default/refresh", page="/")
    assert (response.status_code, response.location) == (303, "/")
    assert "Renewed" in signed_in.get("/").text
    assert sandbox.calls()["token_refresh"] == {"200": 1}
    response = signed_in.submit("/rd/tokens/default/disconnect", page="/")
    assert (response.status_code, response.location) == (303, "/")
    assert "disconnected" in signed_in.get("/").text
    assert text_of(conn) == ([], [])


def test_the_form_that_disconnects_is_not_for_keys(program: Program, connected: Services, conn: Conn) -> None:
    connect_account(connected, due=False)
    assert program.ask("POST", "/rd/tokens/default/disconnect").status_code == 403
    assert row(conn)


def test_an_upload_is_proven_by_the_ordinary_renewal(
    program: Program, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    old = sandbox.pair()
    program.upload(old)
    connected.refresher.refresh(lease_one(connected))
    proven = stored_pair(connected, conn)
    program.upload(sandbox.pair() | {"refresh_token": "never-given"})
    connected.refresher.refresh(lease_one(connected))
    assert stored_pair(connected, conn) == proven
    response = program.ask("GET", "/rd/tokens")
    assert response.json is not None
    (account,) = response.json["accounts"]
    assert (account["status"], account["last_error"]) == ("connected", "upload_refused")


def test_a_database_that_is_down_is_503_with_retry_after(
    program: Program, connected: Services, monkeypatch: pytest.MonkeyPatch, requests_mock: Mocker
) -> None:
    program.ask("GET", "/rd/tokens")

    def down(*args: Any, **more: Any) -> Any:
        raise psycopg.OperationalError("planted: connection refused for user secret")

    monkeypatch.setattr("rdservice.tokens.store.list_accounts", down)
    response = program.ask("GET", "/rd/tokens")
    problem(response, 503, "database_unavailable")
    assert int(response.headers["Retry-After"]) > 0
    assert "planted" not in response.text
