"""gunicorn's threaded worker, with a bound on what slow clients can hold.

gunicorn gives a thread to each new connection and to each request from its first byte, for as long as the client takes
to send the rest: as many half requests as there are threads stop a process for good. Here a connection that says
nothing holds no thread, a request must have arrived within READ_S, and only half of the threads may wait for clients
at all. The others answer what has arrived whole, as everything does that comes through a proxy which buffers.
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
"""How long a new connection may say nothing."""
READ_S = 10.0
"""How long a request may take to arrive, with its body (64 KiB at most, but see `ClientSocket.allow`)."""
WRITE_S = 20.0
"""How long a client may take to accept a piece of an answer."""


class Worker(ThreadWorker):
    """The worker class for gunicorn's settings."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._waiting_places = threading.BoundedSemaphore(max(1, self.cfg.threads // 2))

    def enqueue_req(self, conn: TConn) -> None:
        """Hand the connection to a thread, or, before its first byte, to the poller."""
        if not isinstance(conn.sock, ClientSocket):
            # It has all that gunicorn asks of a socket.
            conn.sock = cast(
                socket.socket, ClientSocket(conn.sock, self._waiting_places, ends=lambda: not self.alive)
            )
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + SILENT_S
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self.on_pending_socket_readable, conn))


class ClientSocket:
    """A client's socket whose patience ends. Whoever is too slow has gone: from then on nothing more is read."""

    def __init__(
        self,
        sock: socket.socket,
        waiting_places: threading.BoundedSemaphore,
        *,
        ends: Callable[[], bool] = lambda: False,
    ) -> None:
        """`ends` tells whether the process has been told to end."""
        self._sock = sock
        self._waiting_places = waiting_places
        self._ends = ends
        self._deadline = math.inf
        self._gone = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def setblocking(self, flag: bool) -> None:
        """gunicorn makes the socket blocking when a thread begins with a request: its time runs from there."""
        if flag:
            self._deadline = time.monotonic() + READ_S
        self._sock.setblocking(flag)

    def allow(self, seconds: float) -> None:
        """Give the request that is being read `seconds` from now to arrive, for a route that takes large bodies."""
        self._deadline = time.monotonic() + seconds

    def may_go_on(self) -> bool:
        """Return whether a long answer makes sense: the client is there, and the process need not end."""
        return self.is_connected() and not self._ends()

    def is_connected(self) -> bool:
        """Return whether the client still waits. One that sends nothing more counts as gone.

        Safe to call from other threads than the one that answers.
        """
        if self._gone:
            return False
        poll = select.poll()
        poll.register(self._sock, select.POLLRDHUP)
        return not poll.poll(0)

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
            raise BrokenPipeError(errno.EPIPE, "the client does not read its answer") from None
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
                # gunicorn's own bound, on a body that nobody has read.
                raise
            return self._give_up()
        finally:
            self._waiting_places.release()

    def _give_up(self) -> bytes:
        """Read nothing more. What the client may still send must never be taken for its next request."""
        self._gone = True
        # Wakes the poller, which would otherwise keep the connection for the next request.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)
        return b""
