"""Bytes to a server and the answers that come back, without an HTTP client that would mend them."""

import contextlib
import re
import socket
from dataclasses import dataclass

STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ")
PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Conversation:
    """All that the server sent until it closed the connection."""

    received: bytes

    @property
    def statuses(self) -> list[int]:
        """The status of each answer, interim ones (1xx) included."""
        return [int(code) for code in STATUS_LINE.findall(self.received)]


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def say(port: int, *parts: bytes) -> Conversation:
    """Send `parts` on one connection, end the sending side, and read until the server closes."""
    with connect(port) as connection:
        # It may refuse, and close, before it has read everything.
        with contextlib.suppress(OSError):
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
        return Conversation(read_all(connection))


def read_all(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received
