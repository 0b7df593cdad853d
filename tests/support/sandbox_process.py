"""A sandbox in a process of its own, for tests of anything that talks to RD Station."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import requests

REPOSITORY = Path(__file__).resolve().parents[2]
READY = re.compile(r"sandbox ready (http://\S+)\n")


class SandboxProcess:
    """Starts `python -m sandbox` on a free port; a restart takes the same port again. A context manager."""

    def __init__(
        self,
        state: Path,
        *,
        client_id: str = "client-id",
        client_secret: str = "client-secret",
        redirect_uri: str = "http://localhost:8000/rd/callback",
        host: str = "127.0.0.1",
        seed: int = 1,
        log: Path | None = None,
    ) -> None:
        """`log`: a file for what it writes of each call; without one it writes nothing."""
        self.state = state
        self.client_id = client_id
        self.client_secret = client_secret
        self.redirect_uri = redirect_uri
        self.url = ""
        self._host = host
        self._port = 0
        self._seed = seed
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None, "the sandbox is not running"
        return self._process.pid

    def start(self, timeout_s: float = 20) -> None:
        """Start it and wait until it listens."""
        command = [sys.executable, "-m", "sandbox", "--host", self._host, "--port", str(self._port)]
        command += ["--state", str(self.state), "--seed", str(self._seed)]
        stderr = None
        if self._log is not None:
            command.append("--verbose")
            stderr = self._log.open("ab")
        self._process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=os.environ
            | {
                "SANDBOX_CLIENT_ID": self.client_id,
                "SANDBOX_CLIENT_SECRET": self.client_secret,
                "SANDBOX_REDIRECT_URI": self.redirect_uri,
            },
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            # Ctrl-C in a terminal is for the tests, which stop the sandbox themselves.
            start_new_session=True,
        )
        if stderr is not None:
            stderr.close()
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        line = self._process.stdout.readline() if readable else ""
        ready = READY.fullmatch(line)
        if ready is None:
            self.kill()
            raise RuntimeError(f"the sandbox did not start within {timeout_s} s; it said {line!r}")
        self.url = ready[1].replace("//0.0.0.0:", "//127.0.0.1:")
        self._port = urlsplit(self.url).port or 0

    def stop(self, timeout_s: float = 10) -> int | None:
        """End it with SIGTERM; returns its exit status, None if it was not running."""
        if self._process is None:
            return None
        self._process.terminate()
        return self._ended(timeout_s)

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._ended(10)

    def _ended(self, timeout_s: float) -> int:
        assert self._process is not None
        process, self._process = self._process, None
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            assert process.stdout is not None
            process.stdout.close()

    def report(self) -> dict[str, Any]:
        """The answer of `GET /_sandbox`."""
        return self._control("GET", "")

    def patch(self, **settings: Any) -> dict[str, Any]:
        """Change settings."""
        return self._control("PATCH", "", settings)

    def calls(self) -> dict[str, dict[str, int]]:
        """Calls by operation and status, as in `{"token_refresh": {"200": 3, "none": 1}, …}`."""
        calls: dict[str, dict[str, int]] = self.report()["calls"]
        return calls

    def revoke(self, account: str = "default") -> None:
        """Let the RD account take its consent back."""
        self._control("POST", "/revoke", {"account": account})

    def reset(self) -> None:
        """Back to the start values, with nothing granted."""
        self._control("POST", "/reset")

    def webhook(self, **event: Any) -> list[dict[str, Any]]:
        """Send an event; returns how each delivery went."""
        deliveries: list[dict[str, Any]] = self._control("POST", "/webhook", event)["deliveries"]
        return deliveries

    def code(self, account: str = "default") -> str:
        """Consent on behalf of the RD account, without a browser."""
        form = {"client_id": self.client_id, "redirect_uri": self.redirect_uri, "account": account}
        response = requests.post(f"{self.url}/auth/dialog", data=form, allow_redirects=False, timeout=10)
        return parse_qs(urlsplit(response.headers["Location"]).query)["code"][0]

    def pair(self, account: str = "default") -> dict[str, Any]:
        """A fresh `access_token`, `refresh_token` and `expires_in` of the RD account."""
        body = {
            "client_id": self.client_id,
            "client_secret": self.client_secret.split(",")[0],
            "code": self.code(account),
        }
        response = requests.post(f"{self.url}/auth/token", json=body, timeout=10)
        response.raise_for_status()
        pair: dict[str, Any] = response.json()
        return pair

    def wait_until(self, condition: str, timeout_s: float = 5) -> None:
        """Wait until the report's number named `condition` is zero, as in `wait_until("in_flight")`."""
        deadline = time.monotonic() + timeout_s
        while self.report()[condition]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{condition} of the sandbox did not become 0 within {timeout_s} s")
            time.sleep(0.01)

    def _control(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        response = requests.request(method, f"{self.url}/_sandbox{path}", json=body, timeout=30)
        if response.status_code != 200:
            raise ValueError(f"the sandbox refused {method} /_sandbox{path}: {response.text}")
        result: dict[str, Any] = response.json()
        return result
