"""Calls whose bodies pass through, against servers that answer badly, slowly, too much or not at all."""

import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from rdservice.config.settings import Settings
from rdservice.rdstation import streaming
from rdservice.rdstation.client import ApiResponse, TransportError
from rdservice.rdstation.streaming import (
    ClientDisconnected,
    IncompleteRead,
    Outgoing,
    StreamedCalls,
    StreamedResponse,
    Upload,
    UploadBroken,
)
from tests.support.odd_server import (
    Behaviour,
    OddServer,
    drip,
    odd_server,
    read_request,
    respond_with,
    say_nothing,
)
from tests.support.waiting import wait_until

PATIENCE_S = 30.0
TARGET = "/platform/x%2fy?a[]=%7e"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\n{}"


@pytest.fixture
def counted() -> list[ApiResponse | TransportError]:
    return []


Calls = Callable[[OddServer], StreamedCalls]


@pytest.fixture
def calls(settings: Settings, counted: list[ApiResponse | TransportError]) -> Calls:
    def make(server: OddServer) -> StreamedCalls:
        here = dataclasses.replace(settings, api_url=server.url)
        return StreamedCalls(here, on_call=lambda outcome, _: counted.append(outcome))

    return make


def outgoing(method: str = "GET", upload: Upload | None = None, **headers: str) -> Outgoing:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Outgoing(method=method, target=TARGET, headers=named, upload=upload)


def upload(*pieces: bytes, length: int | None = None) -> Upload:
    return Upload(first=pieces[0], length=length, more=iter(pieces[1:]))


def send(client: StreamedCalls, request: Outgoing, *, seconds: float = PATIENCE_S) -> StreamedResponse:
    return client.send(request, "the-token", deadline=time.monotonic() + seconds)


def read(response: StreamedResponse) -> bytes:
    try:
        return b"".join(response.pieces())
    finally:
        response.close()


def test_the_request_is_what_was_asked_for_with_the_token_and_nothing_else(
    calls: Calls, counted: list[ApiResponse | TransportError]
) -> None:
    with odd_server(respond_with(OK)) as server:
        response = send(calls(server), outgoing(Accept="a/b"))
        assert read(response) == b"{}"
        head = server.received[0].decode().partition("\r\n\r\n")[0].split("\r\n")
    assert head[0] == f"GET {TARGET} HTTP/1.1"
    assert sorted(head[1:]) == [
        "Accept-Encoding: identity",
        "Accept: a/b",
        "Authorization: Bearer the-token",
        "Connection: close",
        f"Host: 127.0.0.1:{server.port}",
        "User-Agent: rdservice",
    ]
    assert ("X-Twice", "1") in response.headers
    assert ("X-Twice", "2") in response.headers
    assert counted == [response.head]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET"])
def test_a_whole_body_is_sent_with_its_length(calls: Calls, method: str) -> None:
    body = Upload(first=b"a=b", length=3, more=None)
    with odd_server(respond_with(OK)) as server:
        read(send(calls(server), outgoing(method, body)))
        assert server.received[0].endswith(b"\r\n\r\na=b")
        assert server.received[0].lower().count(b"content-length: 3\r\n") == 1
        assert b"transfer-encoding" not in server.received[0].lower()


def read_chunks(connection: socket.socket, server: OddServer, number: int) -> None:
    while b"0\r\n\r\n" not in server.received[number]:
        server.received[number] += connection.recv(65_536)
    connection.sendall(OK)


def test_a_body_of_unknown_length_is_sent_in_chunks(calls: Calls) -> None:
    with odd_server(read_chunks) as server:
        read(send(calls(server), outgoing("POST", upload(b"abc", b"", b"de"))))
        head, _, body = server.received[0].partition(b"\r\n\r\n")
    assert body == b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert b"content-length" not in head.lower()


def test_a_body_of_known_length_passes_through_as_it_is(calls: Calls) -> None:
    with odd_server(respond_with(OK)) as server:
        read(send(calls(server), outgoing("POST", upload(b"abc", b"de", length=5))))
        assert server.received[0].endswith(b"\r\n\r\nabcde")


def test_a_body_that_breaks_off_ends_the_connection_and_is_nobodys_failure(
    calls: Calls, counted: list[ApiResponse | TransportError]
) -> None:
    def broken() -> Iterator[bytes]:
        yield b"de"
        raise ValueError("the caller has gone")

    with odd_server(say_nothing) as server:
        body = Upload(first=b"abc", length=None, more=broken())
        with pytest.raises(UploadBroken) as raised:
            send(calls(server), outgoing("POST", body))
        assert isinstance(raised.value.__cause__, ValueError)
        wait_until(lambda: server.ended == ["peer"], "the connection ends")
        assert b"0\r\n\r\n" not in server.received[0]
    assert counted == []


def test_an_answer_before_the_body_has_ended_is_taken(calls: Calls) -> None:
    def refuse(connection: socket.socket, server: OddServer, number: int) -> None:
        while b"\r\n\r\n" not in server.received[number]:
            server.received[number] += connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass

    def endless() -> Iterator[bytes]:
        for _ in range(10_000):
            yield b"x" * 65_536

    with odd_server(refuse) as server:
        response = send(calls(server), outgoing("POST", Upload(first=b"x", length=None, more=endless())))
        assert response.status == 413
        response.close()


def test_without_a_connection_nothing_was_sent_and_the_body_is_whole(
    settings: Settings, counted: list[ApiResponse | TransportError]
) -> None:
    body = upload(b"a", b"b")
    client = StreamedCalls(settings, on_call=lambda outcome, _: counted.append(outcome))
    with pytest.raises(TransportError) as raised:
        send(client, outgoing("POST", body))
    assert (raised.value.kind, raised.value.sent) == ("connection", False)
    assert body.can_be_sent
    assert counted == [raised.value]


def say(response: bytes) -> Behaviour:
    """Answer one request and close the connection."""

    def behave(connection: socket.socket, server: OddServer, number: int) -> None:
        read_request(connection, server, number)
        connection.sendall(response)

    return behave


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BROKEN = {
    "shorter than its length": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
    "chunks without an end": CHUNKED + b"2\r\n{}\r\n",
    "chunks that are none": CHUNKED + b"zz\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_answer_that_breaks_off_is_not_taken_for_whole(
    calls: Calls, counted: list[ApiResponse | TransportError], name: str
) -> None:
    with odd_server(say(BROKEN[name])) as server:
        response = send(calls(server), outgoing())
        assert response.status == 200
        with pytest.raises(IncompleteRead):
            read(response)
    assert [type(outcome) for outcome in counted] == [TransportError]


NO_ANSWERS = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000,
    "nothing": b"",
}


@pytest.mark.parametrize("name", NO_ANSWERS)
def test_what_is_no_answer_may_have_taken_effect(calls: Calls, name: str) -> None:
    with odd_server(say(NO_ANSWERS[name])) as server:
        with pytest.raises(TransportError) as raised:
            send(calls(server), outgoing())
        assert raised.value.sent


def test_what_follows_an_answer_is_no_part_of_it_and_of_no_other(calls: Calls) -> None:
    with odd_server(respond_with(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", OK)) as server:
        client = calls(server)
        assert read(send(client, outgoing())) == b"{}"
        assert read(send(client, outgoing())) == b"{}"
        assert len(server.received) == 2


def test_an_answer_without_a_length_ends_with_its_connection(calls: Calls) -> None:
    with odd_server(say(b"HTTP/1.0 200 OK\r\n\r\nall of it")) as server:
        assert read(send(calls(server), outgoing())) == b"all of it"


def test_a_redirect_is_passed_on_and_not_followed(calls: Calls) -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    with odd_server(respond_with(moved)) as server:
        response = send(calls(server), outgoing())
        assert (response.status, read(response)) == (302, b"")
        assert len(server.received) == 1


def test_compressed_content_stays_compressed(calls: Calls) -> None:
    body = b"\x1f\x8b\x08\x00 not even gzip"
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    with odd_server(respond_with(head + body)) as server:
        assert read(send(calls(server), outgoing(Accept_Encoding="gzip"))) == body
        assert b"Accept-Encoding: gzip\r\n" in server.received[0]


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
    ],
)
def test_a_dripping_answer_ends_in_time(calls: Calls, start: bytes) -> None:
    with odd_server(drip(start)) as server:
        response = send(calls(server), outgoing(), seconds=0.5)
        with pytest.raises(IncompleteRead):
            read(response)
        wait_until(lambda: server.ended == ["peer"], "the connection ends")


def test_a_dripping_head_ends_in_time(calls: Calls) -> None:
    with odd_server(drip(b"HTTP/1.1 200 OK\r\nX: ")) as server:
        with pytest.raises(TransportError) as raised:
            send(calls(server), outgoing(), seconds=0.5)
        assert (raised.value.kind, raised.value.sent) == ("timeout", True)
        wait_until(lambda: server.ended == ["peer"], "the connection ends")


def test_what_arrives_is_there_at_once(calls: Calls) -> None:
    go_on = threading.Event()

    def behave(connection: socket.socket, server: OddServer, number: int) -> None:
        read_request(connection, server, number)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        assert go_on.wait(PATIENCE_S)
        connection.sendall(b"cd")

    with odd_server(behave) as server:
        response = send(calls(server), outgoing())
        pieces = response.pieces()
        assert next(pieces) == b"ab"
        go_on.set()
        assert b"".join(pieces) == b"cd"
        response.close()


def flood(connection: socket.socket, server: OddServer, number: int) -> None:
    read_request(connection, server, number)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def test_an_endless_answer_is_cut_off_at_its_bound(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "MAX_RESPONSE_BYTES", 1024 * 1024)
    with odd_server(flood) as server:
        response = send(calls(server), outgoing())
        passed: list[int] = []
        with pytest.raises(IncompleteRead):
            passed.extend(map(len, response.pieces()))
        assert 0 < sum(passed) <= 1024 * 1024
        wait_until(lambda: server.ended == ["peer"], "the connection ends")


def test_a_caller_that_goes_away_ends_the_call(
    calls: Calls, counted: list[ApiResponse | TransportError]
) -> None:
    with odd_server(flood) as server:
        response = send(calls(server), outgoing())
        assert next(response.pieces())
        response.close()
        wait_until(lambda: server.ended == ["peer"], "the connection ends")
    assert counted == [response.head]


def test_a_caller_that_reads_slowly_holds_no_more_than_a_few_pieces(calls: Calls) -> None:
    sent = 0

    def behave(connection: socket.socket, server: OddServer, number: int) -> None:
        nonlocal sent
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        read_request(connection, server, number)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 40000000\r\n\r\n")
        for _ in range(400):
            connection.sendall(b"x" * 100_000)
            sent += 100_000

    with odd_server(behave) as server:
        response = send(calls(server), outgoing())
        pieces = response.pieces()
        total = 0
        for piece in pieces:
            total += len(piece)
            # What lies in the sockets' buffers and in the pipe between the threads.
            assert sent - total < 16_000_000
        assert total == 40_000_000
        response.close()


def test_a_call_ends_when_nobody_waits_for_its_answer_and_is_nobodys_failure(
    calls: Calls, counted: list[ApiResponse | TransportError]
) -> None:
    with odd_server(say_nothing) as server:
        with pytest.raises(ClientDisconnected) as raised:
            calls(server).send(
                outgoing(),
                "the-token",
                deadline=time.monotonic() + PATIENCE_S,
                is_connected=lambda: not server.received,
            )
        wait_until(lambda: server.ended == ["peer"], "the connection ends")
    assert raised.value.sent
    assert counted == []


def test_an_answer_that_stands_still_ends_when_nobody_waits_for_it(
    calls: Calls, counted: list[ApiResponse | TransportError]
) -> None:
    def begin(connection: socket.socket, server: OddServer, number: int) -> None:
        read_request(connection, server, number)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na")
        say_nothing(connection, server, number)

    wanted = True
    with odd_server(begin) as server:
        response = calls(server).send(
            outgoing(), "the-token", deadline=time.monotonic() + PATIENCE_S, is_connected=lambda: wanted
        )
        pieces = response.pieces()
        assert next(pieces) == b"a"
        wanted = False
        with pytest.raises(ClientDisconnected):
            next(pieces)
        response.close()
        wait_until(lambda: server.ended == ["peer"], "the connection ends")
    assert counted == [response.head]
