"""Rubbish over real sockets: each piece gets a 4xx with a code and a sentence, and nothing is stored."""

import contextlib
import gzip
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from rdservice.access import operators, passwords
from rdservice.services import Services
from rdservice.web.http.bodies import MAX_BODY_BYTES
from tests.support.accounts import connect_account
from tests.support.processes import Web
from tests.support.sandbox_process import SandboxProcess

pytestmark = pytest.mark.slow

JSON = {"Content-Type": "application/json"}
PAIR = b'"access_token": "a", "refresh_token": "r", "expires_in": 60'
UPLOAD, LOOKUP = "/rd/tokens", "/rd/leads/lookup"
WIDE = "\U0001d4d0"
"""A printable character that takes twelve bytes in a URL."""


@dataclass(frozen=True)
class Given:
    """A request as it is sent, byte for byte."""

    method: str
    target: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON))


def get(target: str) -> Given:
    return Given("GET", target, headers={})


def post(target: str, body: bytes | str, **headers: str) -> Given:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Given("POST", target, body if isinstance(body, bytes) else body.encode(), JSON | named)


def upload(members: str) -> Given:
    return post(UPLOAD, b"{" + PAIR + b", " + members.encode() + b"}")


BAD_REQUEST = (400, "bad_request", None)
MEDIA_TYPE = (415, "unsupported_media_type", None)
TOO_LARGE = (413, "payload_too_large", None)
NOT_FOUND = (404, "not_found", None)


def invalid(name: str) -> tuple[int, str, str | None]:
    return (422, "invalid_field", name)


RUBBISH: dict[str, tuple[Given, tuple[int, str, str | None]]] = {
    # JSON that is none
    "no body": (post(UPLOAD, b""), BAD_REQUEST),
    "spaces": (post(UPLOAD, b"  \n"), BAD_REQUEST),
    "cut off": (post(UPLOAD, b"{" + PAIR), BAD_REQUEST),
    "two values": (post(UPLOAD, b"{" + PAIR + b"} {}"), BAD_REQUEST),
    "a list": (post(UPLOAD, b"[]"), BAD_REQUEST),
    "null": (post(LOOKUP, b"null"), BAD_REQUEST),
    "nested too deep": (post(UPLOAD, b"[" * 60_000), BAD_REQUEST),
    "nested too deep inside": (post(UPLOAD, b'{"a":' * 10_000), BAD_REQUEST),
    "NaN": (upload('"more": NaN'), BAD_REQUEST),
    "Infinity": (upload('"more": -Infinity'), BAD_REQUEST),
    "a number of 5000 digits": (upload('"more": 1' + "0" * 5_000), BAD_REQUEST),
    "a member twice": (upload('"account_id": "one", "account_id": "two"'), BAD_REQUEST),
    "a member twice inside": (upload('"more": {"a": 1, "a": 2}'), BAD_REQUEST),
    "a byte order mark": (post(UPLOAD, b"\xef\xbb\xbf{" + PAIR + b"}"), BAD_REQUEST),
    "UTF-16": (post(UPLOAD, ("{" + PAIR.decode() + "}").encode("utf-16")), BAD_REQUEST),
    "Latin-1": (post(UPLOAD, b"{" + PAIR + b', "account_id": "caf\xe9"}'), BAD_REQUEST),
    "a raw NUL": (upload('"account_id": "a\0b"'), BAD_REQUEST),
    "a form named JSON": (post(UPLOAD, b"access_token=a&refresh_token=r&expires_in=60"), BAD_REQUEST),
    # other kinds of bodies
    "a form": (post(UPLOAD, b"a=b", Content_Type="application/x-www-form-urlencoded"), MEDIA_TYPE),
    "text": (post(UPLOAD, b"{" + PAIR + b"}", Content_Type="text/plain"), MEDIA_TYPE),
    "no type": (Given("POST", UPLOAD, b"{" + PAIR + b"}", {}), MEDIA_TYPE),
    "gzip": (post(UPLOAD, gzip.compress(b"{" + PAIR + b"}"), Content_Encoding="gzip"), MEDIA_TYPE),
    "gzip by its old name": (post(LOOKUP, gzip.compress(b"{}"), Content_Encoding="x-gzip"), MEDIA_TYPE),
    # sizes
    "too large": (post(UPLOAD, b" " * (MAX_BODY_BYTES + 1)), TOO_LARGE),
    # members
    "1e400": (post(UPLOAD, PAIR.replace(b"60", b"1e400").join([b"{", b"}"])), invalid("expires_in")),
    "60.0": (post(UPLOAD, PAIR.replace(b"60", b"60.0").join([b"{", b"}"])), invalid("expires_in")),
    "a truth for a number": (
        post(UPLOAD, PAIR.replace(b"60", b"true").join([b"{", b"}"])),
        invalid("expires_in"),
    ),
    "a NUL in the account": (upload('"account_id": "a\\u0000b"'), invalid("account_id")),
    "half a surrogate pair": (upload('"account_id": "\\ud800"'), invalid("account_id")),
    "the mark of lost bytes": (upload('"account_id": "a\\ufffd"'), invalid("account_id")),
    "text that runs backwards": (upload('"account_id": "a\\u202eb"'), invalid("account_id")),
    "an account of 201 characters": (upload(f'"account_id": "{"x" * 201}"'), invalid("account_id")),
    "an account of dots": (upload('"account_id": ".."'), invalid("account_id")),
    "an account with a slash": (upload('"account_id": "a/b"'), invalid("account_id")),
    "no account": (upload('"account_id": null'), invalid("account_id")),
    "a NUL in a token": (
        post(UPLOAD, b'{"access_token": "a\\u0000", "refresh_token": "r", "expires_in": 60}'),
        invalid("access_token"),
    ),
    "half a pair in a token": (
        post(UPLOAD, b'{"access_token": "a", "refresh_token": "\\udc00", "expires_in": 60}'),
        invalid("refresh_token"),
    ),
    "a NUL in an e-mail": (post(LOOKUP, b'{"email": "a\\u0000@b.com"}'), invalid("email")),
    "half a pair in an e-mail": (post(LOOKUP, b'{"email": "\\ud800@b.com"}'), invalid("email")),
    "lost bytes in an e-mail": (post(LOOKUP, b'{"email": "\\ufffd@b.com"}'), invalid("email")),
    "a list for an e-mail": (post(LOOKUP, b'{"email": ["a@b.com"]}'), invalid("email")),
    # paths
    "a NUL in the path": (get("/rd/tokens/a%00b/access-token"), invalid("account_id")),
    "no UTF-8 in the path": (get("/rd/tokens/%ff/access-token"), invalid("account_id")),
    "overlong UTF-8 in the path": (get("/rd/tokens/%c0%af/access-token"), invalid("account_id")),
    "a surrogate in the path": (get("/rd/tokens/%ed%a0%80/access-token"), invalid("account_id")),
    "a long account in the path": (get(f"/rd/tokens/{'x' * 201}/access-token"), invalid("account_id")),
    "a slash in the path": (get("/rd/tokens/a%2fb/access-token"), NOT_FOUND),
    "two slashes": (get("/rd//tokens"), NOT_FOUND),
    "dots in the path": (get("/rd/tokens/x/../../metrics"), NOT_FOUND),
    "remove with a NUL": (Given("DELETE", "/rd/tokens/%00", headers={}), invalid("account_id")),
    "refresh with a NUL": (Given("POST", "/rd/tokens/%00/refresh", headers={}), invalid("account_id")),
    "a lead with a NUL": (get("/rd/leads/%00"), invalid("uuid")),
    "a lead's e-mail with a NUL": (get("/rd/leads/email/%00@b.com"), invalid("email")),
    "a lead's e-mail in no UTF-8": (get("/rd/leads/email/%ff@b.com"), invalid("email")),
    "a file with a NUL": (get("/static/%00"), NOT_FOUND),
    "a file elsewhere": (get("/static/..%2f..%2fsettings.py"), NOT_FOUND),
    # queries
    "a NUL in the query": (get("/rd/leads?account_id=%00"), invalid("account_id")),
    "no UTF-8 in the query": (get("/rd/leads?account_id=%ff"), invalid("account_id")),
    "a segmentation with a NUL": (get("/rd/leads?segmentation=a%00"), invalid("segmentation")),
    "a segmentation in no UTF-8": (get("/rd/leads?segmentation=%ff"), invalid("segmentation")),
    "a page of 5000 digits": (get("/rd/leads?page=1" + "0" * 4_000), invalid("page")),
    "a page in other digits": (get("/rd/leads?page=" + quote("١")), invalid("page")),
    "a page with a sign": (get("/rd/segmentations?page=%2b1"), invalid("page")),
    "a page with an underscore": (get("/rd/segmentations?page_size=1_0"), invalid("page_size")),
    "an order of two lines": (get("/rd/leads?order=name:asc%0a"), invalid("order")),
    "min_ttl below zero": (get("/rd/tokens/default/access-token?min_ttl=-1"), invalid("min_ttl")),
    "the account twice": (get("/rd/leads?account_id=default&account_id=other"), invalid("account_id")),
    "the segmentation twice": (get("/rd/leads?segmentation=1&segmentation=2"), invalid("segmentation")),
    "the page twice": (get("/rd/segmentations?page=1&page=1"), invalid("page")),
    "min_ttl twice": (
        get("/rd/tokens/default/access-token?min_ttl=1&min_ttl=2"),
        invalid("min_ttl"),
    ),
}


@pytest.fixture
def web(processes: Any) -> Web:
    started: Web = processes.web(WEB_CONCURRENCY="1")
    return started


@pytest.fixture
def line(web: Web) -> Iterator[http.client.HTTPConnection]:
    """A connection to the service."""
    connection = http.client.HTTPConnection(urlsplit(web.url).netloc, timeout=30)
    yield connection
    connection.close()


def send(
    line: http.client.HTTPConnection, given: Given, headers: dict[str, str]
) -> tuple[int, dict[str, str], bytes]:
    """Send a request without changing anything in it."""
    line.putrequest(given.method, given.target, skip_accept_encoding=True)
    for name, value in (given.headers | headers).items():
        line.putheader(name, value)
    if given.body is not None:
        line.putheader("Content-Length", str(len(given.body)))
    line.endheaders()
    if given.body is not None:
        # The service may answer, and close, before it has read everything.
        with contextlib.suppress(ConnectionError):
            line.send(given.body)
    response = line.getresponse()
    body = response.read()
    # The next one gets a connection of its own: what is left of this one's body must not be read as a request.
    line.close()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, body


def stored(conn: psycopg.Connection[Any]) -> list[Any]:
    """Return everything that a request could have stored."""
    tables = (
        "rdstation_tokens",
        "rdstation_replaced_tokens",
        "rdstation_waiting_pairs",
        "rdstation_refresh_attempts",
        "rdstation_cache",
        "rdservice_events",
        "rdservice_event_streams",
    )
    return [conn.execute(f"SELECT t.* FROM {table} t ORDER BY 1").fetchall() for table in tables]  # noqa: S608


def test_each_piece_of_rubbish_is_refused_with_a_reason_and_nothing_is_stored(
    web: Web,
    line: http.client.HTTPConnection,
    connected: Services,
    sandbox: SandboxProcess,
    conn: psycopg.Connection[Any],
    authorized: dict[str, str],
) -> None:
    connect_account(connected, sandbox, due=False)
    before, calls = stored(conn), sandbox.calls()
    found, expected = {}, {}
    for name, (given, wanted) in RUBBISH.items():
        status, headers, body = send(line, given, authorized)
        problem: dict[str, Any] = json.loads(body) if "json" in headers["content-type"] else {}
        found[name] = (status, problem.get("code"), problem.get("field"))
        expected[name] = wanted
        assert problem.get("detail"), name
        assert problem["request_id"] == headers["x-request-id"], name
    assert found == expected
    assert stored(conn) == before
    assert sandbox.calls() == calls
    assert "Traceback" not in web.log


def test_logging_in_with_rubbish_is_a_wrong_pair(
    web: Web, line: http.client.HTTPConnection, conn: psycopg.Connection[Any]
) -> None:
    assert operators.create(conn, "ana@example.com", passwords.hash_password("correct horse battery"))
    status, headers, page = send(line, get("/login"), {})
    assert status == 200
    cookie = headers["set-cookie"].partition(";")[0]
    token = page.decode().partition('name="csrf_token" value="')[2].partition('"')[0]
    form = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookie}
    for email in ("ana%00@example.com", "%ff", "%ed%a0%80@example.com", "a" * 10_000, "", "ana@example.com"):
        for password in ("%00", "%ff%fe", "x" * 2_000):
            body = f"csrf_token={token}&email={email}&password={password}".encode()
            status, _, response = send(line, Given("POST", "/login", body, form), {})
            # Ten wrong passwords for the same name are enough for a quarter of an hour.
            assert (status, json.loads(response)["code"]) in {
                (401, "unauthorized"),
                (429, "too_many_requests"),
            }, email
    for rubbish in ("%00", "%ff", ""):
        body = f"csrf_token={rubbish}&email=ana@example.com&password=x".encode()
        status, _, response = send(line, Given("POST", "/login", body, form), {})
        assert (status, json.loads(response)["code"]) == (403, "csrf_failed")
    assert conn.execute("SELECT count(*) FROM rdservice_sessions").fetchone() == (0,)
    assert "Traceback" not in web.log


def test_rubbish_in_headers_is_worth_nothing(
    web: Web, line: http.client.HTTPConnection, api_key: str
) -> None:
    for value in ("Bearer", "Bearer \xff", f"Bearer {api_key}\xe9", f"Basic {api_key}", "\xff" * 4_000):
        status, _, body = send(line, get("/rd/tokens"), {"Authorization": value})
        assert (status, json.loads(body)["code"]) == (401, "unauthorized"), value
    for name, value in {
        "Cookie": "rdservice_session_8000=\xff.\xff.\xff; \x01",
        "Accept-Language": "\xff;q=nan, ;;q=,",
        "If-None-Match": '"\xff',
        "X-Request-ID": "\xff" * 20,
        "X-CSRFToken": "\xff",
        "Host": "\xff",
        "Referer": "http://[",
        "Range": "bytes=\xff-",
    }.items():
        named = {"Authorization": f"Bearer {api_key}"} if name != "Cookie" else {}
        status, headers, _ = send(line, get("/rd/tokens"), named | {name: value})
        assert status in {200, 400, 401}, name
        assert "\xff" not in headers.get("x-request-id", ""), name
    assert "Traceback" not in web.log


def test_the_longest_valid_request_fits_into_its_line(
    line: http.client.HTTPConnection, authorized: dict[str, str]
) -> None:
    query = f"account_id={quote(WIDE * 200)}&segmentation={quote(WIDE * 255)}"
    target = f"/rd/leads?{query}&order={'a' * 64}:desc&page=1000000000&page_size=125"
    status, _, body = send(line, get(target), authorized)
    assert (status, json.loads(body)["code"]) == (409, "not_connected")


def test_names_that_only_look_the_same_are_different_accounts(
    line: http.client.HTTPConnection, connected: Services, sandbox: SandboxProcess, authorized: dict[str, str]
) -> None:
    composed, decomposed = "café", "cafe\u0301"
    pair = connect_account(connected, sandbox, composed, due=False)
    status, _, body = send(line, get(f"/rd/tokens/{quote(composed)}/access-token"), authorized)
    assert (status, json.loads(body)["access_token"]) == (200, pair["access_token"])
    status, _, body = send(line, get(f"/rd/tokens/{quote(decomposed)}/access-token"), authorized)
    assert (status, json.loads(body)["code"]) == (409, "not_connected")
