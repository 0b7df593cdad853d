"""Calls to RD Station with streamed bodies, for requests that programs compose.

`rdservice.rdstation.client` makes all other calls. Each streamed call has its own connection. So a request that the two
servers parse differently (request smuggling) cannot affect the response of another caller, and it is certain that a
request without a connection was not sent.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

import requests
import urllib3
from requests.structures import CaseInsensitiveDict

from rdservice.config.settings import Settings
from rdservice.rdstation.client import (
    CALL_DEADLINE_S,
    CONNECT_TIMEOUT_S,
    ApiResponse,
    TransportError,
    new_session,
)
from rdservice.rdstation.deadline import RunningCall, Transport, WatchedTransport, start_call
from rdservice.rdstation.pipe import Pipe

OPERATION = "other"
PIECE_BYTES = 65_536
MAX_RESPONSE_BYTES = 50 * 1024 * 1024
SILENCE_S = 15.0
"""Longest pause of RD Station in the middle of a response."""
LOOK_S = 0.5
"""How often a call that waits for RD Station checks that its client is still connected."""

Headers = tuple[tuple[str, str], ...]


@dataclass(kw_only=True)
class Upload:
    """A request's body: its `first` bytes, and `more`, an iterator that reads the rest from the client.

    `length` in bytes; None: unknown until the end. `more` is None if `first` is the whole body.
    """

    first: bytes = field(repr=False)
    length: int | None
    more: Iterator[bytes] | None = field(repr=False)
    begun: bool = False
    """Whether `more` has been read from, so that the body cannot be sent again."""

    @property
    def can_be_sent(self) -> bool:
        return self.more is None or not self.begun


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A request for RD Station.

    `target`: path and query, exactly as they are sent. `headers`: without those about the length of the body.
    """

    method: str
    target: str = field(repr=False)
    headers: Headers = field(repr=False)
    upload: Upload | None


class UploadBroken(Exception):
    """The client's body ended early; `__cause__` is the exception that reading it raised."""


class IncompleteRead(Exception):
    """RD Station's response ended early: the pieces so far are not the whole body."""


class ClientDisconnected(Exception):
    """The client disconnected before its response was complete. `sent`: the request may have been sent."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__("the client has disconnected")
        self.sent = sent


class StreamedResponse:
    """A response whose head has arrived. Always `close` it, whether or not you read the body to its end."""

    def __init__(
        self,
        head: ApiResponse,
        headers: Headers,
        body: Pipe,
        deadline: float,
        is_connected: Callable[[], bool],
        on_end: Callable[[bool], None],
    ) -> None:
        """`headers`: all header fields, repeated ones too. `on_end` is called once: True if the body was incomplete."""
        self.head = head
        self.headers = headers
        self._body = body
        self._deadline = deadline
        self._is_connected = is_connected
        self._on_end: Callable[[bool], None] | None = on_end

    @property
    def status(self) -> int:
        return self.head.status

    @property
    def retry_after_s(self) -> float | None:
        return self.head.retry_after_s

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it arrives, in RD Station's content coding.

        Raises IncompleteRead, or ClientDisconnected soon after the client has gone.
        """
        try:
            while (piece := self._next()) is not None:
                yield piece
        except (TimeoutError, OSError, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            self._end(broken=True)
            raise IncompleteRead(f"RD Station's response ended early ({type(error).__name__})") from error
        self._end(broken=False)

    def _next(self) -> bytes | None:
        while not self._body.wait(min(self._deadline, time.monotonic() + LOOK_S)):
            if not self._is_connected():
                raise ClientDisconnected(sent=True)
            if time.monotonic() >= self._deadline:
                break
        return self._body.take(self._deadline)

    def close(self) -> None:
        """End the call if it still runs."""
        self._end(broken=False)

    def _end(self, *, broken: bool) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(broken)


class StreamedCalls:
    """Makes calls with streamed bodies. Safe to use from many threads."""

    def __init__(
        self,
        settings: Settings,
        *,
        on_call: Callable[[ApiResponse | TransportError, float], None] = lambda _outcome, _seconds: None,
        transport: Transport | None = None,
    ) -> None:
        """`on_call` is that of `RDStation`; the duration is the time until the head of the response."""
        self._api_url = settings.api_url
        self._on_call = on_call
        self._transport = transport or WatchedTransport()

    def send(
        self,
        outgoing: Outgoing,
        access_token: str,
        *,
        deadline: float,
        is_connected: Callable[[], bool] = lambda: True,
    ) -> StreamedResponse:
        """Send a request; return as soon as the head of the response has arrived. Its body follows.

        `deadline`: the monotonic time at which the whole call ends. `is_connected` is called every `LOOK_S` seconds
        during waits; False ends the call. Raises TransportError, UploadBroken or ClientDisconnected.
        """
        started = time.monotonic()
        request = self._prepared(outgoing, access_token)
        exchange = _Exchange(request, outgoing.upload, self._transport, deadline)
        running = start_call(exchange.run, target=outgoing.target)

        def fail(kind: str) -> TransportError:
            transport_error = TransportError(OPERATION, kind, sent=running.sent)
            exchange.abandon(running)
            self._on_call(transport_error, time.monotonic() - started)
            return transport_error

        try:
            exchange.feed()
            exchange.wait_for_head(min(deadline, time.monotonic() + CALL_DEADLINE_S), running, is_connected)
            head, headers = exchange.head.result(0)
        except (UploadBroken, ClientDisconnected):
            # These are not failures of RD Station and are not counted as such.
            exchange.abandon(running)
            raise
        except (TimeoutError, requests.Timeout) as error:
            raise fail("timeout") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise fail("connection") from error
        except BaseException:
            exchange.abandon(running)
            raise
        head_after_s = time.monotonic() - started

        def on_end(broken: bool) -> None:
            exchange.abandon(running)
            self._on_call(
                TransportError(OPERATION, "connection", sent=True) if broken else head, head_after_s
            )

        return StreamedResponse(head, headers, exchange.down, deadline, is_connected, on_end)

    def _prepared(self, outgoing: Outgoing, access_token: str) -> requests.PreparedRequest:
        request = requests.Request(outgoing.method, self._api_url).prepare()
        # `start_call` gets the target too: the library would change its percent-encoding.
        request.url = self._api_url + outgoing.target
        request.headers = CaseInsensitiveDict(
            {"User-Agent": "rdservice", **dict(outgoing.headers), "Connection": "close"}
        )
        request.headers["Authorization"] = f"Bearer {access_token}"
        if outgoing.upload is not None and outgoing.upload.length is not None:
            request.headers["Content-Length"] = str(outgoing.upload.length)
        return request


class _Exchange:
    """One request and its response. `run` talks to RD Station in its own thread; the caller's thread does the rest."""

    def __init__(
        self, request: requests.PreparedRequest, upload: Upload | None, transport: Transport, deadline: float
    ) -> None:
        self._request = request
        self._upload = upload
        self._transport = transport
        self._deadline = deadline
        self._up = Pipe()
        self._body_wanted_or_over = threading.Event()
        self.down = Pipe()
        self.head: Future[tuple[ApiResponse, Headers]] = Future()
        self.head.add_done_callback(self._want_no_more)

    def feed(self) -> None:
        """Read the rest of the body from the client and pass it on, until RD Station has responded."""
        if self._upload is None or self._upload.more is None:
            return
        # Do not read from the client before there is a connection: the body stays available for another attempt.
        self._body_wanted_or_over.wait(max(0.0, self._deadline - time.monotonic()))
        if self.head.done():
            return
        self._upload.begun = True
        try:
            for piece in self._upload.more:
                if not self._up.put(piece, self._deadline):
                    return
        except Exception as error:
            self._up.end(error)
            raise UploadBroken from error
        self._up.end()

    def wait_for_head(self, deadline: float, running: RunningCall, is_connected: Callable[[], bool]) -> None:
        """Wait for the head of the response until `deadline` at most. Raises ClientDisconnected."""
        while not wait([self.head], max(0.0, min(LOOK_S, deadline - time.monotonic()))).done:
            if not is_connected():
                raise ClientDisconnected(sent=running.sent)
            if time.monotonic() >= deadline:
                break

    def abandon(self, running: RunningCall) -> None:
        """End all parts of the exchange that still run."""
        self.down.abandon()
        self._up.end(ConnectionError("the call was given up"))
        running.end()

    def run(self, running: RunningCall) -> None:
        try:
            with new_session(self._transport) as session:
                self._call(session, running)
        except Exception as error:  # noqa: BLE001 - the caller's thread raises it
            if self.head.done():
                self.down.end(error)
            else:
                self.head.set_exception(error)

    def _call(self, session: requests.Session, running: RunningCall) -> None:
        # The library sends an iterator piece by piece, although its annotation does not allow one.
        self._request.body = self._body()  # type: ignore[assignment]
        around = session.merge_environment_settings(self._request.url, {}, True, None, None)
        with session.send(
            self._request, timeout=(CONNECT_TIMEOUT_S, SILENCE_S), allow_redirects=False, **around
        ) as response:
            headers = tuple((str(name), str(value)) for name, value in response.raw.headers.items())
            head = ApiResponse(
                operation=OPERATION, status=response.status_code, headers=response.headers, body=b""
            )
            self.head.set_result((head, headers))
            passed = 0
            for piece in _pieces(response.raw):
                passed += len(piece)
                if passed > MAX_RESPONSE_BYTES:
                    raise ConnectionError("the response is too large")
                if not self.down.put(piece, self._deadline):
                    raise TimeoutError("the client did not read the response in time")
        if not running.is_whole:
            raise TimeoutError("the response was cut off")
        self.down.end()

    def _body(self) -> bytes | Iterator[bytes] | None:
        if self._upload is None:
            return None
        return self._upload.first if self._upload.more is None else self._stream(self._upload.first)

    def _stream(self, first: bytes) -> Iterator[bytes]:
        self._body_wanted_or_over.set()
        yield first
        while (piece := self._up.take(self._deadline)) is not None:
            yield piece

    def _want_no_more(self, _: Future[tuple[ApiResponse, Headers]]) -> None:
        self._up.abandon()
        self._body_wanted_or_over.set()


def _pieces(raw: urllib3.response.BaseHTTPResponse) -> Iterator[bytes]:
    """Yield a body as it arrives, in its content coding. read1 does not wait until a piece is full."""
    if getattr(raw, "chunked", False):
        yield from raw.stream(PIECE_BYTES, decode_content=False)
        return
    while piece := raw.read1(PIECE_BYTES, decode_content=False):
        yield piece
