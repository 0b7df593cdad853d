"""Long responses of the real web processes end within a second after the right of their caller has ended."""

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import requests

from rdservice.access import keys, operators, passwords
from rdservice.services import Services
from tests.support.accounts import connect_account
from tests.support.database_proxy import DatabaseProxy
from tests.support.odd_server import OddServer, odd_server, say_nothing
from tests.support.processes import Processes, Web
from tests.support.raw_http import connect
from tests.support.sandbox_process import SandboxProcess
from tests.support.upstream import Download
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

EXPORT = "/rd/leads/export"
RELAYED = "/rd/api/platform/files"
SECOND = 1.0
SLOW_MACHINE_S = 0.5
EMAIL, PASSWORD = "ana@example.com", "correct horse battery"

Connection = psycopg.Connection[Any]
Headers = dict[str, str]


@pytest.fixture
def web(processes: Processes, sandbox: SandboxProcess, connected: Services) -> Web:
    """Two web processes that may read a page of an export every half second."""
    sandbox.patch(leads=200_000)
    connect_account(connected, sandbox, due=False)
    return processes.web()


@contextlib.contextmanager
def ask(web: Web, path: str, headers: Headers) -> Iterator[requests.Response]:
    with requests.get(web.url + path, headers=headers, stream=True, timeout=30) as response:
        assert response.status_code == 200, response.text
        yield response


def cut_after(response: requests.Response, change: Callable[[], object]) -> None:
    """Make the change while the response goes on; fail unless that cuts it off within a second."""
    pieces = response.iter_content(1_000)
    next(pieces)
    change()
    changed_at = time.monotonic()
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        read_for(pieces, 20.0)
    assert time.monotonic() - changed_at < SECOND + SLOW_MACHINE_S


def read_for(pieces: Iterator[bytes], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for _ in pieces:
        assert time.monotonic() < deadline, "the response goes on"


def revoke(conn: Connection, headers: Headers) -> None:
    assert keys.revoke(conn, keys.key_id(headers["Authorization"]))


def delete_key(conn: Connection, headers: Headers) -> None:
    conn.execute("DELETE FROM rdservice_api_keys WHERE key_id = %s", [keys.key_id(headers["Authorization"])])


@pytest.mark.parametrize("end", [revoke, delete_key])
def test_an_export_ends_within_a_second_of_its_key(
    web: Web, authorized: Headers, conn: Connection, end: Callable[[Connection, Headers], None]
) -> None:
    with ask(web, EXPORT, authorized) as response:
        cut_after(response, lambda: end(conn, authorized))
    assert requests.get(web.url + EXPORT, headers=authorized, timeout=30).status_code == 401
    wait_until(lambda: "a response was cut off: its key was revoked" in web.log, "the log says why")
    assert "Traceback" not in web.log


def log_in(web: Web) -> requests.Session:
    browser = requests.Session()
    page = browser.get(f"{web.url}/login", timeout=20).text
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found
    form = {"csrf_token": found[1], "email": EMAIL, "password": PASSWORD}
    assert browser.post(f"{web.url}/login", data=form, allow_redirects=False, timeout=20).status_code == 303
    return browser


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM rdservice_operators",
        "DELETE FROM rdservice_sessions",
        "UPDATE rdservice_sessions SET last_seen_at = now() - interval '13 hours'",
    ],
    ids=["operator removed", "logged out", "session expired"],
)
def test_an_export_ends_within_a_second_of_its_operator_s_session(
    web: Web, conn: Connection, statement: str
) -> None:
    operators.create(conn, EMAIL, passwords.hash_password(PASSWORD))
    with log_in(web).get(web.url + EXPORT, stream=True, timeout=30) as response:
        assert response.status_code == 200
        cut_after(response, lambda: conn.execute(statement.encode()))


def test_an_export_whose_client_does_not_read_is_cut_too(
    web: Web, authorized: Headers, conn: Connection
) -> None:
    with ask(web, EXPORT, authorized):
        revoke(conn, authorized)
        wait_until(lambda: "a response was cut off" in web.log, "it is cut", seconds=SECOND + SLOW_MACHINE_S)


def test_an_export_is_cut_although_rd_station_keeps_it_waiting(
    web: Web, authorized: Headers, conn: Connection, sandbox: SandboxProcess
) -> None:
    with ask(web, EXPORT, authorized) as response:
        sandbox.patch(latency_ms=10_000)
        cut_after(response, lambda: revoke(conn, authorized))


def test_the_end_of_one_key_leaves_the_responses_of_others_alone(
    web: Web, authorized: Headers, conn: Connection, sandbox: SandboxProcess
) -> None:
    sandbox.patch(leads=1_000)
    other = keys.create(conn, "another program", ["leads:read"], created_by="test")
    with ask(web, EXPORT, {"Authorization": f"Bearer {other}"}) as kept:
        revoke(conn, authorized)
        assert len(list(kept.iter_lines())) == 1_000


def test_a_database_that_does_not_respond_ends_no_right(
    processes: Processes, authorized: Headers, connected: Services, database_url: str
) -> None:
    connect_account(connected, due=False)
    sent = Download(2, held_up=True)
    with DatabaseProxy(database_url) as proxy, odd_server(sent) as upstream:
        web = processes.web(RDSTATION_API_URL=upstream.url, DATABASE_URL=proxy.url, WEB_CONCURRENCY="1")
        with ask(web, RELAYED, authorized) as response:
            proxy.cut("FROM rdservice_api_keys", times=1000)
            web.wait_until_it_says("the rights to responses under way cannot be checked")
            sent.go_on.set()
            assert len(response.content) == 2 * 65_536


def before(processes: Processes, connected: Services, upstream: OddServer) -> Web:
    connect_account(connected, due=False)
    return processes.web(RDSTATION_API_URL=upstream.url)


def test_a_passed_through_body_ends_within_a_second_of_its_key(
    processes: Processes, connected: Services, authorized: Headers, conn: Connection
) -> None:
    with odd_server(Download(2, held_up=True)) as upstream:
        with ask(before(processes, connected, upstream), RELAYED, authorized) as response:
            cut_after(response, lambda: revoke(conn, authorized))
        wait_until(lambda: upstream.ended == ["peer"], "RD Station's connection ends too")


def test_a_body_on_its_way_to_rd_station_ends_within_a_second_of_its_key(
    processes: Processes, connected: Services, authorized: Headers, conn: Connection
) -> None:
    with odd_server(say_nothing) as upstream:
        web = before(processes, connected, upstream)
        with connect(web.port) as client:
            client.sendall(
                f"POST {RELAYED} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorized['Authorization']}\r\n"
                "Content-Length: 1000000\r\n\r\n".encode()
                + bytes(600_000)
            )
            wait_until(lambda: upstream.received, "the upload is on its way")
            revoke(conn, authorized)
            assert closed_within(client, SECOND + SLOW_MACHINE_S)


def closed_within(client: socket.socket, seconds: float) -> bool:
    client.settimeout(seconds)
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def test_a_connection_serves_on_when_the_key_of_a_finished_export_ends(
    web: Web, authorized: Headers, sandbox: SandboxProcess, conn: Connection
) -> None:
    sandbox.patch(leads=10)
    with requests.Session() as session:
        session.get(web.url + EXPORT, headers=authorized, timeout=30).raise_for_status()
        revoke(conn, authorized)
        threading.Event().wait(SECOND)
        assert session.get(web.url + "/healthz", timeout=20).status_code == 200
