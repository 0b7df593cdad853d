"""What of RD Station's response a program gets through `/rd/api/<path>`."""

import gzip
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from werkzeug.test import TestResponse

from rdservice.config.settings import Settings
from rdservice.events.subscriptions import manage, store
from rdservice.events.subscriptions.masking import SECRET_LENGTH
from rdservice.events.subscriptions.remote import PATH, Remote
from rdservice.services import Services
from rdservice.web import create_app
from tests.support.accounts import BY, connect_account
from tests.support.browser import Browser
from tests.support.odd_server import OddServer, odd_server, respond_with
from tests.support.sandbox_process import SandboxProcess

Respond = Callable[[bytes], Callable[..., TestResponse]]


@pytest.fixture
def respond(
    make_services: Callable[[Settings], Services], variables: dict[str, str], make_key: Callable[..., str]
) -> Iterator[Respond]:
    """Starts an RD Station that sends these bytes to every request; returns what asks it as a program does."""
    authorization = {"Authorization": f"Bearer {make_key('api:call')}"}
    with ExitStack() as servers:

        def respond(response: bytes) -> Callable[..., TestResponse]:
            server: OddServer = servers.enter_context(odd_server(respond_with(response)))
            services = make_services(Settings.from_mapping(variables | {"RDSTATION_API_URL": server.url}))
            connect_account(services, due=False)
            browser = Browser(create_app(services), accept="*/*")

            def ask(method: str = "GET", path: str = "/platform/contacts/fields") -> TestResponse:
                return browser.open(method, f"/rd/api{path}", authorization)

            return ask

        yield respond


def test_a_header_that_moves_the_proxy_in_front_does_not_come_back(respond: Respond) -> None:
    ask = respond(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\npagination-total-rows: 7\r\n"
        b"X-Accel-Redirect: /internal/keys\r\nx-sendfile: /etc/passwd\r\nSurrogate-Control: max-age=9\r\n"
        b"CDN-Cache-Control: public\r\nX-Reproxy-URL: http://127.0.0.1/\r\nContent-Length: 2\r\n\r\n{}"
    )
    response = ask()
    assert (response.status_code, response.data) == (200, b"{}")
    assert response.headers["pagination-total-rows"] == "7"
    passed = {name.lower() for name in response.headers.keys()}  # noqa: SIM118 - pairs are iterated else
    assert not passed & {
        "x-accel-redirect",
        "x-sendfile",
        "surrogate-control",
        "cdn-cache-control",
        "x-reproxy-url",
    }


SECRET = "Zq3-_" * 8 + "abc"
"""As long as the secret in the address of a webhook."""
LISTED = (
    '{"webhooks":[{"uuid":"5408c5a3-4711-4f2e-8d0b-13407a3e30f3","event_type":"WEBHOOK.CONVERTED",'
    '"url":"https://app.example.com/rd/webhooks/SECRET"}]}'
)


def http_response(*pieces: bytes, head: bytes = b"") -> bytes:
    """Return a chunked response, each piece a chunk."""
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + head + b"\r\n" + chunks + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("written", "path"),
    [
        (LISTED, "/integrations/webhooks"),
        (LISTED.replace("/", "\\/"), "/integrations/webhooks"),
        (LISTED.replace("/", "\\u002f"), "/integrations/webhooks/5408c5a3-4711-4f2e-8d0b-13407a3e30f3"),
        ("<p>no route /rd/webhooks/SECRET, nor /rd/webhooks/SECRET?x", "/anything"),
        ("https%3A%2F%2Fapp.example.com%2Frd%2Fwebhooks%2FSECRET", "/platform/contacts/fields"),
        ("/rd/webhooks/SECRET", "/x"),
    ],
)
def test_the_secret_of_a_webhooks_address_is_masked_and_nothing_else_changes(
    respond: Respond, written: str, path: str
) -> None:
    body = written.replace("SECRET", SECRET).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    response = respond(head + body)(path=path)
    assert response.text == written.replace("SECRET", "*" * len(SECRET))
    assert response.headers["Content-Length"] == str(len(body))


def test_a_secret_that_arrives_in_parts_is_masked_too(respond: Respond) -> None:
    body = LISTED.replace("SECRET", SECRET).encode()
    masked = LISTED.replace("SECRET", "*" * len(SECRET))
    for pieces in (
        [body[place : place + 1] for place in range(len(body))],
        [body[:-40], body[-40:]],
        [body[:-60], body[-60:-8], body[-8:]],
    ):
        assert respond(http_response(*pieces))().text == masked


def test_the_secret_of_a_real_subscription_is_masked_in_the_list_of_webhooks(
    connected: Services, sandbox: SandboxProcess, make_key: Callable[..., str]
) -> None:
    connect_account(connected, sandbox, due=False)
    manage.subscribe(connected, "default", by=BY)
    response = Browser(create_app(connected), accept="*/*").open(
        "GET", "/rd/api/integrations/webhooks", {"Authorization": f"Bearer {make_key('api:call')}"}
    )
    addresses = {hook["url"] for hook in (response.json or {})["webhooks"]}
    assert addresses == {f"{connected.settings.public_origin}{PATH}{'*' * SECRET_LENGTH}"}
    (kept,) = {hook.secret for hook in Remote.of(connected, "default").list()}
    assert store.SECRET_FORM.fullmatch(kept)
    assert kept not in response.text


def test_other_addresses_of_the_same_length_stay(respond: Respond) -> None:
    body = f'{{"url":"https://example.com/hooks/{SECRET}","other":"/rd/webhooks/short"}}'.encode()
    assert respond(http_response(body))().data == body


def test_nothing_that_could_hide_the_secret_is_asked_for_or_passed_on(
    make_services: Callable[[Settings], Services], variables: dict[str, str], make_key: Callable[..., str]
) -> None:
    hidden = gzip.compress(LISTED.replace("SECRET", SECRET).encode())
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    with odd_server(respond_with(head + hidden)) as server:
        services = make_services(Settings.from_mapping(variables | {"RDSTATION_API_URL": server.url}))
        connect_account(services, due=False)
        response = Browser(create_app(services), accept="*/*").open(
            "GET",
            "/rd/api/integrations/webhooks",
            {
                "Authorization": f"Bearer {make_key('api:call')}",
                "Accept-Encoding": "gzip, br",
                "Range": "bytes=150-",
                "If-Range": '"x"',
            },
        )
    assert (response.status_code, (response.json or {})["reached_rd_station"]) == (502, "yes")
    sent = server.received[0].lower()
    assert b"accept-encoding: identity\r\n" in sent
    assert b"range" not in sent
