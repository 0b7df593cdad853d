"""The bound on outgoing calls, against real sockets."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from rdservice.rdstation import deadline
from rdservice.rdstation.deadline import CallFailed, DeadlineExceeded, WatchedAdapter, bounded
from tests.support.odd_server import (
    OddServer,
    certificate,
    drip,
    odd_server,
    read_request,
    respond_with,
    say_nothing,
)

SHORT_S = 0.4
LONG_S = 20.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[requests.Session]:
    for name in (
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "http_proxy",
        "https_proxy",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
    ):
        monkeypatch.delenv(name, raising=False)
    # What one test trusts the next one does not.
    deadline._tls_context.cache_clear()
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, WatchedAdapter())
        yield session
    deadline._tls_context.cache_clear()


def call(session: requests.Session, url: str, seconds: float, **more: Any) -> bytes:
    """Post to `url`; the library's own time-outs are far longer than `seconds`."""
    arguments: dict[str, Any] = {"timeout": (LONG_S, LONG_S), "data": b"body"} | more
    return bounded(seconds, lambda: session.post(url, **arguments).content)


def failure(session: requests.Session, url: str, seconds: float = SHORT_S, **more: Any) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        call(session, url, seconds, **more)
    return caught.value


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < give_up_at, "it did not happen"
        time.sleep(0.01)


def wait_for_the_threads_of_calls() -> None:
    wait_until(lambda: not any(thread.name == "rdstation-call" for thread in threading.enumerate()))


def test_an_answer_in_time_is_returned(session: requests.Session) -> None:
    with odd_server(respond_with(OK)) as server:
        assert call(session, server.url, LONG_S) == b"ok"
        session.close()


def test_an_error_of_the_call_is_its_cause() -> None:
    error = ValueError("said the call")

    def fail() -> None:
        raise error

    with pytest.raises(CallFailed) as caught:
        bounded(LONG_S, fail)
    assert caught.value.__cause__ is error
    assert caught.value.sent is False


ENDLESS = {
    "accepts and says nothing": say_nothing,
    "drips header bytes": drip(b"HTTP/1.1 200 OK\r\nX-Header: "),
    "drips headers": drip(b"HTTP/1.1 200 OK\r\n"),
    "drips body bytes": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"),
    "drips a body without length": drip(b"HTTP/1.1 200 OK\r\n\r\n"),
    "drips interim answers": drip(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-Header: "),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_server_without_end_is_cut_off_at_the_deadline(session: requests.Session, kind: str) -> None:
    with odd_server(ENDLESS[kind]) as server:
        failed = failure(session, server.url)
        assert isinstance(failed.__cause__, DeadlineExceeded)
        assert failed.sent is True
        # The socket was really shut down: the server noticed, and the thread of the call has ended.
        wait_for_the_threads_of_calls()
        wait_until(lambda: server.ended == ["peer"])
        assert server.received[0].endswith(b"body")


@pytest.mark.parametrize("kind", ["accepts and says nothing", "drips body bytes"])
def test_a_server_without_end_is_cut_off_under_tls_too(
    session: requests.Session, tmp_path: Path, kind: str
) -> None:
    file, context = certificate(tmp_path)

    def behave(connection: socket.socket, server: OddServer, number: int) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            ENDLESS[kind](secured, server, number)

    with odd_server(behave, scheme="https") as server:
        failed = failure(session, server.url, seconds=1.2, verify=str(file))
        assert isinstance(failed.__cause__, DeadlineExceeded)
        assert failed.sent is True
        wait_for_the_threads_of_calls()
        wait_until(lambda: server.ended == ["peer"])


def test_a_handshake_without_end_is_given_up_and_nothing_was_sent(session: requests.Session) -> None:
    with odd_server(say_nothing, scheme="https") as server:
        # The library's own time-out ends the thread; it bounds single waits only, and so never the call itself.
        failed = failure(session, server.url, timeout=(2 * SHORT_S, LONG_S))
        assert isinstance(failed.__cause__, DeadlineExceeded)
        assert failed.sent is False
        wait_for_the_threads_of_calls()
        wait_until(lambda: server.ended == ["peer"])
        assert b"POST" not in server.received[0]


def test_a_handshake_that_ends_after_the_deadline_is_not_used(
    session: requests.Session, tmp_path: Path
) -> None:
    file, context = certificate(tmp_path)
    go_on = threading.Event()
    heard: list[bytes] = []

    def behave(connection: socket.socket, server: OddServer, number: int) -> None:
        assert go_on.wait(LONG_S)
        with context.wrap_socket(connection, server_side=True) as secured:
            try:
                heard.append(secured.recv(1000))
            except ssl.SSLError:
                heard.append(b"")

    with odd_server(behave, scheme="https") as server:
        failed = failure(session, server.url, verify=str(file))
        assert failed.sent is False
        go_on.set()
        wait_for_the_threads_of_calls()
        wait_until(lambda: heard == [b""])
    assert heard == [b""]


def test_a_connection_that_stands_after_the_deadline_is_not_used(
    session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    real = socket.getaddrinfo

    def slow_name_server(*args: Any, **more: Any) -> Any:
        assert go_on.wait(LONG_S)
        return real(*args, **more)

    with odd_server(respond_with(OK)) as server:
        monkeypatch.setattr(socket, "getaddrinfo", slow_name_server)
        failed = failure(session, server.url)
        assert isinstance(failed.__cause__, DeadlineExceeded)
        assert failed.sent is False
        go_on.set()
        wait_for_the_threads_of_calls()
        wait_until(lambda: server.ended == ["peer"])
        assert server.received == [b""]


def test_a_connection_that_was_kept_alive_is_bounded_too(session: requests.Session) -> None:
    def behave(connection: socket.socket, server: OddServer, number: int) -> None:
        read_request(connection, server, number)
        connection.sendall(OK)
        say_nothing(connection, server, number)

    with odd_server(behave) as server:
        assert call(session, server.url, LONG_S) == b"ok"
        failed = failure(session, server.url)
        assert isinstance(failed.__cause__, DeadlineExceeded)
        assert failed.sent is True
        wait_for_the_threads_of_calls()
        wait_until(lambda: server.ended == ["peer"])
        assert len(server.received) == 1


@pytest.mark.parametrize(
    ("answer", "used"),
    [
        (OK, True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", False),
        (b"HTTP/1.1 200 OK\r\n\r\nok", False),
    ],
    ids=["whole", "whole in chunks", "cut off", "cut off in chunks", "without length"],
)
def test_an_answer_that_has_arrived_by_the_deadline_is_used_if_it_is_whole(
    session: requests.Session, answer: bytes, used: bool
) -> None:
    def read_late() -> bytes:
        # As in a process that stood still: the answer waits in the socket while the time runs out.
        with session.post(server.url, timeout=(LONG_S, LONG_S), data=b"body", stream=True) as response:
            wait_until(lambda: deadline._current.watch._expired)
            return response.content

    with odd_server(respond_with(answer)) as server:
        if used:
            assert bounded(SHORT_S, read_late) == b"ok"
        else:
            with pytest.raises(CallFailed) as caught:
                bounded(SHORT_S, read_late)
            assert caught.value.sent is True
            assert isinstance(caught.value.__cause__, DeadlineExceeded)


def test_nothing_is_repeated_by_itself(session: requests.Session) -> None:
    def hang_up(connection: socket.socket, server: OddServer, number: int) -> None:
        read_request(connection, server, number)

    with odd_server(hang_up) as server:
        failed = failure(session, server.url, seconds=LONG_S)
        assert isinstance(failed.__cause__, requests.ConnectionError)
        assert failed.sent is True
        assert len(server.received) == 1


def test_a_refused_connection_has_sent_nothing(session: requests.Session) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    failed = failure(session, f"http://127.0.0.1:{port}", seconds=LONG_S)
    assert isinstance(failed.__cause__, requests.ConnectionError)
    assert failed.sent is False


def test_a_certificate_that_nobody_signed_is_refused_before_anything_is_sent(
    session: requests.Session, tmp_path: Path
) -> None:
    _, context = certificate(tmp_path)
    heard: list[bytes] = []

    def behave(connection: socket.socket, server: OddServer, number: int) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as secured:
                heard.append(secured.recv(1000))
        except ssl.SSLError:
            heard.append(b"")

    with odd_server(behave, scheme="https") as server:
        failed = failure(session, server.url, seconds=LONG_S)
        assert isinstance(failed.__cause__, requests.exceptions.SSLError)
        assert failed.sent is False
        wait_until(lambda: len(heard) == 1)
    assert heard == [b""]


def test_a_certificate_for_another_host_is_refused(session: requests.Session, tmp_path: Path) -> None:
    file, context = certificate(tmp_path)

    def behave(connection: socket.socket, server: OddServer, number: int) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            say_nothing(secured, server, number)

    with odd_server(behave, scheme="https") as server:
        url = server.url.replace("127.0.0.1", "localhost")
        failed = failure(session, url, seconds=LONG_S, verify=str(file))
        assert isinstance(failed.__cause__, requests.exceptions.SSLError)
        assert failed.sent is False


def test_a_signed_certificate_of_the_environment_is_accepted(
    session: requests.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, context = certificate(tmp_path)

    def behave(connection: socket.socket, server: OddServer, number: int) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            read_request(secured, server, number)
            secured.sendall(OK)

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(file))
    with odd_server(behave, scheme="https") as server:
        assert call(session, server.url, LONG_S) == b"ok"


@pytest.mark.parametrize(
    "target", ["http://api.rd.services/auth/token", "https://api.rd.services/auth/token"]
)
def test_a_proxy_in_between_is_bounded_too(
    session: requests.Session, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    with odd_server(say_nothing) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        failed = failure(session, target, timeout=(2 * SHORT_S, LONG_S))
        assert isinstance(failed.__cause__, DeadlineExceeded)
        # Through a tunnel that does not stand yet nothing was sent to RD Station; plain HTTP has left by then.
        assert failed.sent is target.startswith("http:")
        wait_for_the_threads_of_calls()
        wait_until(lambda: proxy.ended == ["peer"])
        assert proxy.received[0].startswith((b"POST http://", b"CONNECT api.rd.services:443"))


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_through_a_proxy_is_checked_like_any_other(
    session: requests.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    file, context = certificate(tmp_path)

    def tunnel(connection: socket.socket, server: OddServer, number: int) -> None:
        read_request(connection, server, number)
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with context.wrap_socket(connection, server_side=True) as secured:
            read_request(secured, server, number)
            secured.sendall(OK)

    with odd_server(tunnel) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "nobody.example")
        monkeypatch.setenv("no_proxy", "nobody.example")
        if trusted:
            assert call(session, "https://127.0.0.1/", LONG_S, verify=str(file)) == b"ok"
        else:
            failed = failure(session, "https://127.0.0.1/", LONG_S)
            assert isinstance(failed.__cause__, requests.exceptions.SSLError)
            assert failed.sent is False


def test_calls_at_the_same_time_do_not_end_each_other(session: requests.Session) -> None:
    responses: list[bytes] = []
    hanging = threading.Event()

    def behave(connection: socket.socket, server: OddServer, number: int) -> None:
        request = read_request(connection, server, number)
        if b"POST /hang" in request:
            hanging.set()
            say_nothing(connection, server, number)
        assert hanging.wait(LONG_S)
        time.sleep(2 * SHORT_S)
        connection.sendall(OK)

    with odd_server(behave) as server:
        slow = threading.Thread(target=lambda: responses.append(call(session, f"{server.url}/slow", LONG_S)))
        slow.start()
        failed = failure(session, f"{server.url}/hang")
        assert failed.sent is True
        slow.join(LONG_S)
    assert responses == [b"ok"]


def test_the_message_says_nothing_of_the_request(session: requests.Session) -> None:
    with odd_server(say_nothing) as server:
        failed = failure(session, f"{server.url}/planted-path", data=b"planted-body")
    assert "planted" not in f"{failed!r} {failed} {failed.__cause__!r} {failed.__cause__}"
