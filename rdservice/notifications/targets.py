"""Receivers of notifications: the URLs of NOTIFY_URLS, to which apprise sends messages.

apprise runs in its own process (`rdservice.notifications.apprise_process`), because it imports about two hundred
plug-ins. There they take no memory from the web processes and the worker, see none of the service's secrets, write
nothing to its log, and can be killed when they hang.
"""

import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from rdservice.config import notify_urls
from rdservice.config.problems import Problem

ROOT = Path(__file__).resolve().parents[2]
CHECK_WITHIN_S = 30.0
SEND_WITHIN_S = 30.0
HANDED_ON = re.compile(
    r"(?i)PATH|LANG|LC_.*|TZ|TMPDIR|(HTTPS?|ALL|NO)_PROXY|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
)
"""Environment variables that apprise's process inherits: none of the service's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One receiver. `key` identifies it in the database, `label` on pages and in logs; neither reveals the URL."""

    url: str = field(repr=False)
    key: str = field(repr=False)
    label: str


class SendFailed(Exception):
    """A message was not accepted. `error`: `timeout`, `connection`, `http_404` …, `invalid`, `refused`, `crashed`."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


def targets(urls: Sequence[str], secret_key: str) -> tuple[Target, ...]:
    """Return the targets of the URLs. `secret_key` keys the hashes, so that a URL cannot be found by guessing."""
    return tuple(
        Target(
            url=url,
            key=hmac.digest(secret_key.encode(), b"notify\0" + url.encode(), hashlib.sha256).hex()[:32],
            label=notify_urls.label(url),
        )
        for url in urls
    )


def unusable(urls: tuple[str, ...]) -> tuple[Problem, ...]:
    """Ask apprise which URLs it supports; return the problems of the others. Takes up to CHECK_WITHIN_S.

    Returns no problem when apprise does not respond in time: that is not an error in a setting.
    """
    try:
        usable = _usable(urls) if urls else ()
    except SendFailed:
        return ()
    return tuple(
        notify_urls.problem(number, notify_urls.why_unusable(url))
        for number, (url, good) in enumerate(zip(urls, usable, strict=True), start=1)
        if not good
    )


@lru_cache(maxsize=8)
def _usable(urls: tuple[str, ...]) -> tuple[bool, ...]:
    return tuple(_run({"do": "check", "urls": urls}, within_s=CHECK_WITHIN_S)["usable"])


def send(target: Target, title: str, body: str) -> None:
    """Send a message within SEND_WITHIN_S. Raises SendFailed."""
    response = _run({"do": "send", "url": target.url, "title": title, "body": body}, within_s=SEND_WITHIN_S)
    if response["error"] is not None:
        raise SendFailed(str(response["error"]))


def _run(request: Mapping[str, Any], *, within_s: float) -> dict[str, Any]:
    """Run apprise's process with one request; return its response. Raises SendFailed on a timeout or a crash."""
    environment = {name: value for name, value in os.environ.items() if HANDED_ON.fullmatch(name)}
    # Without NETRC, `requests` would send passwords from ~/.netrc.
    environment |= {"NETRC": os.devnull, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "rdservice.notifications.apprise_process", str(int(within_s) + 5)]
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command,
            input=json.dumps(request).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment,
            timeout=within_s,
            check=False,
        )
        response = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        # `from None`: the exception's text quotes the command's input and output.
        raise SendFailed("timeout") from None
    except (OSError, ValueError):
        raise SendFailed("crashed") from None
    if not isinstance(response, dict):
        raise SendFailed("crashed")
    return response
