"""A receiver of the service's own notifications."""

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Self


class Inbox:
    """A context manager: a web server on this machine that takes notifications only while `accepts` is true."""

    def __init__(self) -> None:
        inbox = self
        self.accepts = True

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(HTTPStatus.OK if inbox.accepts else HTTPStatus.SERVICE_UNAVAILABLE)
                self.end_headers()

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                """Say nothing of requests."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, name="inbox", daemon=True)

    @property
    def notify_url(self) -> str:
        """Where it is, as NOTIFY_URLS has it."""
        return f"json://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
