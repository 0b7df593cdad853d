"""A browser for tests: Flask's test client with a client address, a language and the pages' CSRF token."""

import re
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class Browser:
    """One browser with its cookies."""

    def __init__(
        self, app: Flask, *, address: str = "192.0.2.1", language: str = "en", accept: str = HTML
    ) -> None:
        self.client = app.test_client()
        self.address = address
        self.headers = {"Accept": accept, "Accept-Language": language}

    def get(self, path: str, headers: dict[str, str] | None = None, **more: Any) -> TestResponse:
        return self.open("GET", path, headers, **more)

    def open(
        self, method: str, path: str, headers: dict[str, str] | None = None, **more: Any
    ) -> TestResponse:
        environ = {"REMOTE_ADDR": self.address, **more.pop("environ_overrides", {})}
        return self.client.open(
            path,
            method=method,
            headers=self.headers | (headers or {}),
            environ_overrides=environ,
            buffered=True,
            **more,
        )

    def submit(self, path: str, page: str = "/login", **fields: str) -> TestResponse:
        """Post a form with the CSRF token of `page`."""
        return self.open("POST", path, data={"csrf_token": self.csrf_token(page), **fields})

    def csrf_token(self, page: str = "/login") -> str:
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.get(page).text)
        assert found, f"{page} has no CSRF token"
        return found[1]

    def log_in(self, email: str, password: str, **fields: str) -> TestResponse:
        return self.submit("/login", email=email, password=password, **fields)
