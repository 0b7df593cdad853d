"""RD Station answers badly, endlessly or not at all to the real processes: nothing is lost, nothing spins or swells."""

import gzip
import shlex
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from dev.benchmarks.processes import cpu_seconds
from rdservice.services import Services
from rdservice.worker.run import END_AT_LATEST_S
from tests.conftest import Clock
from tests.support.accounts import assert_sandbox_accepts, attempts_of, connect_account, row, stored_pair
from tests.support.odd_server import (
    Behaviour,
    OddServer,
    drip,
    odd_server,
    read_request,
    relay,
    respond_with,
    say_nothing,
)
from tests.support.processes import Processes
from tests.support.sandbox_process import SandboxProcess
from tests.support.told import SERVED, Told, ask
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

Conn = psycopg.Connection[Any]
GIGABYTE = 1 << 30
SWOLLEN_BYTES = 64 << 20
"""More than a process may need for an answer that it must not read."""
A_WHILE_S = 4.0
BACK_OFF_ENDS_S = 601.0

LEADS = "/rd/leads"
UPLOAD = "/rd/tokens"
UNREACHABLE = Told(503, "rdstation_unavailable", 2)
UNUSABLE = Told(502, "rdstation_failed", 2)


@dataclass(frozen=True, kw_only=True)
class Case:
    """How RD Station behaves, the error that the attempt records, and what a caller of leads is told."""

    behave: Behaviour
    error: str
    leads: Told


def without_end(start: bytes, piece: bytes = b" " * 65_536) -> Behaviour:
    """Answer a request with `start` and then a gigabyte of `piece`, as fast as it is taken."""

    def behave(connection: socket.socket, server: OddServer, number: int) -> None:
        read_request(connection, server, number)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + start)
        for _ in range(GIGABYTE // len(piece)):
            connection.sendall(piece)

    return behave


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def bomb() -> Behaviour:
    """Answer with a gigabyte of spaces that gzip makes small, twice over."""
    once = gzip.compress(b" " * (GIGABYTE // 4))
    twice = gzip.compress(once * 4)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\nContent-Length: %d\r\n\r\n" % len(twice)
    return cut_off(head + twice)


def cut_off(said: bytes) -> Behaviour:
    """Take a request, say `said`, and close the connection."""

    def behave(connection: socket.socket, server: OddServer, number: int) -> None:
        read_request(connection, server, number)
        connection.sendall(said)

    return behave


BAD = {
    "a gigabyte of the declared length": Case(
        behave=without_end(b"Content-Length: %d\r\n\r\n" % GIGABYTE), error="bad_payload", leads=UNUSABLE
    ),
    "a gigabyte in chunks": Case(
        behave=without_end(b"Transfer-Encoding: chunked\r\n\r\n", chunk(b" " * 65_536)),
        error="bad_payload",
        leads=UNUSABLE,
    ),
    "a gzip bomb": Case(behave=bomb(), error="bad_payload", leads=UNUSABLE),
    "headers without end": Case(
        behave=without_end(b"", b"X-Header: value\r\n" * 1_000), error="connection", leads=UNREACHABLE
    ),
    "no HTTP": Case(behave=cut_off(b"\x16\x03\x01 garbage\n" * 9), error="connection", leads=UNREACHABLE),
    "cut before the answer": Case(behave=cut_off(b""), error="connection", leads=UNREACHABLE),
    "cut within the answer": Case(
        behave=cut_off(b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"access_token": "half-a'),
        error="connection",
        leads=UNREACHABLE,
    ),
}
QUICK = {"a gigabyte in chunks", "a gzip bomb", "cut within the answer"}
ENDLESS = {
    "no answer": say_nothing,
    "a header that drips": drip(b"HTTP/1.1 200 OK\r\nX-Header: "),
    "a body that drips": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"),
}


@pytest.fixture
def rdstation(sandbox: SandboxProcess) -> Iterator["Switch"]:
    """What the processes take for RD Station: the sandbox, until it is told to behave otherwise."""
    switch = Switch(relay(urlsplit(sandbox.url).port or 0))
    with odd_server(switch.behave) as server:
        switch.server = server
        yield switch


@pytest.fixture
def processes(rdstation: "Switch", processes: Processes) -> Processes:
    """They end before the server does, which waits for the connections that they keep."""
    processes.variables["RDSTATION_API_URL"] = rdstation.server.url
    return processes


class Switch:
    """A server whose behaviour can be changed for the connections to come."""

    server: OddServer

    def __init__(self, good: Behaviour) -> None:
        self._good = self._now = good

    def behave(self, connection: socket.socket, server: OddServer, number: int) -> None:
        self._now(connection, server, number)

    @contextmanager
    def behaving(self, behaviour: Behaviour) -> Iterator[None]:
        self._now = behaviour
        try:
            yield
        finally:
            self._now = self._good


@pytest.mark.fault(
    "rdstation-answers-badly",
    "RD Station answers with a gigabyte, a bomb, no HTTP, or half an answer",
    "the pair stays and live tokens are served; callers of leads get 502 or 503 with Retry-After; memory, processor"
    " time and calls stay small; renewed by itself",
)
@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.long) for kind in BAD]
)
def test_a_bad_answer_costs_nothing_and_the_worker_recovers(
    processes: Processes,
    rdstation: Switch,
    connected: Services,
    sandbox: SandboxProcess,
    conn: Conn,
    clock: Clock,
    authorized: dict[str, str],
    kind: str,
) -> None:
    case = BAD[kind]
    sandbox.patch(rotate_refresh_tokens=True)
    pair = connect_account(connected, sandbox)
    uploaded = sandbox.pair()
    with rdstation.behaving(case.behave):
        worker, web = processes.worker(), processes.web(WEB_CONCURRENCY="1")
        [web_worker] = web.workers
        before = memory_peak(web_worker)
        wait_until(lambda: attempts_of(conn) == [("transient", case.error)], "the attempt has failed")
        assert stored_pair(connected, conn) == (pair["access_token"], pair["refresh_token"])
        assert row(conn)["status"] == "connected"
        assert ask(web, authorized) == SERVED
        assert ask(web, authorized, LEADS) == case.leads
        told = ask(web, authorized, UPLOAD, method="POST", body=uploaded)
        assert told[:2] == (503, "rdstation_unavailable")
        assert stored_pair(connected, conn) == (pair["access_token"], pair["refresh_token"])
        assert memory_peak(web_worker) - before < SWOLLEN_BYTES
        assert_it_does_little(worker.pid, rdstation.server)
        assert memory_peak(worker.pid) < before + SWOLLEN_BYTES

    clock.advance(BACK_OFF_ENDS_S)
    wait_until(lambda: attempts_of(conn)[-1] == ("stored", None), "the account is renewed")
    assert sandbox.calls()["token_refresh"] == {"200": 1}
    wait_until(lambda: ask(web, authorized, LEADS) == SERVED, "callers get leads")
    assert_sandbox_accepts(sandbox, *stored_pair(connected, conn))


@pytest.mark.fault(
    "rdstation-redirects",
    "RD Station sends token requests, account_info and leads to another host",
    "the other host hears nothing; the pair stays; callers get 502 or 503; renewed by itself",
)
def test_no_redirect_is_followed_and_the_other_host_hears_nothing(
    processes: Processes,
    rdstation: Switch,
    connected: Services,
    sandbox: SandboxProcess,
    conn: Conn,
    clock: Clock,
    authorized: dict[str, str],
) -> None:
    pair = connect_account(connected, sandbox)
    uploaded = sandbox.pair()
    web = processes.web(WEB_CONCURRENCY="1")
    with odd_server(respond_with(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")) as elsewhere:
        for status in (b"301", b"302", b"303", b"307", b"308"):
            moved = b"HTTP/1.1 %b Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n"
            with rdstation.behaving(cut_off(moved % (status, elsewhere.url.encode()))):
                refresh = ask(web, authorized, "/rd/tokens/default/refresh", method="POST")
                assert refresh == Told(502, "rdstation_failed")
                told = ask(web, authorized, UPLOAD, method="POST", body=uploaded)
                assert told[:2] == (503, "rdstation_unavailable")
                assert ask(web, authorized, LEADS) == UNUSABLE
            assert attempts_of(conn)[-1] == ("transient", "client_error")
            clock.advance(BACK_OFF_ENDS_S)
        assert stored_pair(connected, conn) == (pair["access_token"], pair["refresh_token"])
        assert elsewhere.received == []
    processes.worker()
    wait_until(lambda: attempts_of(conn)[-1] == ("stored", None), "the account is renewed")


@pytest.mark.long
@pytest.mark.fault(
    "rdstation-endless",
    "RD Station takes requests and says nothing, or lets header or body drip",
    "every call ends at its deadline; callers get 503 with Retry-After; the worker does little and renews by itself",
)
@pytest.mark.parametrize("kind", ENDLESS)
def test_every_call_ends_at_its_deadline_and_the_worker_recovers(
    processes: Processes,
    rdstation: Switch,
    connected: Services,
    sandbox: SandboxProcess,
    conn: Conn,
    clock: Clock,
    authorized: dict[str, str],
    kind: str,
) -> None:
    pair = connect_account(connected, sandbox)
    uploaded = sandbox.pair()
    with rdstation.behaving(ENDLESS[kind]):
        worker, web = processes.worker(), processes.web(WEB_CONCURRENCY="1")
        with ThreadPoolExecutor(2) as executor:
            leads = executor.submit(ask, web, authorized, LEADS)
            upload = executor.submit(ask, web, authorized, UPLOAD, method="POST", body=uploaded)
            assert ask(web, authorized) == SERVED
            assert leads.result() == UNREACHABLE
            assert upload.result()[:2] == (503, "rdstation_unavailable")
        wait_until(
            lambda: attempts_of(conn) == [("transient", "timeout")], "the exchange has ended", seconds=30
        )
        assert stored_pair(connected, conn) == (pair["access_token"], pair["refresh_token"])
        assert_it_does_little(worker.pid, rdstation.server)

    clock.advance(BACK_OFF_ENDS_S)
    wait_until(lambda: attempts_of(conn)[-1] == ("stored", None), "the account is renewed")
    assert sandbox.calls()["token_refresh"] == {"200": 1}


@pytest.mark.long
@pytest.mark.fault(
    "rdstation-handshake-hangs",
    "RD Station takes connections and never ends the TLS handshake",
    "the exchange is given up with nothing sent; callers are served; the worker does little and ends in time",
)
def test_a_handshake_that_hangs_is_given_up_with_nothing_sent(
    processes: Processes, connected: Services, sandbox: SandboxProcess, conn: Conn, authorized: dict[str, str]
) -> None:
    connect_account(connected, sandbox)
    with odd_server(say_nothing, scheme="https") as server:
        worker = processes.worker(RDSTATION_API_URL=server.url)
        wait_until(lambda: attempts_of(conn) == [("transient", "timeout")], "it is given up", seconds=30)
        assert answer_unknown(conn) is False
        assert ask(processes.web(), authorized) == SERVED
        assert_it_does_little(worker.pid, server)
        worker.send(signal.SIGTERM)
        assert worker.ended(END_AT_LATEST_S) == 0, worker.log


@pytest.mark.long
@pytest.mark.fault(
    "name-server-hangs",
    "the name server never answers",
    "the exchange is given up at its deadline with nothing sent; the worker does little and ends in time",
)
def test_a_name_server_that_never_answers_is_given_up_at_the_deadline(
    processes: Processes, connected: Services, sandbox: SandboxProcess, conn: Conn, tmp_path: Path
) -> None:
    connect_account(connected, sandbox)
    processes.variables["RDSTATION_API_URL"] = "https://api.rdstation.test"
    with silent_name_server() as address:
        resolver = tmp_path / "resolv.conf"
        resolver.write_text(f"nameserver {address}\noptions timeout:30 attempts:5\n")
        inside = f"mount --bind {resolver} /etc/resolv.conf && exec {shlex.quote(sys.executable)} -m worker"
        start = f"import os; os.execvp('unshare', ['unshare', '--mount', 'sh', '-c', {inside!r}])"
        worker = processes.python("-c", start)
        wait_until(lambda: "started" in worker.log or not worker.runs, "the worker starts", seconds=40)
        if not worker.runs:
            pytest.skip(f"unshare is not allowed here: {worker.log}")
        wait_until(lambda: attempts_of(conn) == [("transient", "timeout")], "it is given up", seconds=40)
        assert answer_unknown(conn) is False
        assert_it_does_little(worker.pid)
        conn.execute("UPDATE rdstation_tokens SET retry_at = NULL")
        wait_until(lambda: len(attempts_of(conn)) == 2, "the next attempt begins")
        worker.send(signal.SIGTERM)
        assert worker.ended(END_AT_LATEST_S) == 0, worker.log
    assert row(conn)["status"] == "connected"


@contextmanager
def silent_name_server() -> Iterator[str]:
    """Yield an address of this machine that takes questions at the port of name servers and answers none."""
    address = "127.53.53.53"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        try:
            server.bind((address, 53))
        except PermissionError:
            pytest.skip("only root may stand in for a name server")
        yield address


def answer_unknown(conn: Conn) -> bool:
    """Return whether the last attempt may have taken effect."""
    found = conn.execute(
        "SELECT answer_unknown FROM rdstation_refresh_attempts ORDER BY claim_no DESC"
    ).fetchone()
    assert found is not None
    return bool(found[0])


def assert_it_does_little(pid: int, server: OddServer | None = None) -> None:
    """Show that a worker whose renewals fail uses little of the processor and calls no more than back-offs allow."""
    began, used = time.monotonic(), cpu_seconds([pid])
    calls = 0 if server is None else len(server.received)
    wait_until(lambda: time.monotonic() - began > A_WHILE_S, "some seconds of failures")
    assert cpu_seconds([pid]) - used < A_WHILE_S / 4
    if server is not None:
        assert len(server.received) - calls <= A_WHILE_S


def memory_peak(pid: int) -> int:
    """Return the most memory that a process had so far, in bytes (proc(5), VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [peak] = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peak) * 1024
