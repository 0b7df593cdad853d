"""A small load generator for machines without wrk: `python -m dev.benchmarks.http_client`.

Takes one JSON object on standard input (`url`, `headers`, `connections`, `seconds`), keeps that many connections busy
with GET requests, one at a time on each, and prints `{"requests", "seconds", "errors"}`. One thread and no HTTP
library: the load generator shares the processor with what it measures. It supports only responses with Content-Length.
"""

import json
import re
import selectors
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
CONNECT_S = 5.0


class Connection:
    """A persistent connection with one GET request in flight."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 80), CONNECT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = _request(parts, headers)
        self._received = b""
        self.body = b""
        """Of the last complete response."""

    def send(self) -> None:
        self._received = b""
        self.socket.sendall(self._request)

    def receive(self) -> bool | None:
        """Read what has arrived. Return None while the response is incomplete, else whether its status is 200."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return None
        length = LENGTH.search(head + b"\r\n")
        if length is None:
            raise ValueError("a response without Content-Length")
        if len(body) < int(length[1]):
            return None
        self.body = body
        return head.startswith(b"HTTP/1.1 200 ")


def _request(url: SplitResult, headers: Mapping[str, str]) -> bytes:
    path = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
    lines = [f"GET {path} HTTP/1.1", f"Host: {url.netloc}", *(f"{name}: {headers[name]}" for name in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def make_load(url: str, headers: Mapping[str, str], connections: int, seconds: float) -> dict[str, Any]:
    """Send requests for `seconds`; return the number of responses, and of those with a status other than 200."""
    requests = errors = 0
    with selectors.DefaultSelector() as selector:
        opened = [Connection(url, headers) for _ in range(connections)]
        started = time.monotonic()
        for connection in opened:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send()
        while (left := started + seconds - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                ok = key.data.receive()
                if ok is not None:
                    requests += 1
                    errors += not ok
                    key.data.send()
        took = time.monotonic() - started
        for connection in opened:
            connection.socket.close()
    return {"requests": requests, "seconds": took, "errors": errors}


if __name__ == "__main__":
    print(json.dumps(make_load(**json.load(sys.stdin))))
