"""What gunicorn, with this project's settings, makes of requests that two servers could read differently.

Each ends in a refusal or in exactly one request of the application, never in two.
"""

import contextlib
import re
import time
from collections.abc import Iterator

import pytest
from cryptography.fernet import Fernet

from tests.conftest import CLIENT_ID, CLIENT_SECRET, REDIRECT_URI
from tests.support.processes import Processes, Web
from tests.support.raw_http import Conversation, connect, read_all, say

pytestmark = pytest.mark.slow

HOST = b"Host: localhost:8000\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost:8000\r\n\r\n"
LINE = re.compile(r"(GET|POST|HEAD|OPTIONS|\(other\)) (/\S*|\(no route\)) [0-9]{3}")


def lines_of(web: Web) -> int:
    """Return how many requests the log has. Lines are written after the answer: wait until no more come."""
    count, same_since = -1, time.monotonic()
    while time.monotonic() - same_since < 0.4:
        if (now := len(LINE.findall(web.log))) != count:
            count, same_since = now, time.monotonic()
        time.sleep(0.05)
    return count


@pytest.fixture(scope="module")
def web(_migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    variables = {
        "RDSTATION_CLIENT_ID": CLIENT_ID,
        "RDSTATION_CLIENT_SECRET": CLIENT_SECRET,
        "RDSTATION_REDIRECT_URI": REDIRECT_URI,
        "RDSTATION_API_URL": "http://127.0.0.1:9",
        "DATABASE_URL": _migrated_url,
        "SECRET_KEY": "0123456789abcdef0123456789abcdef",
        "TOKEN_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
        "WEB_CONCURRENCY": "1",
    }
    processes = Processes(variables, tmp_path_factory.mktemp("raw"))
    try:
        yield processes.web()
    finally:
        processes.close()


def get(*headers: bytes, path: bytes = b"/healthz", host: bytes = HOST) -> bytes:
    return (
        b"GET " + path + b" HTTP/1.1\r\n" + host + b"".join(header + b"\r\n" for header in headers) + b"\r\n"
    )


def post(*headers: bytes, body: bytes = b"") -> bytes:
    head = b"POST /login HTTP/1.1\r\n" + HOST + b"Content-Type: application/x-www-form-urlencoded\r\n"
    return head + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked"
BODY = b"3\r\na=b\r\n0\r\n\r\n"
REFUSED: dict[str, bytes] = {
    "Content-Length and Transfer-Encoding": post(b"Content-Length: 4", CHUNKED, body=BODY + SMUGGLED),
    "Transfer-Encoding and Content-Length": post(CHUNKED, b"Content-Length: 4", body=BODY + SMUGGLED),
    "two lengths": post(b"Content-Length: 0", b"Content-Length: 47", body=SMUGGLED),
    "two equal lengths": post(b"Content-Length: 3", b"Content-Length: 3", body=b"a=b" + SMUGGLED),
    "a list of lengths": post(b"Content-Length: 3, 3", body=b"a=b" + SMUGGLED),
    "a length with a sign": post(b"Content-Length: +3", body=b"a=b" + SMUGGLED),
    "a negative length": post(b"Content-Length: -1", body=b"a=b" + SMUGGLED),
    "a length in hexadecimal": post(b"Content-Length: 0x3", body=b"a=b" + SMUGGLED),
    "a length with an underscore": post(b"Content-Length: 1_0", body=b"a=b" + SMUGGLED),
    "no length but the name": post(b"Content-Length:", body=b"a=b" + SMUGGLED),
    "space before the colon": post(b"Content-Length : 3", body=b"a=b" + SMUGGLED),
    "space before the coding's colon": post(b"Transfer-Encoding : chunked", body=BODY + SMUGGLED),
    "an unknown coding": post(b"Transfer-Encoding: xchunked", body=BODY + SMUGGLED),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked", body=BODY + SMUGGLED),
    "chunked in two lines": post(CHUNKED, CHUNKED, body=BODY + SMUGGLED),
    "chunked and identity": post(b"Transfer-Encoding: chunked, identity", body=BODY + SMUGGLED),
    "chunked is not last": post(b"Transfer-Encoding: chunked, gzip", body=BODY + SMUGGLED),
    "a quoted coding": post(b'Transfer-Encoding: "chunked"', body=BODY + SMUGGLED),
    "a coding after a vertical tab": post(b"Transfer-Encoding:\x0bchunked", body=BODY + SMUGGLED),
    "an underscored coding": post(b"Transfer_Encoding: chunked", b"Content-Length: 3", body=b"a=b"),
    "an underscored length": post(b"Content_Length: 3", body=b"a=b" + SMUGGLED),
    "a coding under HTTP/1.0": post(CHUNKED, body=BODY + SMUGGLED).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "a line end in a name": get(b"X\r: y"),
    "a bare CR in a value": get(b"X: a\rb"),
    "a NUL in a value": get(b"X: a\0b"),
    "a NUL in the path": get(path=b"/healthz\0"),
    "a name that is not ASCII": get("É: y".encode()),
    "a name with a space": get(b"X Y: z"),
    "a name without a colon": get(b"Xyz"),
    "an empty name": get(b": x"),
    "folded lines": get(b"X: a", b" b"),
    "a folded first line": get(b" X: a", host=b""),
    "a folded coding": post(b"Transfer-Encoding:", b" chunked", body=BODY + SMUGGLED),
    "bare line feeds": get().replace(b"\r\n", b"\n"),
    "a bare line feed between two headers": get(b"X: a\nY: b"),
    "two hosts": get(b"Host: evil.example"),
    "two equal hosts": get(HOST.strip()),
    "a forwarded address with underscores": get(b"X_Forwarded_For: 127.0.0.1"),
    "a script name": get(b"SCRIPT_NAME: /evil"),
    "a path in a header": get(b"PATH_INFO: /metrics"),
    "HTTP/0.9": b"GET /healthz\r\n",
    "HTTP/2": get().replace(b"HTTP/1.1", b"HTTP/2.0"),
    "HTTP/3": get().replace(b"HTTP/1.1", b"HTTP/3"),
    "http in lower case": get().replace(b"HTTP/1.1", b"http/1.1"),
    "a method in lower case": get().replace(b"GET", b"get", 1),
    "no method": get().replace(b"GET ", b"", 1),
    "a tab in the request line": get().replace(b"GET ", b"GET\t", 1),
    "two spaces in the request line": get().replace(b"GET ", b"GET  ", 1),
    "a space in the path": get(path=b"/healthz x"),
    "a path without a slash": get(path=b"healthz"),
    "an asterisk": get(path=b"*"),
    "a long request line": get(path=b"/healthz?" + b"a" * 8190),
    "a long header": get(b"X: " + b"a" * 8190),
    "many headers": get(*(b"X-%d: y" % number for number in range(64))),
    "a megabyte of headers": get(*(b"X-%d: %s" % (number, b"y" * 8000) for number in range(130))),
    "an unknown expectation": post(b"Expect: the-unexpected", b"Content-Length: 3", body=b"a=b"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9,
    "the PROXY protocol": b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + get(),
}
"""What never reaches the application."""


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_be_read_in_two_ways_is_refused(web: Web, name: str) -> None:
    before = lines_of(web)
    conversation = say(web.port, REFUSED[name])
    assert all(400 <= status < 600 for status in conversation.statuses), conversation.received
    assert len(conversation.statuses) <= 1, conversation.received
    assert lines_of(web) == before
    assert b"Traceback" not in conversation.received


ONCE: dict[str, tuple[bytes, list[int]]] = {
    "a plain request": (get(), [200]),
    "HTTP/1.0 without a host": (b"GET /healthz HTTP/1.0\r\n\r\n", [200]),
    "a body that the application does not read": (post(b"Content-Length: 47", body=SMUGGLED[:47]), [403]),
    "a body of a GET": (get(b"Content-Length: %d" % len(SMUGGLED)) + SMUGGLED, [200]),
    "a chunked body of a GET": (get(CHUNKED) + b"3e\r\n%s\r\n0\r\n\r\n" % SMUGGLED.ljust(62), [200]),
    "a chunked body": (post(CHUNKED, body=BODY), [403]),
    "chunked in capitals": (post(b"Transfer-Encoding: CHUNKED", body=BODY), [403]),
    "a chunk's extension": (post(CHUNKED, body=b"3;a=b\r\na=b\r\n0\r\n\r\n"), [403]),
    "a harmless trailer": (post(CHUNKED, body=b"3\r\na=b\r\n0\r\nX-Trailer: y\r\n\r\n"), [403]),
    "less body than announced": (post(b"Content-Length: 50", body=b"a=b"), [400]),
    "a body over 64 KiB": (post(b"Content-Length: 65537", body=b"a" * 65537), [413]),
    "a chunked body over 64 KiB": (
        post(CHUNKED, body=b"10001\r\n" + b"a" * 0x10001 + b"\r\n0\r\n\r\n"),
        [413],
    ),
    "an upgrade to websockets": (get(b"Upgrade: websocket", b"Connection: Upgrade"), [400]),
    "an upgrade to HTTP/2": (
        get(b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
        [200],
    ),
    "100-continue": (post(b"Expect: 100-continue", b"Content-Length: 3", body=b"a=b"), [100, 403]),
    "100-continue under HTTP/1.0": (
        post(b"Expect: 100-continue", b"Content-Length: 3", body=b"a=b").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
        [403],
    ),
    "a connection to be closed, and more": (get(b"Connection: close") + SMUGGLED, [200]),
    "an absolute address": (get(path=b"http://evil.example/healthz"), [200]),
    "a method of nobody's": (get().replace(b"GET", b"PURGE", 1), [405]),
    "CONNECT": (get(path=b"localhost:8000").replace(b"GET", b"CONNECT", 1), [404]),
    "a host that names none": (get(host=b"Host: xn--a..b\r\n"), [400]),
    "a host with a broken name": (get(host=b"Host: xn--a\r\n"), [200]),
    "no host": (get(host=b""), [200]),
    "an overriding method": (get(b"X-HTTP-Method-Override: DELETE", path=b"/rd/tokens"), [401]),
}
"""What reaches the application as one request, with the statuses that come back."""


@pytest.mark.parametrize("name", ONCE)
def test_what_is_one_request_is_counted_once(web: Web, name: str) -> None:
    before = lines_of(web)
    sent, statuses = ONCE[name]
    conversation = say(web.port, sent)
    assert conversation.statuses == statuses, conversation.received
    assert lines_of(web) == before + 1
    assert "/smuggled" not in web.log
    assert b"Traceback" not in conversation.received
    assert b"evil" not in conversation.received


CUT_OFF: dict[str, bytes] = {
    "no terminator after a chunk": b"3\r\na=bX\r\n0\r\n\r\n",
    "a chunk without an end": b"5\r\na=b",
    "a size that is no number": b"z\r\na=b\r\n0\r\n\r\n",
    "a negative size": b"-3\r\na=b\r\n0\r\n\r\n",
    "a size with an underscore": b"0_3\r\na=b\r\n0\r\n\r\n",
    "a size with 0x": b"0x3\r\na=b\r\n0\r\n\r\n",
    "a size after a space": b" 3\r\na=b\r\n0\r\n\r\n",
    "a size with a bare line feed": b"3\na=b\n0\n\n",
    "an extension with a line end": b"3;a\nb\r\na=b\r\n0\r\n\r\n",
    "an endless extension": b"3;a=" + b"b" * 100_000 + b"\r\na=b\r\n0\r\n\r\n",
    "a length in a trailer": b"3\r\na=b\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a key in a trailer": b"3\r\na=b\r\n0\r\nAuthorization: Bearer x\r\n\r\n",
    "a trailer without a colon": b"3\r\na=b\r\n0\r\nXyz\r\n\r\n",
    "no last chunk": b"3\r\na=b\r\n",
}
"""Chunked bodies that break off or cannot be read; each is followed by what must not become a request."""


@pytest.mark.parametrize("name", CUT_OFF)
def test_a_chunked_body_that_cannot_be_read_ends_the_connection(web: Web, name: str) -> None:
    before = lines_of(web)
    conversation = say(web.port, post(CHUNKED, body=CUT_OFF[name] + SMUGGLED))
    assert len(conversation.statuses) <= 1, conversation.received
    assert all(status == 400 for status in conversation.statuses), conversation.received
    assert "Traceback" not in web.log
    assert lines_of(web) - before <= 1
    assert "/smuggled" not in web.log


def test_requests_in_a_row_are_answered_in_their_order_and_each_once(web: Web) -> None:
    before = lines_of(web)
    row = get() + post(b"Content-Length: 3", body=b"a=b") + get(path=b"/nowhere") + get(path=b"/rd/tokens")
    assert say(web.port, row).statuses == [200, 403, 404, 401]
    assert lines_of(web) == before + 4


def test_an_address_of_another_host_in_the_request_line_leads_nowhere(web: Web) -> None:
    asked = get(b"Accept: text/html", path=b"http://evil.example/rd/login?account_id=a")
    conversation = say(web.port, asked)
    assert conversation.statuses == [302]
    assert b"Location: /login?next=/rd/login?account_id%3Da\r\n" in conversation.received
    assert b"evil" not in conversation.received


FORWARDED = [
    b"Forwarded: for=127.0.0.1",
    b"Forwarded:",
    b"fOrWaRdEd: for=_hidden",
    b"X-Forwarded-For: 127.0.0.1",
    b"X-Forwarded-For:",
    b"x-forwarded-for:   ",
    b"X-FORWARDED-PROTO: https",
    b"X-Forwarded-Anything: x",
    b"X_Forwarded_For: 127.0.0.1",
    b"X-Forwarded_For: 127.0.0.1",
    b"x_forwarded_host:",
]


def test_metrics_without_a_token_are_refused_to_whatever_came_through_a_proxy(web: Web) -> None:
    assert say(web.port, get(path=b"/metrics")).statuses == [200]
    for header in FORWARDED:
        for headers in ([header], [header, header], [header, b"X-Forwarded-For: 127.0.0.1"]):
            conversation = say(web.port, get(*headers, path=b"/metrics"))
            assert conversation.statuses in ([400], [403]), headers
            assert b"rdstation_" not in conversation.received


HALF: dict[str, bytes] = {
    "nothing": b"",
    "half a request line": b"GET /hea",
    "half a head": b"GET /healthz HTTP/1.1\r\nHost: localhost:8000\r\nX: ",
    "half a body": post(b"Content-Length: 30", body=b"email=a"),
    "half a chunk": post(CHUNKED, body=b"10\r\nemail=a"),
    "a body that never begins": post(b"Content-Length: 30", b"Expect: 100-continue"),
}


def test_half_requests_leave_threads_to_everyone_else_and_end(web: Web) -> None:
    with contextlib.ExitStack() as opened:
        # Of each kind more than the threads of the process.
        halves = [(name, opened.enter_context(connect(web.port))) for name in HALF for _ in range(70)]
        for name, half in halves:
            # A client that finds all places taken may be refused before it has sent everything.
            with contextlib.suppress(OSError):
                half.sendall(HALF[name])
        for path, status in ((b"/healthz", 200), (b"/rd/tokens", 401), (b"/login", 200)):
            assert say(web.port, get(path=path)).statuses == [status]
        # The server ends each, with an error or without a word.
        for name, half in halves:
            conversation = Conversation(read_all(half))
            assert [status for status in conversation.statuses if status != 100] in ([], [400]), name
    assert say(web.port, get()).statuses == [200]
    assert "Traceback" not in web.log
