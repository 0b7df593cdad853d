"""gunicorn's threaded worker, with limits on the threads that slow clients can occupy.

gunicorn assigns a thread to each new connection, and to each request from its first byte until the client has sent the
rest. As many incomplete requests as there are threads would block a process indefinitely (the "slowloris" attack).
Here, a silent connection occupies no thread, a request must arrive within READ_S, and at most half of the threads may
wait for clients. The other threads serve requests that have arrived completely, as they do behind a buffering proxy.
"""

import contextlib
import errno
import math
import select
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from selectors import EVENT_READ
from typing import Any, cast

from gunicorn.workers.gthread import TConn, ThreadWorker

SILENT_S = 10.0
"""How long a new connection may stay silent."""
READ_S = 10.0
"""How long a request may take to arrive, including its body. `ClientSocket.allow` gives large bodies more."""
WRITE_S = 20.0
"""How long a client may take to accept one chunk of a response."""


class Worker(ThreadWorker):
    """The value of gunicorn's setting `worker_class`."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._waiting_places = threading.BoundedSemaphore(max(1, self.cfg.threads // 2))

    def enqueue_req(self, conn: TConn) -> None:
        """Give the connection to a thread, or to the poller until its first byte arrives."""
        if not isinstance(conn.sock, ClientSocket):
            # Provides everything that gunicorn uses of a socket.
            conn.sock = cast(
                socket.socket,
                ClientSocket(conn.sock, self._waiting_places, is_stopping=lambda: not self.alive),
            )
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + SILENT_S
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self.on_pending_socket_readable, conn))


class ClientSocket:
    """A client socket with a read deadline. A client that misses it counts as disconnected; nothing more is read."""

    def __init__(
        self,
        sock: socket.socket,
        waiting_places: threading.BoundedSemaphore,
        *,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """`waiting_places` limits how many sockets may wait; `is_stopping`: whether the process was told to end."""
        self._sock = sock
        self._waiting_places = waiting_places
        self._is_stopping = is_stopping
        self._deadline = math.inf
        self._gone = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def setblocking(self, flag: bool) -> None:
        """Start the read deadline: gunicorn makes the socket blocking when a thread starts to read a request."""
        if flag:
            self._deadline = time.monotonic() + READ_S
        self._sock.setblocking(flag)

    def allow(self, seconds: float) -> None:
        """Set the read deadline to `seconds` from now, for a route that accepts large bodies."""
        self._deadline = time.monotonic() + seconds

    def may_go_on(self) -> bool:
        """Return whether to continue a long response: the client is connected and the process is not stopping."""
        return self.is_connected() and not self._is_stopping()

    def is_connected(self) -> bool:
        """Return whether the client is still connected. One that has closed its sending side counts as disconnected.

        Thread-safe.
        """
        if self._gone:
            return False
        poll = select.poll()
        poll.register(self._sock, select.POLLRDHUP)
        return not poll.poll(0)

    def cut(self) -> None:
        """End the connection at once, in both directions. Thread-safe: a write that waits for the client fails."""
        self._gone = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def recv(self, size: int) -> bytes:
        if self._gone:
            return b""
        before = self._sock.gettimeout()
        try:
            self._sock.settimeout(0)
            return self._sock.recv(size)
        except BlockingIOError:
            return self._wait_and_receive(size, math.inf if before is None else before)
        finally:
            self._sock.settimeout(before)

    def sendall(self, data: bytes) -> None:
        before = self._sock.gettimeout()
        try:
            self._sock.settimeout(WRITE_S)
            self._sock.sendall(data)
        except TimeoutError:
            raise BrokenPipeError(errno.EPIPE, "the client does not read the response") from None
        finally:
            self._sock.settimeout(before)

    def _wait_and_receive(self, size: int, gunicorn_bound_s: float) -> bytes:
        if not self._waiting_places.acquire(blocking=False):
            return self._give_up()
        try:
            left_s = self._deadline - time.monotonic()
            self._sock.settimeout(max(0.001, min(left_s, gunicorn_bound_s)))
            return self._sock.recv(size)
        except TimeoutError:
            if time.monotonic() < self._deadline:
                # gunicorn's own timeout, while it discards an unread body.
                raise
            return self._give_up()
        finally:
            self._waiting_places.release()

    def _give_up(self) -> bytes:
        """Stop reading. What the client sends later must never be parsed as its next request."""
        self._gone = True
        # Wakes the poller, which would otherwise keep the connection for the next request.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)
        return b""
