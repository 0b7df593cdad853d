"""What gunicorn and `/rd/api/` make of requests that servers could read differently.

Each ends in a refusal, or reaches RD Station as exactly one request: never as two, nowhere else, at no token route.
"""

from collections.abc import Iterator

import psycopg
import pytest
from cryptography.fernet import Fernet

from rdservice.access import keys
from rdservice.config.settings import Settings
from rdservice.database.pool import transaction
from rdservice.services import Services
from tests.conftest import CLIENT_ID, CLIENT_SECRET, REDIRECT_URI
from tests.support.accounts import connect_account
from tests.support.odd_server import OddServer, odd_server, respond_with
from tests.support.processes import Processes
from tests.support.raw_http import Conversation, connect, read_all

pytestmark = pytest.mark.slow

PATH = b"/rd/api/platform/x"
LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
CHUNKED = b"Transfer-Encoding: chunked"
BODY = b"3\r\na=b\r\n0\r\n\r\n"


class Far:
    """The service with a program's key, and RD Station behind it."""

    def __init__(self, port: int, key: str, upstream: OddServer) -> None:
        self.port = port
        self._authorization = f"Authorization: Bearer {key}\r\n".encode()
        self.upstream = upstream

    @property
    def smuggled(self) -> bytes:
        return self.request(b"DELETE", b"/rd/api/smuggled")

    def request(
        self,
        method: bytes,
        path: bytes,
        *headers: bytes,
        body: bytes = b"",
        host: bytes = b"Host: localhost\r\n",
    ) -> bytes:
        lines = b"".join(header + b"\r\n" for header in headers)
        return method + b" " + path + b" HTTP/1.1\r\n" + host + self._authorization + lines + b"\r\n" + body

    def say(self, sent: bytes) -> tuple[list[int], list[bytes]]:
        """Return the statuses until the service closes the connection, and what reached RD Station meanwhile."""
        before = len(self.upstream.received)
        with connect(self.port) as connection:
            connection.sendall(sent)
            conversation = Conversation(read_all(connection))
        assert b"Traceback" not in conversation.received
        return conversation.statuses, self.upstream.received[before:]


@pytest.fixture(scope="module")
def far(_migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    with odd_server(respond_with(OK)) as upstream:
        variables = {
            "RDSTATION_CLIENT_ID": CLIENT_ID,
            "RDSTATION_CLIENT_SECRET": CLIENT_SECRET,
            "RDSTATION_REDIRECT_URI": REDIRECT_URI,
            "RDSTATION_API_URL": upstream.url,
            "RDSTATION_RATE_LIMIT": "100000",
            "DATABASE_URL": _migrated_url,
            "SECRET_KEY": "0123456789abcdef0123456789abcdef",
            "TOKEN_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
            "WEB_CONCURRENCY": "1",
        }
        services = Services.start(Settings.from_mapping(variables), name="test")
        processes = Processes(variables, tmp_path_factory.mktemp("raw"))
        try:
            connect_account(services, due=False)
            with psycopg.connect(_migrated_url) as conn:
                key = keys.create(conn, "a program", ["api:call"], created_by="test")
            yield Far(processes.web().port, key, upstream)
        finally:
            processes.close()
            with transaction(services.pool) as conn:
                conn.execute("DELETE FROM rdstation_tokens")
            services.close()


TWO_READINGS: dict[str, tuple[list[bytes], bytes]] = {
    "Content-Length and Transfer-Encoding": ([b"Content-Length: 4", CHUNKED], BODY),
    "Transfer-Encoding and Content-Length": ([CHUNKED, b"Content-Length: 4"], BODY),
    "two lengths": ([b"Content-Length: 0", b"Content-Length: 3"], b"a=b"),
    "two equal lengths": ([b"Content-Length: 3", b"Content-Length: 3"], b"a=b"),
    "a list of lengths": ([b"Content-Length: 3, 3"], b"a=b"),
    "a length with a sign": ([b"Content-Length: +3"], b"a=b"),
    "space before the colon": ([b"Content-Length : 3"], b"a=b"),
    "space before the coding's colon": ([b"Transfer-Encoding : chunked"], BODY),
    "an unknown coding": ([b"Transfer-Encoding: xchunked"], BODY),
    "chunked twice": ([CHUNKED, CHUNKED], BODY),
    "chunked is not last": ([b"Transfer-Encoding: chunked, gzip"], BODY),
    "an underscored length": ([b"Content_Length: 3"], b"a=b"),
    "folded lines": ([b"X: a", b" b"], b""),
    "a folded coding": ([b"Transfer-Encoding:", b" chunked"], BODY),
    "a bare line feed between two headers": ([b"X: a\nContent-Length: 3"], b"a=b"),
    "a bare CR in a value": ([b"X: a\rContent-Length: 3"], b"a=b"),
    "a NUL in a value": ([b"X: a\0b"], b""),
    "two hosts": ([b"Host: evil.example"], b""),
    "a chunk without its end": ([CHUNKED], b"3\r\na=bX\r\n0\r\n\r\n"),
    "a chunk's size with bare line feeds": ([CHUNKED], b"3\na=b\n0\n\n"),
    "a chunk's size with 0x": ([CHUNKED], b"0x3\r\na=b\r\n0\r\n\r\n"),
    "an extension with a line end": ([CHUNKED], b"3;a\nb\r\na=b\r\n0\r\n\r\n"),
    "a length in a trailer": ([CHUNKED], b"3\r\na=b\r\n0\r\nContent-Length: 5\r\n\r\n"),
}
"""Headers and body of a POST; each is followed by what must not become a request."""


@pytest.mark.parametrize("name", TWO_READINGS)
def test_what_can_be_read_in_two_ways_does_not_reach_rd_station(far: Far, name: str) -> None:
    headers, body = TWO_READINGS[name]
    statuses, reached = far.say(far.request(b"POST", PATH, *headers, body=body) + far.smuggled)
    assert len(statuses) == 1
    assert 400 <= statuses[0] < 600
    assert reached == []


def test_lines_that_end_with_bare_line_feeds_do_not_reach_rd_station(far: Far) -> None:
    statuses, reached = far.say(far.request(b"GET", PATH).replace(b"\r\n", b"\n") + far.smuggled)
    assert (statuses, reached) == ([400], [])


ELSEWHERE: dict[bytes, int] = {
    b"http://evil.example/rd/api/platform/x": 400,
    b"http://localhost/rd/api/platform/x": 400,
    b"http:/rd/api/platform/x": 400,
    b"//evil.example/rd/api/platform/x": 404,
    b"//rd/api/auth/token": 400,
    b"/rd/api//evil.example/x": 404,
    b"/rd/api/%2f/evil.example/x": 404,
    b"/rd/api/%2fevil.example": 404,
    b"/rd/api/%5cevil.example": 400,
    b"/rd/api/\\evil.example": 400,
    b"/rd/api@evil.example/x": 404,
    b"/rd/api:80@evil.example/x": 404,
    b"/rd/api.evil.example/x": 404,
    b"/rd/api/x#@evil.example": 400,
    b"/rd/api/../x": 400,
    b"/rd/api/x/../auth/token": 400,
    b"/rd/api/x/%2e%2e/auth/token": 400,
    b"/rd/api/x/%252e%252e/auth/token": 400,
    b"/rd/api/x/.%2E/auth/token": 400,
    b"/rd/api/x/..;/auth/token": 400,
    b"/rd/api/x%2f..%2fauth%2ftoken": 400,
    b"/rd/api/./auth/token": 400,
    b"/rd/api/x/..": 400,
    b"/rd/api/auth/token": 403,
    b"/rd/api/AUTH/token": 403,
    b"/rd/api/%61uth/token": 403,
    b"/rd/api/%2561uth/token": 403,
    b"/rd/api/auth%2ftoken": 403,
    b"/rd/api/auth%5ctoken": 403,
    b"/rd/api/auth;x/token": 403,
    b"/rd/api/oauth2/token": 403,
    b"/x/../rd/api/auth/token": 404,
    b"/rd%2fapi/auth/token": 400,
    b"/rd/api/x%0d%0aHost:%20evil.example": 404,
    b"/rd/api/x%250d%250aHost:%20evil.example": 400,
    b"/rd/api/x%00": 400,
    b"/rd/api/x%": 400,
    b"/rd/api/x%zz": 400,
    b"/rd/api/\xe9": 400,
}
"""Request targets of a program with a key, with the status of the answer."""


@pytest.mark.parametrize("target", ELSEWHERE)
def test_no_target_leads_to_another_host_or_a_token_route(far: Far, target: bytes) -> None:
    statuses, reached = far.say(far.request(b"POST", target, b"Connection: close"))
    assert reached == []
    assert statuses == [ELSEWHERE[target]]


@pytest.mark.parametrize("target", [b"evil.example:443", b"/rd/api/platform/x", b"api.rd.services:443"])
def test_connect_opens_nothing(far: Far, target: bytes) -> None:
    statuses, reached = far.say(far.request(b"CONNECT", target, b"Connection: close") + far.smuggled)
    assert reached == []
    assert len(statuses) == 1
    assert 400 <= statuses[0] < 500


def length(body: bytes) -> bytes:
    return b"Content-Length: %d" % len(body)


WITH_HEADERS: dict[str, list[bytes]] = {
    "plain": [],
    "a forwarded host": [b"X-Forwarded-Host: evil.example", b"Forwarded: host=evil.example"],
    "another path": [b"X-Original-URL: /auth/evil", b"X-Rewrite-URL: /auth/evil"],
    "another method": [b"X-HTTP-Method-Override: evil"],
    "headers of the connection": [b"Connection: keep-alive, X-Evil", b"X-Evil: evil", b"Keep-Alive: evil"],
    "an upgrade": [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: evil"],
    "a coding of transfers": [b"TE: trailers, evil"],
    "a proxy's credentials": [b"Proxy-Authorization: Basic evil"],
    "a cookie": [b"Cookie: session=evil"],
}


@pytest.mark.parametrize("name", WITH_HEADERS)
def test_what_is_about_the_connection_or_the_caller_does_not_travel(far: Far, name: str) -> None:
    statuses, reached = far.say(far.request(b"GET", PATH, *WITH_HEADERS[name]) + LAST)
    assert statuses == [200, 200]
    [request] = reached
    assert request.startswith(b"GET /platform/x HTTP/1.1\r\n")
    assert b"evil" not in request
    assert request.lower().count(b"\r\nhost: 127.0.0.1:%d\r\n" % far.upstream.port) == 1
    assert request.count(b"\r\nAuthorization: Bearer access-of-default\r\n") == 1
    assert request.lower().count(b"authorization") == 1


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT", b"DELETE"])
@pytest.mark.parametrize("framing", ["length", "chunked", "100-continue"])
def test_a_request_in_a_body_stays_a_body(far: Far, method: bytes, framing: str) -> None:
    inner = far.smuggled
    if framing == "chunked":
        sent = far.request(method, PATH, CHUNKED, body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner))
    else:
        expect = [b"Expect: 100-continue"] if framing == "100-continue" else []
        sent = far.request(method, PATH, length(inner), *expect, body=inner)
    statuses, reached = far.say(sent + LAST)
    assert [status for status in statuses if status != 100] == [200, 200]
    [request] = reached
    head, _, body = request.partition(b"\r\n\r\n")
    assert body == inner
    assert head.startswith(method + b" /platform/x HTTP/1.1\r\n")
    assert head.lower().count(b"\r\n" + length(inner).lower()) == 1
    assert b"transfer-encoding" not in head.lower()
    assert b"expect" not in head.lower()


@pytest.mark.parametrize(
    "query",
    [b"a=%0d%0aX-Evil:%20y%0d%0a%0d%0aGET%20/auth/token", b"u=http://evil.example/", b"a=%2e%2e/&b=//c"],
)
def test_a_query_stays_a_query_as_it_was_sent(far: Far, query: bytes) -> None:
    statuses, reached = far.say(far.request(b"GET", PATH + b"?" + query) + LAST)
    assert statuses == [200, 200]
    [request] = reached
    assert request.startswith(b"GET /platform/x?" + query + b" HTTP/1.1\r\n")
    assert b"\r\nX-Evil" not in request


def test_an_encoded_line_end_in_the_account_is_no_account(far: Far) -> None:
    statuses, reached = far.say(far.request(b"GET", PATH, b"RD-Account: default%0d%0aX-Evil: y") + LAST)
    assert (statuses, reached) == ([409, 200], [])


def test_requests_in_a_row_are_answered_in_their_order_each_on_a_connection_of_its_own(far: Far) -> None:
    row = [
        far.request(b"POST", b"/rd/api/platform/%d" % number, length(b"a=b"), body=b"a=b")
        for number in range(5)
    ]
    statuses, reached = far.say(b"".join(row) + LAST)
    assert statuses == [200] * 6
    assert [request.split(b" ")[1] for request in reached] == [
        b"/platform/%d" % number for number in range(5)
    ]
