"""A client's socket whose patience ends."""

import runpy
import socket
import threading
from collections.abc import Iterator

import pytest

from rdservice.config.settings import ROOT
from rdservice.gunicorn_hooks import worker_class
from rdservice.gunicorn_hooks.worker_class import ClientSocket


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def places() -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(1)


def begin(sock: socket.socket, places: threading.BoundedSemaphore) -> ClientSocket:
    """Return the socket as gunicorn has it when a thread begins with a request."""
    client = ClientSocket(sock, places)
    client.setblocking(True)
    return client


Pair = tuple[socket.socket, socket.socket]


def test_what_has_arrived_is_read_without_a_place(pair: Pair, places: threading.BoundedSemaphore) -> None:
    client = begin(pair[0], places)
    pair[1].sendall(b"abc")
    with places:
        assert client.recv(10) == b"abc"
        assert client.gettimeout() is None


def test_what_has_not_needs_a_place_and_without_one_the_client_has_gone(
    pair: Pair, places: threading.BoundedSemaphore
) -> None:
    client = begin(pair[0], places)
    with places:
        assert client.recv(10) == b""
    with pytest.raises(BrokenPipeError):
        pair[1].sendall(b"too late, and perhaps another request")
    assert client.recv(10) == b""
    client.setblocking(True)
    assert client.recv(10) == b""


def test_a_place_is_given_back(pair: Pair, places: threading.BoundedSemaphore) -> None:
    client = begin(pair[0], places)
    threading.Timer(0.05, pair[1].sendall, [b"abc"]).start()
    assert client.recv(10) == b"abc"
    assert places.acquire(blocking=False)


def test_a_request_that_takes_too_long_ends_however_often_something_arrives(
    pair: Pair, places: threading.BoundedSemaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_class, "READ_S", 0.2)
    client = begin(pair[0], places)
    ended = threading.Event()

    def drip() -> None:
        while not ended.wait(0.01):
            pair[1].send(b"x")

    dripping = threading.Thread(target=drip)
    dripping.start()
    read = 0
    while chunk := client.recv(1):
        read += len(chunk)
        # What is there already counts as well: no client may go on for ever.
        assert read < 100_000
    ended.set()
    dripping.join()
    assert client.recv(1) == b""


def test_a_route_for_large_bodies_gives_its_request_more_time_and_no_more_than_that(
    pair: Pair, places: threading.BoundedSemaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_class, "READ_S", 0.0)
    client = begin(pair[0], places)
    client.allow(20)
    threading.Timer(0.1, pair[1].sendall, [b"abc"]).start()
    assert client.recv(10) == b"abc"
    client.allow(0.05)
    assert client.recv(10) == b""
    with pytest.raises(BrokenPipeError):
        pair[1].sendall(b"too late")


def test_a_client_is_there_until_it_sends_no_more_or_has_lost_its_time(
    pair: Pair, places: threading.BoundedSemaphore
) -> None:
    waiting = begin(pair[0], places)
    assert waiting.is_connected()
    pair[1].sendall(b"its next request")
    assert waiting.is_connected()
    pair[1].shutdown(socket.SHUT_WR)
    assert not waiting.is_connected()


def test_a_client_whose_time_is_over_is_not_there(pair: Pair, places: threading.BoundedSemaphore) -> None:
    client = begin(pair[0], places)
    with places:
        assert client.recv(10) == b""
    assert not client.is_connected()


def test_a_process_that_must_end_goes_on_with_nothing_long(
    pair: Pair, places: threading.BoundedSemaphore
) -> None:
    client = ClientSocket(pair[0], places, is_stopping=lambda: True)
    assert client.is_connected()
    assert not client.may_go_on()


def test_gunicorn_s_own_bound_stays_a_time_out(pair: Pair, places: threading.BoundedSemaphore) -> None:
    client = begin(pair[0], places)
    client.settimeout(0.01)
    with pytest.raises(TimeoutError):
        client.recv(10)
    assert client.gettimeout() == 0.01
    pair[1].sendall(b"abc")
    assert client.recv(10) == b"abc"


def test_an_answer_that_nobody_reads_ends_like_a_broken_connection(
    pair: Pair, places: threading.BoundedSemaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_class, "WRITE_S", 0.05)
    with pytest.raises(BrokenPipeError):
        begin(pair[0], places).sendall(b"x" * 10_000_000)


def test_a_stopping_process_waits_longer_than_any_client_may_take() -> None:
    graceful_timeout_s = runpy.run_path(str(ROOT / "gunicorn.conf.py"))["graceful_timeout"]
    assert max(worker_class.SILENT_S, worker_class.READ_S, worker_class.WRITE_S) < graceful_timeout_s
