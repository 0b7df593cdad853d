"""`/rd/api/<path>` through the real gunicorn: large bodies, callers that go away, and processes that end."""

import contextlib
import hashlib
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import requests

from dev.benchmarks.processes import memory
from rdservice.services import Services
from rdservice.web.api.passthrough import AT_ONCE, MAX_UPLOAD_BYTES
from tests.support.accounts import connect_account
from tests.support.odd_server import Behaviour, OddServer, drip, odd_server, say_nothing
from tests.support.processes import Processes, Web
from tests.support.raw_http import Conversation, connect, read_all
from tests.support.upstream import PIECE, Bodies, Download
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

PATH = "/rd/api/platform/files"
MIB = 1024 * 1024
UPLOADS_AT_ONCE = 6
"""Together three times as large as what a process may grow by."""
DOWNLOAD_PIECES = 640
"""40 MiB."""
GROWTH_BYTES = 20_000_000
THREADS = 64
CALLERS = 12


@pytest.fixture
def program(connected: Services, authorized: dict[str, str]) -> dict[str, str]:
    """Request headers of a program whose account is connected."""
    connect_account(connected, due=False)
    return authorized


def before(processes: Processes, upstream: OddServer) -> Web:
    """Start one web process whose RD Station is `upstream`, without a bound on calls a minute."""
    return processes.web(
        RDSTATION_API_URL=upstream.url,
        RDSTATION_RATE_LIMIT="100000",
        WEB_CONCURRENCY="1",
        # glibc's malloc gives threads that meet an arena of their own, and keeps what it has: the busier the machine,
        # the more it would have grown.
        MALLOC_ARENA_MAX="1",
    )


def body() -> bytes:
    return random.Random(1).randbytes(MAX_UPLOAD_BYTES)  # noqa: S311 - no secret


def in_pieces(whole: bytes) -> Iterator[bytes]:
    for start in range(0, len(whole), 100_000):
        yield whole[start : start + 100_000]


@contextlib.contextmanager
def bounded_growth(web: Web) -> Iterator[None]:
    """Look at the memory of the only worker until the end of the block; fail when it has grown by too much."""
    pids = web.workers
    start = memory(pids).resident
    most, over = [start], threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            most.append(memory(pids).resident)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
    assert max(most) - start < GROWTH_BYTES


@pytest.mark.parametrize("framing", ["Content-Length", "chunked"])
def test_uploads_arrive_byte_for_byte_and_take_no_memory(
    processes: Processes, program: dict[str, str], framing: str
) -> None:
    taken, whole = Bodies(together=UPLOADS_AT_ONCE), body()

    def upload(sent: bytes) -> int:
        data = sent if framing == "Content-Length" else in_pieces(sent)
        return requests.post(web.url + PATH, data=data, headers=program, timeout=60).status_code

    with odd_server(taken) as upstream, ThreadPoolExecutor(UPLOADS_AT_ONCE) as callers:
        web = before(processes, upstream)
        # What as many calls at once need whatever their size: threads and pieces on their way.
        assert set(callers.map(upload, [whole[:MIB]] * UPLOADS_AT_ONCE)) == {200}
        with bounded_growth(web):
            assert set(callers.map(upload, [whole] * UPLOADS_AT_ONCE)) == {200}
        heads = [head.lower() for head in upstream.received[UPLOADS_AT_ONCE:]]
    assert taken.digests[UPLOADS_AT_ONCE:] == [hashlib.sha256(whole).hexdigest()] * UPLOADS_AT_ONCE
    expected = b"content-length: %d\r\n" % len(whole) if framing == "Content-Length" else b": chunked\r\n"
    assert all(expected in head for head in heads)


def test_a_download_arrives_byte_for_byte_and_takes_no_memory(
    processes: Processes, program: dict[str, str]
) -> None:
    sent = Download(DOWNLOAD_PIECES)

    def download() -> str:
        digest = hashlib.sha256()
        with requests.get(web.url + PATH, headers=program, stream=True, timeout=60) as response:
            assert response.headers["Content-Length"] == str(DOWNLOAD_PIECES * len(PIECE))
            for piece in response.iter_content(len(PIECE)):
                digest.update(piece)
        return digest.hexdigest()

    with odd_server(sent) as upstream:
        web = before(processes, upstream)
        assert requests.get(web.url + PATH, headers=program, timeout=60).status_code == 200
        with bounded_growth(web):
            assert download() == sent.digest


def head(program: dict[str, str], method: str, *more: str) -> bytes:
    lines = [
        f"{method} {PATH} HTTP/1.1",
        "Host: localhost",
        f"Authorization: {program['Authorization']}",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def test_an_upload_that_announces_too_much_is_refused_before_it_is_sent(
    processes: Processes, program: dict[str, str]
) -> None:
    with odd_server(say_nothing) as upstream:
        web = before(processes, upstream)
        with connect(web.port) as caller:
            caller.sendall(head(program, "POST", f"Content-Length: {MAX_UPLOAD_BYTES + 1}"))
            assert Conversation(read_all(caller)).statuses == [413]
        assert upstream.received == []


def test_a_chunked_upload_is_refused_where_it_becomes_too_large_and_its_call_ends(
    processes: Processes, program: dict[str, str]
) -> None:
    with odd_server(say_nothing) as upstream:
        web = before(processes, upstream)
        with connect(web.port) as caller:
            caller.sendall(head(program, "POST", "Transfer-Encoding: chunked"))
            # A piece more than may come, and no end.
            for _ in range(MAX_UPLOAD_BYTES // len(PIECE) + 1):
                caller.sendall(b"%x\r\n%s\r\n" % (len(PIECE), PIECE))
            assert Conversation(read_all(caller)).statuses == [413]
        wait_until(lambda: upstream.ended == ["peer"], "the call ends")
        assert not upstream.received[0].endswith(b"0\r\n\r\n")


WAITING: dict[str, Behaviour] = {
    "while RD Station says nothing": say_nothing,
    "in the middle of an answer that stands still": Download(2, held_up=True),
    "in the middle of an answer that drips": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"),
}


@pytest.mark.parametrize("when", WAITING)
def test_a_caller_that_goes_away_ends_its_call_and_frees_its_thread(
    processes: Processes, program: dict[str, str], when: str
) -> None:
    with odd_server(WAITING[when]) as upstream:
        web = before(processes, upstream)
        # Together more than the threads of the process.
        for wave in range(1, 2 + THREADS // CALLERS):
            expected = wave * CALLERS
            with contextlib.ExitStack() as callers:
                for _ in range(CALLERS):
                    callers.enter_context(connect(web.port)).sendall(head(program, "GET"))
                wait_until(partial(_reached, upstream.received, expected), "all calls are under way")
            # Far less than the 15 to 20 seconds for which RD Station may be silent.
            wait_until(partial(_reached, upstream.ended, expected), "all calls have ended", seconds=10)
        assert len(upstream.received) == len(upstream.ended)
        assert set(upstream.ended) == {"peer"}
        assert "Traceback" not in web.log


def _reached(seen: Sequence[object], expected: int) -> bool:
    return len(seen) >= expected


@contextlib.contextmanager
def crowd(web: Web, sent: bytes) -> Iterator[None]:
    """Twice as many callers as threads, who send `sent` and then nothing, until the end of the block."""
    with contextlib.ExitStack() as callers:
        for _ in range(2 * THREADS):
            # A refused caller may be cut off before it has sent everything.
            with contextlib.suppress(ConnectionError):
                callers.enter_context(connect(web.port)).sendall(sent)
        yield


def test_a_silent_rd_station_leaves_threads_to_everyone_else(
    processes: Processes, program: dict[str, str]
) -> None:
    with odd_server(say_nothing) as upstream:
        web = before(processes, upstream)
        with crowd(web, head(program, "GET")):
            wait_until(lambda: len(upstream.received) == AT_ONCE, "the calls are under way")
            for path in ("/healthz", "/rd/tokens"):
                assert requests.get(web.url + path, headers=program, timeout=10).status_code == 200
            refused = requests.get(web.url + PATH, headers=program, timeout=10)
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
            assert refused.json()["reached_rd_station"] == "no"


def test_uploads_that_stand_still_leave_threads_to_everyone_else(
    processes: Processes, program: dict[str, str]
) -> None:
    with odd_server(say_nothing) as upstream:
        web = before(processes, upstream)
        with crowd(web, head(program, "POST", "Content-Length: 1000000") + b"x" * 500_000):
            wait_until(lambda: upstream.received, "the calls are under way")
            for path in ("/healthz", "/rd/tokens"):
                assert requests.get(web.url + path, headers=program, timeout=10).status_code == 200


def test_sigterm_lets_a_download_come_to_its_end(processes: Processes, program: dict[str, str]) -> None:
    sent = Download(100, held_up=True)
    with odd_server(sent) as upstream:
        web = before(processes, upstream)
        with requests.get(web.url + PATH, headers=program, stream=True, timeout=60) as response:
            pieces = response.iter_content(len(PIECE))
            digest = hashlib.sha256(next(pieces))
            web.send(signal.SIGTERM)
            web.wait_until_it_says("Handling signal: term")
            sent.go_on.set()
            for piece in pieces:
                digest.update(piece)
        assert digest.hexdigest() == sent.digest
        assert web.ended() == 0


def test_sigterm_cuts_off_a_download_that_does_not_end(processes: Processes, program: dict[str, str]) -> None:
    endless = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    with odd_server(endless) as upstream:
        web = before(processes, upstream)
        with requests.get(web.url + PATH, headers=program, stream=True, timeout=60) as response:
            next(response.iter_content(1))
            web.send(signal.SIGTERM)
            with pytest.raises(requests.RequestException):
                list(response.iter_content(1))
        assert web.ended() == 0
