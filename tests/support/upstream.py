"""What RD Station does to requests that pass through, for tests that must see or hold up every byte of them."""

import hashlib
import socket
import threading

from tests.support.odd_server import PATIENCE_S, OddServer, read_request

PIECE = bytes(range(256)) * 256
HEAD_OF_NOTHING = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


class Bodies:
    """Reads requests of either framing whole and notes a digest of each body, in the order of their ends.

    The bodies of the first `together` requests are read only once all of these requests have begun.
    """

    def __init__(self, *, together: int = 1) -> None:
        self.digests: list[str] = []
        self._together = together
        self._all_have_begun = threading.Barrier(together)

    def __call__(self, connection: socket.socket, server: OddServer, number: int) -> None:
        with connection.makefile("rb") as stream:
            head = b"".join(iter(stream.readline, b"\r\n"))
            server.received[number] = head
            if number < self._together:
                self._all_have_begun.wait(PATIENCE_S)
            names = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-1])
            digest = hashlib.sha256()
            left = int(names.get(b"content-length", b"0"))
            while left:
                piece = _exactly(stream.read(min(left, len(PIECE))))
                digest.update(piece)
                left -= len(piece)
            if names.get(b"transfer-encoding") == b"chunked":
                while size := int(stream.readline(), 16):
                    digest.update(_exactly(stream.read(size + 2))[:-2])
                stream.readline()
        self.digests.append(digest.hexdigest())
        connection.sendall(HEAD_OF_NOTHING)


def _exactly(piece: bytes) -> bytes:
    if not piece:
        raise ConnectionError("the client closed the connection")
    return piece


class Download:
    """Answers with `pieces` pieces; after the first it waits until `go_on` is set, or for ever."""

    def __init__(self, pieces: int, *, held_up: bool = False) -> None:
        self.pieces = pieces
        self.go_on = threading.Event()
        if not held_up:
            self.go_on.set()

    @property
    def digest(self) -> str:
        whole = hashlib.sha256()
        for _ in range(self.pieces):
            whole.update(PIECE)
        return whole.hexdigest()

    def __call__(self, connection: socket.socket, server: OddServer, number: int) -> None:
        read_request(connection, server, number)
        length = self.pieces * len(PIECE)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + PIECE)
        while not self.go_on.wait(0.1):
            connection.settimeout(0.1)
            try:
                if not connection.recv(1):
                    raise ConnectionError("the client closed the connection")
            except TimeoutError:
                continue
        connection.settimeout(30)
        for _ in range(self.pieces - 1):
            connection.sendall(PIECE)
