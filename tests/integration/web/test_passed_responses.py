"""What of RD Station's response a program gets through `/rd/api/<path>`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from werkzeug.test import TestResponse

from rdservice.config.settings import Settings
from rdservice.services import Services
from rdservice.web import create_app
from tests.support.accounts import connect_account
from tests.support.browser import Browser
from tests.support.odd_server import OddServer, odd_server, respond_with

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
