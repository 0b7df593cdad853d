"""Who may call what."""

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from flask import Blueprint, Flask, jsonify
from flask.typing import ResponseReturnValue

from rdservice.access import keys, operators, throttle
from rdservice.config.settings import Settings
from rdservice.services import Services
from rdservice.web import create_app
from rdservice.web.http import guard
from tests.support.browser import Browser

MakeKey = Callable[..., str]


def sample_views() -> Blueprint:
    """Views with each kind of declaration."""
    bp = Blueprint("sample", __name__)

    @bp.route("/sample/open", methods=["GET", "POST"])
    @guard.public
    def open_to_all() -> str:
        return "open"

    @bp.route("/sample/operators", methods=["GET", "POST"])
    @guard.operator_only
    def for_operators() -> str:
        return guard.actor().label

    @bp.route("/sample/tokens", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    @guard.requires("tokens:read")
    def for_keys() -> ResponseReturnValue:
        actor = guard.actor()
        return jsonify(kind=actor.kind, id=actor.id, label=actor.label, session_id=actor.session_id)

    return bp


@pytest.fixture
def app(services: Services) -> Flask:
    app = create_app(services)
    app.register_blueprint(sample_views())
    return app


@pytest.fixture
def program(app: Flask) -> Browser:
    return Browser(app, accept="*/*")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_every_view_of_the_application_is_declared(app: Flask) -> None:
    guard.check_declarations(app)


def test_an_undeclared_view_is_reported_and_never_answers(app: Flask, signed_in: Browser) -> None:
    del signed_in
    undeclared = create_app(app.extensions["rdservice"])
    undeclared.add_url_rule("/forgotten", endpoint="forgotten", view_func=lambda: "secret")
    with pytest.raises(RuntimeError, match="forgotten"):
        guard.check_declarations(undeclared)
    response = Browser(undeclared, accept="*/*").get("/forgotten")
    assert response.status_code == 500
    assert "secret" not in response.text


def test_an_undeclared_blueprint_view_fails_at_the_start(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    bp = Blueprint("health", __name__)
    bp.add_url_rule("/healthz", endpoint="alive", view_func=lambda: "ok")
    monkeypatch.setattr("rdservice.web.api.health.bp", bp)
    with pytest.raises(RuntimeError, match=r"health\.alive"):
        create_app(services)


def test_a_view_declares_only_once() -> None:
    with pytest.raises(TypeError, match="twice"):

        @guard.public
        @guard.operator_only
        def view() -> str:
            return ""


def test_an_unknown_scope_cannot_be_declared() -> None:
    with pytest.raises(ValueError, match="tokens:all"):
        guard.requires("tokens:all")


def test_a_view_with_a_method_that_csrf_does_not_cover_is_reported(app: Flask) -> None:
    app.add_url_rule("/odd", endpoint="odd", view_func=guard.operator_only(lambda: ""), methods=["PROPFIND"])
    with pytest.raises(RuntimeError, match="PROPFIND"):
        guard.check_declarations(app)


@pytest.mark.parametrize("path", ["/sample/operators", "/sample/tokens", "/"])
def test_without_session_or_key_a_program_gets_401(program: Browser, path: str) -> None:
    response = program.get(path)
    assert response.status_code == 401
    assert response.json is not None
    assert response.json["code"] == "unauthorized"
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert "Set-Cookie" not in response.headers


def test_without_session_a_browser_goes_to_the_login_page(browser: Browser) -> None:
    response = browser.get("/sample/tokens?a=1&b=x%2Fy")
    assert response.status_code == 302
    assert response.location == "/login?next=/sample/tokens?a%3D1%26b%3Dx%252Fy"


def test_only_a_get_goes_to_the_login_page(browser: Browser) -> None:
    response = browser.open("POST", "/sample/tokens")
    assert (response.status_code, response.mimetype) == (401, "text/html")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_session_needs_its_csrf_token_to_change_things(signed_in: Browser, method: str) -> None:
    token = signed_in.csrf_token("/")
    json = {"Accept": "application/json"}
    without = signed_in.open(method, "/sample/tokens", json)
    assert without.status_code == 403
    assert without.json is not None
    assert without.json["code"] == "csrf_failed"
    wrong = signed_in.open(method, "/sample/tokens", json | {"X-CSRFToken": "x" + token})
    assert wrong.status_code == 403
    assert signed_in.open(method, "/sample/tokens", json | {"X-CSRFToken": token}).status_code == 200
    assert signed_in.open(method, "/sample/tokens", data={"csrf_token": token}).status_code == 200


def test_another_session_s_csrf_token_is_refused(app: Flask, signed_in: Browser) -> None:
    token = Browser(app).csrf_token()
    assert signed_in.open("POST", "/sample/tokens", data={"csrf_token": token}).status_code == 403


def test_an_operator_may_do_what_keys_may(signed_in: Browser, operator: operators.Operator) -> None:
    response = signed_in.get("/sample/tokens")
    assert response.json is not None
    assert response.json["kind"] == "operator"
    assert response.json["id"] == operator.operator_id
    assert response.json["label"] == operator.email
    assert len(response.json["session_id"]) == 64


def test_a_key_with_the_scope_is_let_in_and_never_asked_for_a_csrf_token(
    program: Browser, make_key: MakeKey
) -> None:
    key = make_key("tokens:read")
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        response = program.open(method, "/sample/tokens", bearer(key))
        assert response.status_code == 200
        assert response.json == {"kind": "key", "id": key[4:12], "label": "a program", "session_id": None}
        assert "Set-Cookie" not in response.headers


def test_a_key_without_the_scope_is_refused_with_its_name(program: Browser, make_key: MakeKey) -> None:
    key = make_key(*(scope for scope in keys.SCOPES if scope != "tokens:read"))
    response = program.get("/sample/tokens", bearer(key))
    assert response.status_code == 403
    assert response.json is not None
    assert response.json["code"] == "insufficient_scope"
    assert response.json["scope"] == "tokens:read"


@pytest.mark.parametrize("path", ["/", "/connect", "/sample/operators"])
def test_no_key_does_what_only_operators_may(program: Browser, make_key: MakeKey, path: str) -> None:
    response = program.get(path, bearer(make_key(*keys.SCOPES)))
    assert response.status_code == 403
    assert response.json is not None
    assert response.json["code"] == "insufficient_scope"


def test_beside_an_authorization_header_cookies_do_not_count(signed_in: Browser, make_key: MakeKey) -> None:
    refused = signed_in.get("/sample/tokens", bearer("rdk_aaaaaaaa_" + "A" * 43))
    assert refused.status_code == 401
    assert signed_in.get("/sample/tokens", {"Authorization": ""}).status_code == 401
    assert signed_in.get("/", bearer(make_key("tokens:read"))).status_code == 403
    assert signed_in.open("POST", "/sample/tokens", bearer(make_key("tokens:read"))).status_code == 200


def test_malformed_unknown_and_revoked_keys_get_the_same_answer(
    program: Browser, make_key: MakeKey, conn: psycopg.Connection[Any]
) -> None:
    revoked, valid = make_key("tokens:read"), make_key("tokens:read")
    keys.revoke(conn, revoked[4:12])
    headers = [
        "Bearer rdk_aaaaaaaa_" + "A" * 43,
        f"Bearer {revoked}",
        f"Bearer {valid[:-1]}{'A' if valid[-1] != 'A' else 'B'}",
        "Bearer nonsense",
        "Bearer",
        f"Basic {valid}",
        valid,
        "Bearer ключ",
        "Bearer " + "x" * 5000,
    ]
    seen = set()
    for header in headers:
        response = program.get("/sample/tokens", {"Authorization": header})
        assert response.json is not None
        seen.add((response.status_code, response.json["detail"], response.headers["WWW-Authenticate"]))
        assert valid not in response.text
    assert len(seen) == 1
    assert seen.pop()[0] == 401


def test_public_routes_answer_whoever_asks(program: Browser) -> None:
    for headers in ({}, bearer("nonsense"), {"Cookie": "rdservice_session_8000=nonsense"}):
        for path in ("/healthz", "/readyz", "/login", "/sample/open", "/static/site.css"):
            assert program.get(path, headers).status_code == 200
        assert program.open("POST", "/sample/open", headers).status_code == 200


def test_unknown_routes_and_methods_are_the_same_for_everyone(
    program: Browser, signed_in: Browser, make_key: MakeKey
) -> None:
    json = {"Accept": "application/json"}
    for headers in ({}, bearer("nonsense"), bearer(make_key("tokens:read"))):
        assert program.get("/nowhere", headers).status_code == 404
        assert program.open("DELETE", "/login", headers).status_code == 405
    assert signed_in.get("/nowhere", json).status_code == 404
    assert signed_in.open("DELETE", "/login", json).status_code == 405
    assert program.get("/sample//open").status_code == 404


def test_a_revoked_key_is_refused_within_a_second_in_another_process(
    settings: Settings,
    make_services: Callable[[Settings], Services],
    make_key: MakeKey,
    conn: psycopg.Connection[Any],
) -> None:
    programs = []
    for _ in range(2):
        app = create_app(make_services(settings))
        app.register_blueprint(sample_views())
        programs.append(Browser(app, accept="*/*"))
    key = make_key("tokens:read")
    for program in programs:
        assert program.get("/sample/tokens", bearer(key)).status_code == 200
    keys.revoke(conn, key[4:12])
    revoked_at = time.monotonic()
    for program in programs:
        while program.get("/sample/tokens", bearer(key)).status_code == 200:
            assert time.monotonic() - revoked_at < 1
            time.sleep(0.01)


def test_a_busy_key_is_not_asked_for_at_each_request(
    program: Browser, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("rdservice.access.key_memory.time.monotonic", lambda: now)
    asked = []
    real = keys.find

    def counting(conn: psycopg.Connection[Any], text: str) -> keys.ApiKey | None:
        asked.append(now)
        return real(conn, text)

    monkeypatch.setattr(keys, "find", counting)
    key = make_key("tokens:read")
    for step in range(30):
        now = 1000.0 + step * 0.05
        assert program.get("/sample/tokens", bearer(key)).status_code == 200
    assert asked == [1000.0, 1000.5, 1001.0]


def test_refused_keys_are_throttled_by_address_and_a_valid_key_never_is(
    app: Flask, make_key: MakeKey
) -> None:
    noisy, other = Browser(app, accept="*/*"), Browser(app, accept="*/*", address="198.51.100.9")
    for _ in range(throttle.KEYS_PER_ADDRESS):
        assert noisy.get("/sample/tokens", bearer("nonsense")).status_code == 401
    refused = noisy.get("/sample/tokens", bearer("nonsense"))
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= throttle.WINDOW_S
    assert noisy.get("/sample/tokens", bearer(make_key("tokens:read"))).status_code == 200
    assert other.get("/sample/tokens", bearer("nonsense")).status_code == 401


def test_a_client_cannot_choose_its_address(
    variables: dict[str, str], make_services: Callable[[Settings], Services]
) -> None:
    app = create_app(make_services(Settings.from_mapping(variables | {"TRUSTED_PROXIES": "1"})))
    program = Browser(app, accept="*/*")
    for number in range(throttle.KEYS_PER_ADDRESS):
        headers = bearer("nonsense") | {"X-Forwarded-For": f"10.0.0.{number}, 192.0.2.50"}
        assert program.get("/", headers).status_code == 401
    headers = bearer("nonsense") | {"X-Forwarded-For": "10.9.9.9, 192.0.2.50"}
    assert program.get("/", headers).status_code == 429
    headers = bearer("nonsense") | {"X-Forwarded-For": "192.0.2.51"}
    assert program.get("/", headers).status_code == 401


def test_a_csrf_token_is_compared_in_constant_time(
    app: Flask, signed_in: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, foreign = signed_in.csrf_token("/"), Browser(app).csrf_token()
    compared: list[bool] = []

    def compare_digest(expected: str, given: str) -> bool:
        compared.append(expected == given)
        return expected == given

    monkeypatch.setattr("flask_wtf.csrf.hmac.compare_digest", compare_digest)
    for token, status in ((own, 200), (foreign, 403)):
        compared.clear()
        assert signed_in.open("POST", "/sample/tokens", data={"csrf_token": token}).status_code == status
        assert compared[-1:] == [status == 200]
