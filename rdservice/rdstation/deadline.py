"""A deadline for a whole outgoing call, enforced from outside the HTTP library.

The timeouts of `requests` bound single waits for the socket, so a peer that sends a byte now and then can hold a call
for hours. Here the call runs in a thread. At the deadline its socket is shut down, which ends every wait on it; a
connection that is still being made is closed before anything is sent on it.
"""

import functools
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, cast

import certifi
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

T = TypeVar("T")

READ_ARRIVED_S = 1.0
"""Extra time for reading a response that has arrived by the deadline. Without one, the call ends immediately."""


class DeadlineExceeded(Exception):
    """The call did not end by its deadline."""


class CallFailed(Exception):
    """A bounded call did not return. `__cause__` is DeadlineExceeded, or the exception that the call raised.

    `sent`: there was a connection, so the request may have been sent.
    """

    def __init__(self, *, sent: bool) -> None:
        super().__init__("the call failed")
        self.sent = sent


class _Watch:
    """Holds the socket of one call and ends it at the deadline."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._expired = False
        self.target: str | None = None
        """The request target to send unchanged; the library would normalize it."""
        self.length_known = False
        """Whether the response tells its length. If not, a truncated response looks complete: http.client takes the end
        of the connection for the end of the body or of the headers."""

    @property
    def connected(self) -> bool:
        return self._socket is not None

    @property
    def expired(self) -> bool:
        return self._expired

    def hold(self, connected: socket.socket) -> None:
        with self._lock:
            if self._expired:
                connected.close()
                raise TimeoutError("the deadline passed before anything was sent")
            self._socket = connected

    def expire(self) -> None:
        with self._lock:
            self._expired = True
            if self._socket is None:
                return
            try:
                # Not SSLSocket.shutdown(), which changes the TLS object under the reading thread.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
            except OSError:
                # The peer or the reading thread has closed it already.
                return


class _Outcome(Generic[T]):
    """The result of a call's thread."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.value: T | None = None
        self.error: BaseException | None = None


class Transport(Protocol):
    """Sends calls and bounds their duration. The simulation has its own."""

    def adapter(self, *, keeps_connections: bool = True) -> BaseAdapter:
        """Return the adapter that sends the requests of a `requests` session.

        `keeps_connections`: whether a request may reuse the connection of an earlier one.
        """

    def bounded(self, seconds: float, call: Callable[[], T]) -> T:
        """Run `call`, which sends through an `adapter`, and return its result within `seconds`. Raises CallFailed."""


_current = threading.local()


def bounded(seconds: float, call: Callable[[], T]) -> T:
    """Run `call`, which sends through a `WatchedAdapter`, and return its result within `seconds` (+ READ_ARRIVED_S).

    Raises CallFailed at the deadline, or when the call raises.
    """
    watch, outcome = _Watch(), _Outcome[T]()
    # A daemon thread: a name server that never responds must not keep the process from ending.
    threading.Thread(target=_run, args=(call, watch, outcome), name="rdstation-call", daemon=True).start()
    if not outcome.done.wait(seconds):
        watch.expire()
        # A response that has arrived is used nevertheless. After a process was stopped for a while, the response is in
        # the socket, readable even after the shutdown, and it may hold the only valid refresh token.
        arrived = watch.connected and outcome.done.wait(READ_ARRIVED_S) and outcome.error is None
        if not (arrived and watch.length_known):
            raise CallFailed(sent=watch.connected) from DeadlineExceeded(
                f"no response within {seconds:.0f} s"
            )
    if outcome.error is not None:
        raise CallFailed(sent=watch.connected) from outcome.error
    return cast(T, outcome.value)


def _run(call: Callable[[], T], watch: _Watch, outcome: _Outcome[T]) -> None:
    _current.watch = watch
    try:
        outcome.value = call()
    except BaseException as error:  # noqa: BLE001 - the thread that waits for the result raises it
        outcome.error = error
    finally:
        outcome.done.set()


class RunningCall:
    """A call that runs in its own thread until it returns or `end` is called."""

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch

    @property
    def sent(self) -> bool:
        """Whether there was a connection, so that the request may have been sent."""
        return self._watch.connected

    @property
    def is_whole(self) -> bool:
        """Whether a response that has ended is complete: it told its length, or `end` was not called."""
        return self._watch.length_known or not self._watch.expired

    def end(self) -> None:
        """End every wait of the call. A connection that is still being made is closed before anything is sent."""
        self._watch.expire()


def start_call(call: Callable[[RunningCall], None], *, target: str) -> RunningCall:
    """Start `call`, which sends one request to `target` through a `WatchedAdapter` on its own connection.

    The caller enforces the deadline by calling `end`. `call` must report its errors itself.
    """
    watch = _Watch()
    watch.target = target
    running = RunningCall(watch)
    run = functools.partial(_run, functools.partial(call, running), watch, _Outcome[None]())
    threading.Thread(target=run, name="rdstation-stream", daemon=True).start()
    return running


class _Watched(HTTPConnection):
    """A connection that hands its socket to the watch of the current call. Base of both kinds."""

    def connect(self) -> None:
        super().connect()
        self._show()

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        # The connection may be a kept one: then there was no `connect` in this call.
        self._show()
        watch: _Watch | None = getattr(_current, "watch", None)
        # A proxy for plain HTTP gets the whole URL.
        if watch is not None and watch.target is not None and url.startswith("/"):
            url = watch.target
        super().putrequest(method, url, *args, **kwargs)

    def _show(self) -> None:
        watch: _Watch | None = getattr(_current, "watch", None)
        if watch is not None and self.sock is not None:
            watch.hold(self.sock)


class _WatchedHTTPSConnection(_Watched, HTTPSConnection):
    pass


class _WatchedHTTPPool(HTTPConnectionPool):
    ConnectionCls = _Watched


class _WatchedHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedHTTPSConnection


class _KeepsNone(HTTPConnectionPool):
    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.close()


class _SingleUseHTTPPool(_KeepsNone, _WatchedHTTPPool):
    pass


class _SingleUseHTTPSPool(_KeepsNone, _WatchedHTTPSPool):
    pass


KEEPING_POOLS = {"http": _WatchedHTTPPool, "https": _WatchedHTTPSPool}
SINGLE_USE_POOLS = {"http": _SingleUseHTTPPool, "https": _SingleUseHTTPSPool}


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """Return the TLS context of all connections: loading the certificates again would cost more than a handshake."""
    return ssl.create_default_context(cafile=certifi.where())


class WatchedAdapter(HTTPAdapter):
    """A transport for `requests` whose connections end at the deadline of `bounded`. It never retries."""

    def __init__(self, *, keeps_connections: bool = True) -> None:
        self._pools = KEEPING_POOLS if keeps_connections else SINGLE_USE_POOLS
        super().__init__(pool_maxsize=32 if keeps_connections else 1)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=_tls_context(), **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, ssl_context=_tls_context(), **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = self._pools
        return manager

    def build_response(self, req: Any, resp: Any) -> Any:
        watch: _Watch | None = getattr(_current, "watch", None)
        if watch is not None:
            watch.length_known = resp.chunked or resp.length_remaining is not None
        return super().build_response(req, resp)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        # For True the context above does it; a path comes from REQUESTS_CA_BUNDLE.
        if verify is not True:
            super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]


class WatchedTransport:
    """The transport of a real process: calls run in threads, with sockets."""

    def adapter(self, *, keeps_connections: bool = True) -> BaseAdapter:
        return WatchedAdapter(keeps_connections=keeps_connections)

    def bounded(self, seconds: float, call: Callable[[], T]) -> T:
        return bounded(seconds, call)
