"""The fast reads respond as Flask does, to the last header, and leave to Flask all that they cannot serve."""

import itertools
import json
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import psycopg
import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder, run_wsgi_app

from rdservice.access import key_memory, keys
from rdservice.config.settings import Settings
from rdservice.metrics.definitions import Series
from rdservice.services import Services
from rdservice.tokens import memory
from rdservice.web import create_app
from rdservice.web.api import leads
from rdservice.web.api.fast_reads import FastReads
from tests.support.accounts import connect_account
from tests.support.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Conn = psycopg.Connection[Any]
MakeServices = Callable[[Settings], Services]

LEADS, TOKEN = "/rd/leads", "/rd/tokens/default/access-token"
LONG_S = 10_000.0
EXPIRED = "UPDATE rdstation_tokens SET expires_at = rd_now() - interval '1 minute' WHERE account_id = %s"
DYING = """
UPDATE rdstation_tokens SET issued_at = rd_now() - interval '1 day', expires_at = rd_now() + interval '30 s'
 WHERE account_id = %s
"""
REFUSED = "UPDATE rdstation_tokens SET status = 'reauthorization_required' WHERE account_id = %s"


class Reply(NamedTuple):
    """A response without what differs each time: its request id, and seconds that count up or down."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes
    seconds: list[int]


class Ways:
    """An application that can be asked in both ways."""

    def __init__(self, app: Flask, authorization: str) -> None:
        self.app = app
        self._fast = cast(FastReads, app.wsgi_app)
        self._flask_app = self._fast.flask_app
        self._authorization = authorization
        self._places = itertools.count(1)
        self.by_flask = 0
        self._fast.flask_app = self._count_and_pass_on

    def _count_and_pass_on(self, environ: "WSGIEnvironment", start_response: Any) -> Any:
        self.by_flask += 1
        return self._flask_app(environ, start_response)

    def environ(self, method: str, path: str, query: str = "", **headers: str) -> dict[str, Any]:
        """`path` and `query` as they are on the wire, but for percent-encodings in `path`; `headers` as in WSGI."""
        builder = EnvironBuilder(method=method)
        try:
            made = builder.get_environ()
        finally:
            builder.close()
        own = {
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "HTTP_HOST": "localhost:8000",
            # From ever other places: many refused keys from one place are an outcome of their own.
            "REMOTE_ADDR": f"192.0.2.{next(self._places) % 250}",
        }
        made |= own | {"HTTP_AUTHORIZATION": self._authorization} | headers
        return {name: value for name, value in made.items() if value is not None}

    def both(self, method: str, path: str, query: str = "", **headers: str) -> tuple[Reply, Reply, bool]:
        """Return the responses of both ways, and whether the first one came from the fast reads."""
        # Flask, called first, may have asked RD Station for its response.
        run_wsgi_app(self._flask_app, self.environ(method, path, query, **headers))
        before = self.by_flask
        fast = _reply(run_wsgi_app(self._fast, self.environ(method, path, query, **headers)))
        was_fast = self.by_flask == before
        slow = _reply(run_wsgi_app(self._flask_app, self.environ(method, path, query, **headers)))
        return fast, slow, was_fast

    def get(self, path: str, query: str = "", **headers: str) -> tuple[str, dict[str, str]]:
        """Ask as a client does; return status and headers."""
        _, status, response_headers_of = run_wsgi_app(self._fast, self.environ("GET", path, query, **headers))
        return status, dict(response_headers_of)

    def get_by_flask(self, path: str, **headers: str) -> tuple[str, dict[str, str]]:
        _, status, response_headers_of = run_wsgi_app(self._flask_app, self.environ("GET", path, **headers))
        return status, dict(response_headers_of)


SECONDS = ("Age", "Retry-After")
"""Headers that go on counting between two responses."""


def _reply(response: Any) -> Reply:
    chunks, status, headers = response
    body = b"".join(chunks)
    seconds = [int(headers[name]) for name in SECONDS if name in headers]
    if body.startswith(b'{"access_token"'):
        shown = json.loads(body)
        seconds.append(shown.pop("expires_in"))
        body = json.dumps(shown).encode()
    body = body.replace(headers["X-Request-ID"].encode(), b"")
    kept = [
        (name, value)
        for name, value in headers
        if name not in ("X-Request-ID", *SECONDS) and not (name == "Content-Length" and seconds)
    ]
    return Reply(status, sorted(kept), body, seconds)


def assert_same(fast: Reply, slow: Reply) -> None:
    assert fast[:3] == slow[:3]
    assert len(fast.seconds) == len(slow.seconds)
    for one, other in zip(fast.seconds, slow.seconds, strict=True):
        assert abs(one - other) <= 60  # a machine may be that slow


@pytest.fixture
def app(connected: Services) -> Flask:
    return create_app(connected)


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was seen once stays in memory, and is not asked for again."""
    monkeypatch.setattr(memory, "REMEMBER_S", LONG_S)
    monkeypatch.setattr(key_memory, "MAX_AGE_S", LONG_S)
    monkeypatch.setattr(leads, "FRESH_EVERY_S", LONG_S)


@pytest.fixture
def ways(
    app: Flask,
    connected: Services,
    sandbox: SandboxProcess,
    make_key: Callable[..., str],
    conn: Conn,
    remembered: None,
) -> Ways:
    """Accounts in several states, leads of which are cached and remembered where there can be any."""
    for account_id in ("default", "acme", "expired", "dying", "refused"):
        connect_account(connected, sandbox, account_id, due=False)
    found = Ways(app, f"Bearer {make_key('leads:read', 'tokens:read')}")
    for account_id in ("default", "acme", "expired", "dying", "refused"):
        assert found.get(LEADS, f"account_id={account_id}")[0] == "200 OK"
    for state, account_id in ((EXPIRED, "expired"), (DYING, "dying"), (REFUSED, "refused")):
        conn.execute(state, [account_id])
        connected.memory.forget(account_id)
    # Nobody renews the token that is about to end: it is to be the same for both ways.
    conn.execute(
        "UPDATE rdstation_tokens SET retry_at = rd_now() + interval '1 hour' WHERE account_id <> 'default'"
    )
    for account_id in ("default", "acme", "expired", "dying", "refused"):
        found.get(f"/rd/tokens/{account_id}/access-token")
    return found


FAST = [
    (LEADS, ""),
    (LEADS, "page=1"),
    (LEADS, "page=1&page_size=25"),
    (LEADS, "page_size=25&page=1&account_id=acme"),
    (LEADS, "unknown=x"),
    (LEADS, "min_ttl=x"),
    (TOKEN, ""),
    (TOKEN, "min_ttl=600"),
    (TOKEN, "page=0"),
    ("/rd/tokens/acme/access-token", ""),
]
BY_FLASK = [
    ("POST", LEADS, ""),
    ("HEAD", LEADS, ""),
    ("OPTIONS", LEADS, ""),
    ("FOO", LEADS, ""),
    ("HEAD", TOKEN, ""),
    ("DELETE", TOKEN, ""),
    ("GET", "/rd/leads/", ""),
    ("GET", "//rd/leads", ""),
    ("GET", "/RD/leads", ""),
    ("GET", "/rd/leads;x", ""),
    ("GET", "/rd/leads\n", ""),
    ("GET", "/rd/segmentations", ""),
    ("GET", "/rd/tokens//access-token", ""),
    ("GET", "/rd/tokens/../access-token", ""),
    ("GET", "/rd/tokens/a/b/access-token", ""),
    ("GET", "/rd/tokens/default /access-token", ""),
    ("GET", "/rd/tokens/\xc3\xa9/access-token", ""),
    ("GET", "/rd/tokens/\xff/access-token", ""),
    ("GET", f"/rd/tokens/{'x' * 201}/access-token", ""),
    ("GET", "/rd/tokens/nobody/access-token", ""),
    ("GET", "/rd/tokens/expired/access-token", ""),
    ("GET", "/rd/tokens/dying/access-token", ""),
    ("GET", TOKEN, "min_ttl=86000"),
    ("GET", TOKEN, "min_ttl=-1"),
    ("GET", TOKEN, "min_ttl="),
    ("GET", TOKEN, "min_ttl=1&min_ttl=2"),
    ("GET", LEADS, "account_id=nobody"),
    ("GET", LEADS, "account_id="),
    ("GET", LEADS, "account_id=a%2Fb"),
    ("GET", LEADS, "account_id=.."),
    ("GET", LEADS, "account_id=%FF"),
    ("GET", LEADS, "account_id=\xc3\xa9"),
    ("GET", LEADS, "account_id=\xff"),
    ("GET", LEADS, "account_id=acme&account_id=default"),
    ("GET", LEADS, "account_id=refused"),
    ("GET", TOKEN, "account_id=default"),
    ("GET", TOKEN, "account_id=acme"),
    ("GET", "/rd/tokens/-/access-token", "account_id=acme"),
    ("GET", "/rd/tokens/-/access-token", ""),
    ("GET", LEADS, "page=0"),
    ("GET", LEADS, "page=one"),
    ("GET", LEADS, "page_size=126"),
    ("GET", LEADS, "page=1&page=1"),
    ("GET", LEADS, "page=%31"),
    ("GET", LEADS, "&page=1"),
    ("GET", LEADS, "page=1&"),
    ("GET", LEADS, "page"),
    ("GET", LEADS, "order=x"),
    ("GET", LEADS, "segmentation=no-such-name"),
    ("GET", LEADS, "segmentation="),
    ("GET", LEADS, "page=1;page_size=2"),
]
HEADERS = [
    {},
    {"HTTP_ACCEPT": "text/html"},
    {"HTTP_ACCEPT": "application/json", "HTTP_ACCEPT_LANGUAGE": "en"},
    {"HTTP_ACCEPT_ENCODING": "gzip"},
    {"HTTP_RANGE": "bytes=0-9"},
    {"HTTP_ORIGIN": "https://evil.example", "HTTP_SEC_FETCH_SITE": "cross-site"},
    {"HTTP_X_REQUEST_ID": "0123456789abcdef"},
    {
        "HTTP_FORWARDED": "for=203.0.113.9",
        "HTTP_X_FORWARDED_FOR": "203.0.113.9",
        "HTTP_X_FORWARDED_PROTO": "https",
    },
    {"HTTP_X_FORWARDED_PREFIX": "/evil", "HTTP_X_FORWARDED_HOST": "evil.example"},
    {"HTTP_X_HTTP_METHOD_OVERRIDE": "DELETE"},
    {"HTTP_IF_MODIFIED_SINCE": "Wed, 01 Jan 2031 00:00:00 GMT"},
    {"HTTP_IF_NONE_MATCH": "*"},
    {"HTTP_IF_NONE_MATCH": '"other"'},
    {"HTTP_IF_NONE_MATCH": ""},
    {"HTTP_IF_NONE_MATCH": "no entity tag, \xe9"},
    {"HTTP_IF_MATCH": '"other"'},
    {"CONTENT_TYPE": "application/json"},
    {"HTTP_HOST": "evil.example"},
    {"HTTP_HOST": "127.0.0.1"},
    {"HTTP_HOST": "xn--a"},
]
HEADERS_FOR_FLASK = [
    {"HTTP_COOKIE": "rdservice_session_8000=x"},
    {"HTTP_CACHE_CONTROL": "no-cache"},
    {"HTTP_CACHE_CONTROL": "max-age=0"},
    {"HTTP_PRAGMA": "no-cache"},
    {"HTTP_TRANSFER_ENCODING": "chunked"},
    {"CONTENT_LENGTH": "3"},
    {"HTTP_CONNECTION": "Upgrade", "HTTP_UPGRADE": "websocket"},
    {"HTTP_HOST": "localhost:99999999"},
    {"HTTP_HOST": "a..b"},
    {"HTTP_HOST": "."},
    {"HTTP_HOST": "x" * 3000},
    {"HTTP_HOST": ""},
    {"HTTP_HOST": "evil.example/a"},
    {"HTTP_AUTHORIZATION": ""},
    {"HTTP_AUTHORIZATION": "Bearer"},
    {"HTTP_AUTHORIZATION": "Bearer rdk_abcdefgh_" + "x" * 43},
    {"HTTP_AUTHORIZATION": "Basic YTpi"},
    {"HTTP_AUTHORIZATION": "Bearer \xff"},
    {"SCRIPT_NAME": "/prefix"},
]


@pytest.mark.parametrize(("path", "query"), FAST)
def test_an_answer_from_memory_is_the_one_that_flask_gives(ways: Ways, path: str, query: str) -> None:
    for headers in HEADERS:
        fast, slow, was_fast = ways.both("GET", path, query, **headers)
        assert was_fast, headers
        assert_same(fast, slow)
        assert fast.status in ("200 OK", "304 NOT MODIFIED")


def test_all_else_is_left_to_flask(ways: Ways) -> None:
    for method, path, query in BY_FLASK:
        fast, slow, was_fast = ways.both(method, path, query)
        assert not was_fast, (method, path, query)
        assert_same(fast, slow)
    for headers in HEADERS_FOR_FLASK:
        for path in (LEADS, TOKEN):
            fast, slow, was_fast = ways.both("GET", path, **headers)
            assert not was_fast, headers
            assert_same(fast, slow)


def test_who_has_the_leads_is_told_so_in_the_same_words(ways: Ways) -> None:
    etag = ways.get(LEADS)[1]["ETag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}'):
        fast, slow, was_fast = ways.both("GET", LEADS, HTTP_IF_NONE_MATCH=known)
        assert was_fast
        assert fast.status == "304 NOT MODIFIED"
        assert fast.body == b""
        assert_same(fast, slow)


WORDS = st.sampled_from(
    [
        "default",
        "acme",
        "expired",
        "dying",
        "refused",
        "nobody",
        "1",
        "25",
        "125",
        "0",
        "x",
        "created_at:asc",
        "é",
    ]
)
NAMES = st.sampled_from(["account_id", "page", "page_size", "order", "segmentation", "min_ttl", "x", ""])
TEXT = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\x00"), max_size=12)


@given(
    method=st.sampled_from(["GET", "GET", "GET", "HEAD", "POST"]),
    path=st.sampled_from([LEADS, TOKEN, "/rd/tokens/{}/access-token", "/rd/{}"]),
    name=WORDS | TEXT,
    pairs=st.lists(
        st.tuples(NAMES | TEXT, st.sampled_from(["=", "=", "=", "", "%3D"]), WORDS | TEXT), max_size=3
    ),
    headers=st.lists(st.sampled_from(HEADERS + HEADERS_FOR_FLASK), max_size=3),
)
def test_no_request_is_answered_otherwise_than_by_flask(
    ways: Ways,
    method: str,
    path: str,
    name: str,
    pairs: list[tuple[str, str, str]],
    headers: list[dict[str, str]],
) -> None:
    named = {key: value for each in headers for key, value in each.items()}
    query = "&".join("".join(pair) for pair in pairs)
    # As on the wire: WSGI hands bytes over as Latin-1.
    path = path.format(name)
    fast, slow, _ = ways.both(method, path, query, **named)
    assert_same(fast, slow)


def test_a_key_without_the_scope_is_refused(ways: Ways, make_key: Callable[..., str]) -> None:
    for scope, path in (("tokens:read", LEADS), ("leads:read", TOKEN)):
        headers = {"HTTP_AUTHORIZATION": f"Bearer {make_key(scope)}"}
        ways.get(path, **headers)  # now the key is remembered
        fast, slow, was_fast = ways.both("GET", path, **headers)
        assert not was_fast
        assert_same(fast, slow)
        assert fast.status == "403 FORBIDDEN"


def test_a_revoked_key_is_refused_as_soon_as_its_memory_ends(
    ways: Ways, conn: Conn, make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key("leads:read")
    headers = {"HTTP_AUTHORIZATION": f"Bearer {key}"}
    ways.get(LEADS, **headers)
    assert ways.both("GET", LEADS, **headers)[2]
    keys.revoke(conn, key.split("_")[1])
    monkeypatch.setattr(key_memory, "MAX_AGE_S", 0.0)
    assert ways.get(LEADS, **headers)[0] == "401 UNAUTHORIZED"
    monkeypatch.setattr(key_memory, "MAX_AGE_S", LONG_S)
    assert ways.get(LEADS, **headers)[0] == "401 UNAUTHORIZED"


def test_an_account_that_is_gone_is_gone_as_soon_as_the_memory_of_its_row_ends(
    ways: Ways, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn.execute("DELETE FROM rdstation_tokens WHERE account_id = 'default'")
    monkeypatch.setattr(memory, "REMEMBER_S", 0.0)
    for path in (LEADS, TOKEN):
        assert ways.get(path)[0] == "409 CONFLICT"


def test_leads_that_are_no_longer_fresh_are_renewed_by_flask(
    ways: Ways, connected: Services, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connected.cache, "_max_age_s", 0.0)
    before = ways.by_flask
    ways.get(LEADS)
    assert ways.by_flask == before + 1


def test_both_ways_count_the_same(ways: Ways, connected: Services) -> None:
    def counted(ask: Callable[[], object]) -> dict[Series, float]:
        before = connected.metrics.current()
        ask()
        return {
            series: now - before.get(series, 0.0)
            for series, now in connected.metrics.current().items()
            if now != before.get(series, 0.0) and not series[0].endswith("_sum")
        }

    etag = ways.get(LEADS)[1]["ETag"]
    for path, headers in ((LEADS, {}), (LEADS, {"HTTP_IF_NONE_MATCH": etag}), (TOKEN, {})):
        ways.get(path, **headers)  # so that all series are there

        fast, slow = (
            counted(partial(ways.get, path, **headers)),
            counted(partial(ways.get_by_flask, path, **headers)),
        )
        without_buckets = {series for series in fast | slow if not series[0].endswith("_bucket")}
        assert {series: fast.get(series) for series in without_buckets} == {
            series: slow.get(series) for series in without_buckets
        }
        assert (
            "flask_http_request_total",
            (("method", "GET"), ("status", "304" if headers else "200")),
        ) in fast


def test_both_ways_log_the_same(ways: Ways, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rdservice.access")
    for path in (LEADS, TOKEN):
        caplog.clear()
        ids = [ways.get(path)[1]["X-Request-ID"], ways.get_by_flask(path)[1]["X-Request-ID"]]
        fast, slow = [vars(record) for record in caplog.records if record.name == "rdservice.access"]
        assert [fast["request_id"], slow["request_id"]] == ids
        for record in (fast, slow):
            assert isinstance(record["fields"].pop("duration_ms"), float)
        assert fast["fields"] == slow["fields"]


@pytest.mark.parametrize("trusted", ["0", "1"])
def test_only_a_trusted_proxy_names_the_request(
    make_services: MakeServices,
    variables: dict[str, str],
    sandbox: SandboxProcess,
    make_key: Callable[..., str],
    remembered: None,
    trusted: str,
) -> None:
    services = make_services(
        Settings.from_mapping(
            variables
            | {
                "TRUSTED_PROXIES": trusted,
                "RDSTATION_API_URL": sandbox.url,
                "RDSTATION_REDIRECT_URI": "https://rd.example/rd/callback",
            }
        )
    )
    connect_account(services, sandbox, due=False)
    ways = Ways(create_app(services), f"Bearer {make_key('tokens:read')}")
    given = {"HTTP_X_REQUEST_ID": "the-proxys-own-id", "HTTP_X_FORWARDED_PROTO": "https"}
    ways.get(TOKEN)
    fast, slow, was_fast = ways.both("GET", TOKEN, **given)
    assert was_fast
    assert_same(fast, slow)
    _, headers = ways.get(TOKEN, **given)
    assert (headers["X-Request-ID"] == "the-proxys-own-id") == (trusted == "1")
    assert "Strict-Transport-Security" in headers
    assert len(ways.get(TOKEN, HTTP_X_REQUEST_ID="a b")[1]["X-Request-ID"]) == 32
