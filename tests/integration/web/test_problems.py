"""Every error as a problem document, or as a page."""

import logging
import re
import selectors
from collections.abc import Callable, Iterator

import psycopg
import pytest
from flask import Blueprint, Flask, abort, request
from werkzeug.exceptions import HTTPException

from rdservice import errors
from rdservice.config.settings import Settings
from rdservice.errors import RdServiceError
from rdservice.logs.formatting import describe_exception
from rdservice.services import Services
from rdservice.web import create_app
from rdservice.web.http import guard
from rdservice.web.http.bodies import MAX_BODY_BYTES
from rdservice.web.http.context import services as services_of_app
from rdservice.web.text.problem_texts import page_text
from tests.support.browser import Browser

SECRET = "planted-secret-value"


def all_errors() -> Iterator[type[RdServiceError]]:
    yield RdServiceError
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, RdServiceError) and kind is not RdServiceError:
            yield kind


def failing_views() -> Blueprint:
    bp = Blueprint("failing", __name__)

    @bp.get("/fail/status/<int:status>")
    @guard.public
    def with_status(status: int) -> str:
        abort(status)

    @bp.get("/fail/service/<name>")
    @guard.public
    def with_service_error(name: str) -> str:
        raise getattr(errors, name)(
            "Do this.", retry_after_s=2.1, extra={"reauthorize_url": "http://localhost:8000/rd/login"}
        )

    @bp.get("/fail/unexpected")
    @guard.public
    def unexpectedly() -> str:
        password = SECRET
        raise LookupError(f"nobody thought of {len(password)}")

    @bp.get("/fail/read-only")
    @guard.public
    def on_a_server_that_takes_no_writes() -> str:
        with services_of_app().pool.connection() as conn, conn.transaction():
            conn.execute("SET TRANSACTION READ ONLY")
            conn.execute("DELETE FROM rdstation_workers")
        return ""

    @bp.get("/fail/stood-still")
    @guard.public
    def after_standing_still() -> str:
        with services_of_app().pool.connection() as conn, conn.transaction():
            conn.execute("SET LOCAL idle_in_transaction_session_timeout = '50ms'")
            watched = selectors.DefaultSelector()
            watched.register(conn.fileno(), selectors.EVENT_READ)
            assert watched.select(20), "the server ends the session"
            conn.execute("SELECT 1")
        return ""

    @bp.get("/fail/data")
    @guard.public
    def with_data_in_the_message() -> str:
        with services_of_app().pool.connection() as conn:
            conn.execute("SELECT %s::text::integer", [SECRET])
        return ""

    @bp.get("/fail/table")
    @guard.public
    def without_table() -> str:
        with services_of_app().pool.connection() as conn:
            conn.execute("SELECT 1 FROM no_such_table")
        return ""

    @bp.post("/fail/json")
    @guard.public
    def with_json() -> str:
        return str(request.get_json())

    @bp.post("/fail/unread")
    @guard.public
    def without_reading() -> str:
        return "not read"

    return bp


@pytest.fixture
def app(services: Services) -> Flask:
    app = create_app(services)
    app.register_blueprint(failing_views())
    return app


@pytest.fixture
def program(app: Flask) -> Browser:
    return Browser(app, accept="*/*")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/fail/status/400", 400, "bad_request"),
        ("GET", "/fail/status/401", 401, "unauthorized"),
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("GET", "/fail/status/413", 413, "payload_too_large"),
        ("GET", "/fail/status/415", 415, "unsupported_media_type"),
        ("GET", "/fail/status/418", 418, "bad_request"),
        ("GET", "/fail/status/429", 429, "too_many_requests"),
        ("GET", "/fail/status/500", 500, "internal_error"),
        ("GET", "/fail/status/503", 503, "internal_error"),
        ("GET", "/fail/unexpected", 500, "internal_error"),
        ("GET", "/fail/table", 503, "database_unavailable"),
    ],
)
def test_an_error_is_a_problem_document_and_for_browsers_a_page(
    app: Flask, program: Browser, method: str, path: str, status: int, code: str
) -> None:
    response = program.open(method, path)
    assert response.status_code == status
    assert response.mimetype == "application/problem+json"
    assert response.json is not None
    assert set(response.json) == {"type", "title", "status", "detail", "code", "request_id"}
    assert response.json["type"] == f"urn:rdservice:problem:{code}"
    assert response.json["status"] == status
    assert response.json["code"] == code
    assert response.json["detail"]
    assert response.json["request_id"] == response.headers["X-Request-ID"]

    for language in ("en", "pt-BR"):
        page = Browser(app, language=language).open(method, path)
        assert (page.status_code, page.mimetype) == (status, "text/html")
        assert page.headers["X-Request-ID"] in page.text
        assert code in page.text
        assert f'lang="{language}"' in page.text


def test_405_names_the_methods_there_are(program: Browser) -> None:
    response = program.open("POST", "/healthz")
    assert set(re.split(r",\s*", response.headers["Allow"])) == {"GET", "HEAD", "OPTIONS"}


@pytest.mark.parametrize("kind", list(all_errors()))
def test_an_error_of_ours_keeps_its_status_code_and_extra_members(
    app: Flask, program: Browser, kind: type[RdServiceError]
) -> None:
    response = program.get(f"/fail/service/{kind.__name__}")
    assert response.status_code == kind.status
    assert response.headers["Retry-After"] == "3"
    assert response.json is not None
    assert response.json["code"] == kind.code
    assert response.json["title"] == kind.title
    assert response.json["detail"] == "Do this."
    assert response.json["reauthorize_url"] == "http://localhost:8000/rd/login"
    assert ("WWW-Authenticate" in response.headers) == (kind.status == 401)
    with app.test_request_context(headers={"Accept-Language": "en"}):
        text = page_text(kind.code)
        if kind is not RdServiceError:
            assert text != page_text("internal_error"), f"{kind.code} has no text for its page"
    page = Browser(app).get(f"/fail/service/{kind.__name__}")
    assert 'href="http://localhost:8000/rd/login"' in page.text


def test_extra_members_cannot_replace_the_standard_ones(app: Flask) -> None:
    bp = Blueprint("lying", __name__)

    @bp.get("/lying")
    @guard.public
    def lie() -> str:
        raise errors.NotFound("It is not here.", extra={"status": 200, "code": "fine"})

    app.register_blueprint(bp)
    response = Browser(app, accept="*/*").get("/lying")
    assert response.json is not None
    assert (response.json["status"], response.json["code"]) == (404, "not_found")


def test_an_answer_made_by_hand_is_left_alone(app: Flask) -> None:
    bp = Blueprint("handmade", __name__)

    @bp.get("/handmade")
    @guard.public
    def handmade() -> str:
        raise HTTPException(response=app.response_class("as it is", 409))

    app.register_blueprint(bp)
    response = Browser(app, accept="*/*").get("/handmade")
    assert (response.status_code, response.text) == (409, "as it is")


@pytest.mark.parametrize("path", ["/fail/json", "/fail/unread", "/login"])
def test_a_body_over_64_kib_is_refused_whether_it_is_read_or_not(program: Browser, path: str) -> None:
    response = program.open("POST", path, data=b"x" * (MAX_BODY_BYTES + 1), content_type="application/json")
    assert response.status_code == 413
    assert response.json is not None
    assert response.json["code"] == "payload_too_large"


def test_a_body_of_64_kib_is_read(program: Browser) -> None:
    body = b'"' + b"x" * (MAX_BODY_BYTES - 2) + b'"'
    assert program.open("POST", "/fail/json", data=body, content_type="application/json").status_code == 200


def test_what_is_no_json_is_told_apart_from_another_media_type(program: Browser) -> None:
    broken = program.open("POST", "/fail/json", data=b"{", content_type="application/json")
    assert broken.status_code == 400
    other = program.open("POST", "/fail/json", data=b"a=b", content_type="text/plain")
    assert other.status_code == 415


def test_without_a_database_the_answer_is_503_and_names_no_server(
    variables: dict[str, str], make_services: Callable[[Settings], Services]
) -> None:
    values = variables | {"DATABASE_URL": "postgresql://someone:hidden@127.0.0.1:1/none"}
    services = make_services(Settings.from_mapping(values))
    app = create_app(services)
    program = Browser(app, accept="*/*")
    response = program.get("/readyz")
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert response.json is not None
    assert response.json["code"] == "database_unavailable"
    for private in ("someone", "hidden", "127.0.0.1"):
        assert private not in response.text
    assert Browser(app, language="pt-BR").get("/login").status_code == 200
    assert program.get("/healthz").status_code == 200

    browser = Browser(app)
    with browser.client.session_transaction() as session:
        session["_user_id"] = "A" * 43
    page = browser.get("/")
    assert (page.status_code, page.mimetype) == (503, "text/html")
    assert "Database unavailable" in page.text


@pytest.mark.parametrize("path", ["/fail/read-only", "/fail/stood-still"])
def test_a_database_that_takes_no_writes_or_ended_a_session_answers_503(program: Browser, path: str) -> None:
    response = program.get(path)
    assert response.json is not None
    assert (response.status_code, response.json["code"]) == (503, "database_unavailable")
    assert response.headers["Retry-After"] == "5"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("8d6e1d1c-1111-4222-8333-444455556666", True),
        ("abcdefgh", True),
        ("short", False),
        ("a" * 65, False),
        ("with spaces in it", False),
        ("<script>alert(1)</script>", False),
        ("", False),
    ],
)
def test_a_trusted_router_s_request_id_is_kept_when_it_looks_like_one(
    make_services: Callable[[Settings], Services], variables: dict[str, str], given: str, kept: bool
) -> None:
    behind_a_router = make_services(Settings.from_mapping(variables | {"TRUSTED_PROXIES": "1"}))
    response = Browser(create_app(behind_a_router)).get("/nowhere", {"X-Request-ID": given})
    assert (response.headers["X-Request-ID"] == given) == kept
    assert re.fullmatch(r"[A-Za-z0-9-]{8,64}", response.headers["X-Request-ID"])


def test_without_a_trusted_proxy_a_client_cannot_choose_its_request_id(program: Browser) -> None:
    response = program.get("/nowhere", {"X-Request-ID": "8d6e1d1c-1111-4222-8333-444455556666"})
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["X-Request-ID"])


@pytest.mark.parametrize(
    "path", ["/login", "/healthz", "/nowhere", "/fail/unexpected", "/static/site.css", "/"]
)
def test_every_answer_has_the_security_headers(browser: Browser, path: str) -> None:
    headers = browser.get(path).headers
    policy = headers["Content-Security-Policy"]
    for directive in (
        "default-src 'none'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ):
        assert directive in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "Strict-Transport-Security" not in headers
    stored = path.startswith("/static/")
    assert (headers["Cache-Control"] == "no-store") != stored


@pytest.mark.parametrize("path", ["/login", "/nowhere"])
def test_pages_need_no_inline_script_or_style(browser: Browser, path: str) -> None:
    page = browser.get(path).text
    assert re.findall(r"<script[^>]*>[^<]*", page) == ['<script src="/static/zone.js" defer>']
    assert "<style" not in page
    assert not re.search(r"\s(style|on\w+)=", page)


def test_an_unexpected_error_is_logged_with_its_place_and_without_variables(
    program: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    response = program.get("/fail/unexpected")
    assert "LookupError" not in response.text
    record = next(record for record in caplog.records if record.message == "unexpected error")
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    text = describe_exception(record.exc_info[1])
    assert "in unexpectedly" in text
    assert "LookupError: nobody thought of" in text
    assert SECRET not in text


def test_values_in_messages_of_the_database_do_not_reach_log_or_answer(
    program: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    response = program.get("/fail/data")
    assert response.status_code == 500
    assert SECRET not in response.text
    record = next(record for record in caplog.records if record.message == "unexpected error")
    assert record.exc_info is not None
    error = record.exc_info[1]
    assert isinstance(error, psycopg.errors.InvalidTextRepresentation)
    assert SECRET in str(error)
    text = describe_exception(error)
    assert SECRET not in text
    assert "SQLSTATE 22P02" in text


def test_the_access_log_has_routes_and_no_paths(program: Browser, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="rdservice.access"):
        program.get("/fail/service/NotFound?email=ana@example.com", {"X-Request-ID": "router-given-id"})
        program.get("/somewhere/ana@example.com")
        program.open("BREW", "/healthz")
    lines = [record.getMessage() for record in caplog.records if record.name == "rdservice.access"]
    assert [line.rsplit(" ", 2)[0] for line in lines] == [
        "GET /fail/service/<name> 404",
        "GET (no route) 404",
        "(other) (no route) 405",
    ]
    assert "ana@example.com" not in caplog.text


@pytest.mark.parametrize("path", ["/", "/healthz", "/login", "/rd/leads", "/rd/callback", "/nowhere"])
def test_a_query_that_is_no_text_is_a_malformed_request(app: Flask, path: str) -> None:
    # As gunicorn hands over what stands in the request line as bytes.
    response = app.test_client().get(path, environ_overrides={"QUERY_STRING": "account_id=\xff"})
    assert response.status_code == 400
    assert response.json is not None
    assert response.json["code"] == "bad_request"
