"""What the service notes after a call to RD Station never takes the call's response from the caller."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import requests

from rdservice.services import Services
from tests.support.accounts import connect_account
from tests.support.database_proxy import DatabaseProxy
from tests.support.odd_server import Behaviour, OddServer, odd_server, read_request
from tests.support.processes import Processes, Web

pytestmark = pytest.mark.slow

PATH = "/rd/api/platform/contacts"
UUID = "5408c5a3-4711-4f2e-8d0b-13407a3e30f3"
EFFECT = b'{"uuid": "%s"}' % UUID.encode()
LONG_ENOUGH_TO_NOTE_S = 1.2
SOON_S = 6.0

Break = Callable[[DatabaseProxy], object]


def responds(status: bytes, when_it_arrives: Callable[[], object], after_s: float) -> Behaviour:
    """Take one request, let `when_it_arrives` happen, and respond `after_s` seconds later."""

    def behave(connection: socket.socket, server: OddServer, number: int) -> None:
        read_request(connection, server, number)
        when_it_arrives()
        threading.Event().wait(after_s)
        head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(EFFECT))
        connection.sendall(head + EFFECT)

    return behave


def refuse(proxy: DatabaseProxy) -> None:
    """From now on every statement fails, and all connections that are open are cut."""
    proxy.cut("BEGIN", times=10_000)
    proxy.cut_all()


def fall_silent(proxy: DatabaseProxy) -> None:
    """From now on no statement gets a response."""
    proxy.hold("BEGIN", times=10_000)


BROKEN = pytest.mark.parametrize("database", [refuse, fall_silent])


@BROKEN
@pytest.mark.parametrize("status", [b"201 Created", b"204 No Content", b"422 Unprocessable Content"])
def test_a_passed_through_post_that_took_effect_gets_its_response_while_the_database_fails(
    processes: Processes,
    connected: Services,
    authorized: dict[str, str],
    database_url: str,
    status: bytes,
    database: Break,
) -> None:
    response, took_s = post(processes, connected, authorized, database_url, status, database)
    assert response.status_code == int(status[:3]), response.text
    assert response.headers["X-Answer-From"] == "rdstation"
    assert took_s < LONG_ENOUGH_TO_NOTE_S + SOON_S


@BROKEN
def test_a_429_of_rd_station_arrives_although_its_pause_cannot_be_noted(
    processes: Processes,
    connected: Services,
    authorized: dict[str, str],
    database_url: str,
    database: Break,
) -> None:
    response, took_s = post(
        processes, connected, authorized, database_url, b"429 Too Many Requests", database, after_s=0.0
    )
    assert (response.status_code, response.headers["X-Answer-From"]) == (429, "rdstation")
    assert took_s < SOON_S


@BROKEN
@pytest.mark.parametrize(
    ("path", "status"), [("/rd/leads/" + UUID, b"200 OK"), ("/rd/leads/" + UUID, b"404 Not Found")]
)
def test_a_lead_is_served_although_the_table_does_not_take_it(
    processes: Processes,
    connected: Services,
    authorized: dict[str, str],
    database_url: str,
    path: str,
    status: bytes,
    database: Break,
) -> None:
    with trouble(processes, connected, database_url, status, database) as (web, upstream):
        began = time.monotonic()
        response = requests.get(web.url + path, headers=authorized, timeout=60)
        assert response.status_code == int(status[:3]), response.text
        if response.ok:
            assert (response.content, response.headers["X-Cache"]) == (EFFECT, "miss")
        assert time.monotonic() - began < LONG_ENOUGH_TO_NOTE_S + SOON_S
        assert len(upstream.received) == 1


def test_a_put_that_is_not_repeated_for_want_of_the_database_gets_its_first_response(
    processes: Processes, connected: Services, authorized: dict[str, str], database_url: str
) -> None:
    unavailable = b"503 Service Unavailable"
    with trouble(processes, connected, database_url, unavailable, refuse) as (web, upstream):
        response = requests.put(web.url + PATH, headers=authorized, data=EFFECT, timeout=60)
        assert (response.status_code, response.headers.get("X-Answer-From")) == (503, "rdstation")
        assert response.content == EFFECT
        assert len(upstream.received) == 1


def test_a_database_that_fails_after_a_refused_token_has_let_nothing_take_effect(
    processes: Processes, connected: Services, authorized: dict[str, str], database_url: str
) -> None:
    with trouble(processes, connected, database_url, b"401 Unauthorized", refuse) as (web, _):
        response = requests.post(web.url + PATH, headers=authorized, data=EFFECT, timeout=60)
        told = response.json()
        assert (response.status_code, told["code"]) == (503, "database_unavailable")
        assert told["reached_rd_station"] == "no"


@contextlib.contextmanager
def trouble(
    processes: Processes,
    connected: Services,
    database_url: str,
    status: bytes,
    database: Break,
    after_s: float = LONG_ENOUGH_TO_NOTE_S,
) -> Iterator[tuple[Web, OddServer]]:
    """A web process whose database fails as soon as a call has arrived at RD Station."""
    connect_account(connected, due=False)
    with (
        DatabaseProxy(database_url) as proxy,
        odd_server(responds(status, lambda: database(proxy), after_s)) as upstream,
    ):
        yield (
            processes.web(RDSTATION_API_URL=upstream.url, DATABASE_URL=proxy.url, WEB_CONCURRENCY="1"),
            upstream,
        )


def post(
    processes: Processes,
    connected: Services,
    headers: dict[str, str],
    database_url: str,
    status: bytes,
    database: Break,
    *,
    after_s: float = LONG_ENOUGH_TO_NOTE_S,
) -> tuple[requests.Response, float]:
    """Send a POST whose response comes from a database in trouble; return it and how many seconds it took."""
    with trouble(processes, connected, database_url, status, database, after_s) as (web, upstream):
        began = time.monotonic()
        response = requests.post(web.url + PATH, headers=headers, data=EFFECT, timeout=60)
        took_s = time.monotonic() - began
        assert len(upstream.received) == 1
        web.wait_until_it_says("was not recorded")
        assert web.log.count("was not recorded") == 1
        assert headers["Authorization"].removeprefix("Bearer ") not in web.log
        assert "access-of-default" not in web.log
    return response, took_s
