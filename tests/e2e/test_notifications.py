"""Notifications by real workers: once, whoever is killed, and never at the cost of a renewal."""

import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from rdservice.services import Services
from tests.support.accounts import connect_account, row
from tests.support.odd_server import OddServer, odd_server, read_request, respond_with
from tests.support.processes import Processes
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

Conn = psycopg.Connection[Any]
PLANTED = "planted-password-of-a-receiver"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.fixture
def receiver() -> Iterator[OddServer]:
    with odd_server(respond_with(OK)) as server:
        yield server


def url_of(server: OddServer) -> str:
    return f"json://user:{PLANTED}@127.0.0.1:{server.port}/{PLANTED}?rto=60&%2BX-Key={PLANTED}"


def refused_account(services: Services, conn: Conn, account_id: str = "shop") -> None:
    """An account that needs a person, since so long that nobody waits for others."""
    connect_account(services, account_id=account_id, due=False)
    conn.execute(
        "UPDATE rdstation_tokens SET status = 'reauthorization_required' WHERE account_id = %s", [account_id]
    )
    conn.execute(
        "INSERT INTO rdservice_incidents (kind, account_id, opened_at)"
        " VALUES ('reauthorization_required', %s, rd_now() - interval '1 minute')",
        [account_id],
    )


def outcomes(conn: Conn) -> list[tuple[str | None, int]]:
    return conn.execute(
        "SELECT outcome, attempts FROM rdservice_deliveries ORDER BY notification_id"
    ).fetchall()


def test_two_workers_tell_once_and_restarted_ones_nothing(
    processes: Processes, connected: Services, conn: Conn, receiver: OddServer
) -> None:
    refused_account(connected, conn)
    workers = [processes.worker(NOTIFY_URLS=url_of(receiver)) for _ in range(2)]
    wait_until(lambda: outcomes(conn) == [("sent", 1)], "the message is sent")
    for worker in workers:
        worker.kill()
    again = processes.worker(NOTIFY_URLS=url_of(receiver))
    # A test comes after whatever else is due.
    processes.flask("notifications", "test", NOTIFY_URLS=url_of(receiver))
    again.wait_until_it_says("started")
    refused_account(connected, conn, "other")
    conn.execute("UPDATE rdservice_notifications SET created_at = rd_now() - interval '1 hour'")
    wait_until(lambda: outcomes(conn) == [("sent", 1)] * 3, "another account is told")
    told = [data.partition(b"\r\n\r\n")[2] for data in receiver.received]
    assert len(told) == 3
    assert [b"/accounts/shop" in body for body in told] == [True, False, False]
    for process in (*workers, again):
        assert PLANTED not in process.log


def test_a_worker_killed_while_it_sends_loses_nothing(
    processes: Processes, connected: Services, conn: Conn
) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def hang_first(connection: socket.socket, server: OddServer, number: int) -> None:
        read_request(connection, server, number)
        if number == 0:
            arrived.set()
            go_on.wait(60)
        connection.sendall(OK)

    refused_account(connected, conn)
    with odd_server(hang_first) as receiver:
        first = processes.worker(NOTIFY_URLS=url_of(receiver))
        assert arrived.wait(60)
        first.send(signal.SIGKILL)
        first.ended()
        go_on.set()
        assert outcomes(conn) == [(None, 1)]
        second = processes.worker(NOTIFY_URLS=url_of(receiver))
        second.wait_until_it_says("started")
        conn.execute("UPDATE rdservice_deliveries SET next_attempt_at = rd_now()")
        wait_until(lambda: outcomes(conn) == [("sent", 2)], "the message is sent after the lease", seconds=60)
        assert len(receiver.received) == 2, "at least once: the receiver may see it twice"


def test_a_receiver_that_hangs_delays_no_renewal_and_no_end(
    processes: Processes, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def hang(connection: socket.socket, server: OddServer, number: int) -> None:
        read_request(connection, server, number)
        arrived.set()
        go_on.wait(60)

    refused_account(connected, conn)
    with odd_server(hang) as receiver:
        worker = processes.worker(NOTIFY_URLS=url_of(receiver))
        assert arrived.wait(60)
        connect_account(connected, sandbox)
        wait_until(lambda: row(conn)["stored_claim"] > 0, "the account is renewed meanwhile")
        assert not go_on.is_set()
        worker.send(signal.SIGTERM)
        assert worker.ended(25) == 0
        go_on.set()
    assert PLANTED not in worker.log
