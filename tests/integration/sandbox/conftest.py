"""Fixtures for the sandbox: the running program, and its core in this process under a clock of the test's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from sandbox.core import ApiResponse, Client, Sandbox
from tests.support.sandbox_process import SandboxProcess

CLIENT_ID = "client-id"
REDIRECT_URI = "http://localhost:8000/rd/callback"


class Core:
    """The core, asked as a client would ask it, at the time `now` (Unix seconds)."""

    def __init__(self, state: Path | None = None, seed: int = 1) -> None:
        self.now = 1_800_000_000.0
        self._state = state
        self._seed = seed
        self.sandbox = self._open()

    def _open(self) -> Sandbox:
        client = Client(id=CLIENT_ID, secrets=("first-secret", "second-secret"), redirect_uri=REDIRECT_URI)
        return Sandbox(client, state=self._state, seed=self._seed, clock=lambda: self.now)

    def reopen(self) -> None:
        self.sandbox.close()
        self.sandbox = self._open()

    def call(self, method: str, target: str, body: object = None, **headers: str) -> ApiResponse:
        """A request whose body is sent as JSON."""
        encoded = b"" if body is None else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.sandbox.handle(method, target, {"Content-Type": "application/json", **names}, encoded)

    def patch(self, **settings: Any) -> None:
        response = self.call("PATCH", "/_sandbox", settings)
        assert response.status == 200, response.body

    def code(self, account: str = "default") -> str:
        form = urlencode({"client_id": CLIENT_ID, "redirect_uri": REDIRECT_URI, "account": account}).encode()
        response = self.sandbox.handle("POST", "/auth/dialog", body=form)
        return parse_qs(urlsplit(response.headers["Location"]).query)["code"][0]

    def token(self, **body: Any) -> ApiResponse:
        """`POST /auth/token` with good credentials unless `body` has others."""
        return self.call(
            "POST", "/auth/token", {"client_id": CLIENT_ID, "client_secret": "first-secret", **body}
        )

    def pair(self, account: str = "default") -> dict[str, Any]:
        response = self.token(code=self.code(account))
        assert response.status == 200, response.body
        pair: dict[str, Any] = response.json()
        return pair

    def get(self, target: str, access_token: str) -> ApiResponse:
        return self.call("GET", target, authorization=f"Bearer {access_token}")

    def send(self, method: str, target: str, access_token: str, body: object) -> ApiResponse:
        return self.call(method, target, body, authorization=f"Bearer {access_token}")

    def calls(self) -> dict[str, dict[str, int]]:
        calls: dict[str, dict[str, int]] = self.call("GET", "/_sandbox").json()["calls"]
        return calls


@pytest.fixture
def core() -> Iterator[Core]:
    core = Core()
    yield core
    core.sandbox.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """A sandbox that the tests of a module share."""
    with SandboxProcess(tmp_path_factory.mktemp("sandbox") / "state.db") as process:
        yield process


@pytest.fixture
def sandbox(running: SandboxProcess) -> SandboxProcess:
    """The shared sandbox, as if it had just been started for the first time."""
    running.reset()
    return running
