"""A router in front of web processes, as a platform has one: each request goes to the next of them."""

import contextlib
import itertools
import ssl
from collections import Counter
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Self

import requests

FORWARDED = ("Authorization", "Accept")


class Backend:
    """A web process. With a session whose kept connection leads to one gunicorn worker, it is that worker."""

    def __init__(self, url: str, session: requests.Session | None = None) -> None:
        self.url = url
        self._session = session or requests.Session()
        self._lock = Lock()

    def get(self, path: str, headers: dict[str, str]) -> requests.Response:
        with self._lock:
            return self._session.get(self.url + path, headers=headers, timeout=20)


class Router:
    """Passes GET requests on, with headers about them, at `address`; with a `certificate` it ends https.

    Assign `backends` to change where they go. `answered` counts the answers by the backend's place in the row and the
    status; 502 is the router's own, when a backend did not answer.
    """

    def __init__(self, backends: Sequence[Backend], *, certificate: Path | None = None) -> None:
        self.backends = list(backends)
        self.answered: Counter[tuple[int, int]] = Counter()
        self._turns = itertools.count()
        router = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, content_type, body = router.ask(self.path, self._headers_to_pass())
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                # Who asked may have given up meanwhile.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.wfile.write(body)

            def _headers_to_pass(self) -> dict[str, str]:
                passed = {name: self.headers[name] for name in FORWARDED if name in self.headers}
                about = {"X-Forwarded-For": self.client_address[0], "X-Forwarded-Proto": "https"}
                return passed | about

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                """Say nothing of requests."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.address = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def ask(self, path: str, headers: dict[str, str]) -> tuple[int, str, bytes]:
        """Return status, content type and body of the next backend's answer."""
        backends = self.backends
        place = next(self._turns) % len(backends)
        try:
            response = backends[place].get(path, headers)
        except requests.RequestException:
            self.answered[place, 502] += 1
            return 502, "text/plain", b"no answer"
        self.answered[place, response.status_code] += 1
        return response.status_code, response.headers["Content-Type"], response.content
