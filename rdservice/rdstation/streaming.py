"""Calls to RD Station whose bodies pass through piece by piece, for requests that a program has made up.

`rdservice.rdstation.client` makes all other requests to RD Station. Each call has a connection of its own, which ends
with it: what one caller makes the two servers misunderstand can never reach the answer of another, and a request
that could not be sent for certain was not sent.
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
from rdservice.rdstation import deadline
from rdservice.rdstation.client import (
    CALL_DEADLINE_S,
    CONNECT_TIMEOUT_S,
    ApiResponse,
    TransportError,
    new_session,
)
from rdservice.rdstation.deadline import RunningCall, Transport, WatchedTransport
from rdservice.rdstation.pipe import Pipe

OPERATION = "other"
PIECE_BYTES = 65_536
MAX_RESPONSE_BYTES = 50 * 1024 * 1024
SILENCE_S = 15.0
"""How long RD Station may send nothing in the middle of an answer."""
LOOK_S = 0.5
"""How often a call that waits for RD Station looks whether anybody still waits for its answer."""

Headers = tuple[tuple[str, str], ...]


@dataclass(kw_only=True)
class Upload:
    """A request's body: its `first` bytes, and `more`, which reads the rest from the caller and can do that only once.

    `length` in bytes; None: unknown until its end. `more` is None where `first` is all.
    """

    first: bytes = field(repr=False)
    length: int | None
    more: Iterator[bytes] | None = field(repr=False)
    begun: bool = False
    """Whether something of `more` was read."""

    @property
    def can_be_sent(self) -> bool:
        return self.more is None or not self.begun


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A request for RD Station. `target`: path and query exactly as they are sent; `headers` without the framing."""

    method: str
    target: str = field(repr=False)
    headers: Headers = field(repr=False)
    upload: Upload | None


class UploadBroken(Exception):
    """The caller's body did not come to its end; `__cause__` is what its reading raised."""


class IncompleteRead(Exception):
    """RD Station's answer began and did not come to its end: what was passed on so far is not all."""


class ClientDisconnected(Exception):
    """Whoever wanted the answer has gone before it began. `sent`: whether the request may have left."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__("nobody waits for the answer")
        self.sent = sent


class StreamedResponse:
    """An answer whose head has arrived. Whoever has it must `close` it, read to the end or not."""

    def __init__(
        self,
        head: ApiResponse,
        headers: Headers,
        body: Pipe,
        ends: float,
        is_connected: Callable[[], bool],
        on_end: Callable[[bool], None],
    ) -> None:
        """`headers`: all of the head, repeated ones too. `on_end` is told once whether the answer was broken."""
        self.head = head
        self.headers = headers
        self._body = body
        self._ends = ends
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

        Raises AnswerBroken, or NobodyWaits soon after whoever wanted it has gone.
        """
        try:
            while (piece := self._next()) is not None:
                yield piece
        except (TimeoutError, OSError, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            self._end(broken=True)
            raise IncompleteRead(f"RD Station's answer broke off ({type(error).__name__})") from error
        self._end(broken=False)

    def _next(self) -> bytes | None:
        while not self._body.wait(min(self._ends, time.monotonic() + LOOK_S)):
            if not self._is_connected():
                raise ClientDisconnected(sent=True)
            if time.monotonic() >= self._ends:
                break
        return self._body.take(self._ends)

    def close(self) -> None:
        """End the call, if it still runs."""
        self._end(broken=False)

    def _end(self, *, broken: bool) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(broken)


class StreamedCalls:
    """Makes such calls. Safe to use from many threads."""

    def __init__(
        self,
        settings: Settings,
        *,
        on_call: Callable[[ApiResponse | TransportError, float], None] = lambda _outcome, _seconds: None,
        transport: Transport | None = None,
    ) -> None:
        """`on_call`: as for RDStation; an answer's duration is that until its head."""
        self._api_url = settings.api_url
        self._on_call = on_call
        self._transport = transport or WatchedTransport()

    def send(
        self,
        outgoing: Outgoing,
        access_token: str,
        *,
        ends: float,
        is_connected: Callable[[], bool] = lambda: True,
    ) -> StreamedResponse:
        """Send a request; return when the head of its answer is there, while its body is still on its way.

        `ends`: monotonic moment at which all of it is over. `is_wanted` is asked now and then during waits; False ends
        the call. Raises NoAnswer, UploadBroken or NobodyWaits.
        """
        started = time.monotonic()
        request = self._prepared(outgoing, access_token)
        exchange = _Exchange(request, outgoing.upload, self._transport, ends)
        running = deadline.start(exchange.run, target=outgoing.target)

        def fail(kind: str) -> TransportError:
            transport_error = TransportError(OPERATION, kind, sent=running.sent)
            exchange.abandon(running)
            self._on_call(transport_error, time.monotonic() - started)
            return transport_error

        try:
            exchange.feed()
            exchange.wait_for_head(min(ends, time.monotonic() + CALL_DEADLINE_S), running, is_connected)
            head, headers = exchange.head.result(0)
        except (UploadBroken, ClientDisconnected):
            # Not RD Station's failures: they are not counted as such.
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

        return StreamedResponse(head, headers, exchange.down, ends, is_connected, on_end)

    def _prepared(self, outgoing: Outgoing, access_token: str) -> requests.PreparedRequest:
        request = requests.Request(outgoing.method, self._api_url).prepare()
        # `deadline.start` is told the target: the library would write its percent-encoding in another way.
        request.url = self._api_url + outgoing.target
        request.headers = CaseInsensitiveDict(
            {"User-Agent": "rdservice", **dict(outgoing.headers), "Connection": "close"}
        )
        request.headers["Authorization"] = f"Bearer {access_token}"
        if outgoing.upload is not None and outgoing.upload.length is not None:
            request.headers["Content-Length"] = str(outgoing.upload.length)
        return request


class _Exchange:
    """One request and its answer: `run` speaks with RD Station, all else belongs to the caller's thread."""

    def __init__(
        self, request: requests.PreparedRequest, upload: Upload | None, transport: Transport, ends: float
    ) -> None:
        self._request = request
        self._upload = upload
        self._transport = transport
        self._ends = ends
        self._up = Pipe()
        self._body_wanted_or_over = threading.Event()
        self.down = Pipe()
        self.head: Future[tuple[ApiResponse, Headers]] = Future()
        self.head.add_done_callback(self._want_no_more)

    def feed(self) -> None:
        """Read the rest of the body from the caller and hand it over, until RD Station has said enough."""
        if self._upload is None or self._upload.more is None:
            return
        # Until there is a connection the body stays whole for another attempt.
        self._body_wanted_or_over.wait(max(0.0, self._ends - time.monotonic()))
        if self.head.done():
            return
        self._upload.begun = True
        try:
            for piece in self._upload.more:
                if not self._up.put(piece, self._ends):
                    return
        except Exception as error:
            self._up.end(error)
            raise UploadBroken from error
        self._up.end()

    def wait_for_head(self, until: float, running: RunningCall, is_connected: Callable[[], bool]) -> None:
        """Wait until then at most. Raises NobodyWaits."""
        while not wait([self.head], max(0.0, min(LOOK_S, until - time.monotonic()))).done:
            if not is_connected():
                raise ClientDisconnected(sent=running.sent)
            if time.monotonic() >= until:
                break

    def abandon(self, running: RunningCall) -> None:
        """End whatever of the exchange still runs."""
        self.down.abandon()
        self._up.end(ConnectionError("the call was given up"))
        running.end()

    def run(self, running: RunningCall) -> None:
        try:
            with new_session(self._transport) as session:
                self._call(session, running)
        except Exception as error:  # noqa: BLE001 - it is raised again in the caller's thread
            if self.head.done():
                self.down.end(error)
            else:
                self.head.set_exception(error)

    def _call(self, session: requests.Session, running: RunningCall) -> None:
        # The library sends an iterator piece by piece; its annotation does not say so.
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
                    raise ConnectionError("the answer is larger than what is passed on")
                if not self.down.put(piece, self._ends):
                    raise TimeoutError("nobody took the answer")
        if not running.is_whole:
            raise TimeoutError("the answer was cut off")
        self.down.end()

    def _body(self) -> bytes | Iterator[bytes] | None:
        if self._upload is None:
            return None
        return self._upload.first if self._upload.more is None else self._stream(self._upload.first)

    def _stream(self, first: bytes) -> Iterator[bytes]:
        self._body_wanted_or_over.set()
        yield first
        while (piece := self._up.take(self._ends)) is not None:
            yield piece

    def _want_no_more(self, _: Future[tuple[ApiResponse, Headers]]) -> None:
        self._up.abandon()
        self._body_wanted_or_over.set()


def _pieces(raw: urllib3.response.BaseHTTPResponse) -> Iterator[bytes]:
    """Yield a body as it arrives, without undoing its content coding; read1 does not wait until a piece is full."""
    if getattr(raw, "chunked", False):
        yield from raw.stream(PIECE_BYTES, decode_content=False)
        return
    while piece := raw.read1(PIECE_BYTES, decode_content=False):
        yield piece
