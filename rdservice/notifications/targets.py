"""Where notifications go: the apprise URLs of NOTIFY_URLS, which hold passwords and tokens.

apprise itself runs in a process of its own (`rdservice.notifications.apprise_process`). It imports some two hundred
plug-ins: there they take no memory from the web processes and the worker, see none of the service's secrets, write
nothing into its log, and are ended when they hang.
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
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[2]
CHECK_WITHIN_S = 30.0
SEND_WITHIN_S = 30.0
SHORTEST_PART = 10
"""Shorter parts of a URL are no secrets of their own, or are words that logs need."""

SEPARATOR = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+]*://)|\s+|,+$")
"""A comma alone may stand inside of a URL: it separates only before the next scheme."""
DOMAIN = re.compile(r"(?i)(?:[a-z0-9-]+\.)+[a-z]{2,}")
HANDED_ON = re.compile(
    r"(?i)PATH|LANG|LC_.*|TZ|TMPDIR|(HTTPS?|ALL|NO)_PROXY|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
)
"""Names of the environment variables that the sending process gets: none of the service's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One receiver. `key` names it in the database, `label` before people; neither tells the URL."""

    url: str = field(repr=False)
    key: str = field(repr=False)
    label: str


class SendFailed(Exception):
    """A message was not accepted. `error`: timeout, connection, http_404 …, invalid, refused, crashed."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


def split(text: str) -> tuple[str, ...]:
    """Return the URLs of a list that white space, or commas before a scheme, separate; each once."""
    return tuple(dict.fromkeys(part.strip(",") for part in SEPARATOR.split(text) if part.strip(",")))


def targets(urls: Sequence[str], secret_key: str) -> tuple[Target, ...]:
    """Return the targets of the URLs. `secret_key` keys the hashes, so that nobody finds a URL by guessing."""
    return tuple(
        Target(
            url=url,
            key=hmac.digest(secret_key.encode(), b"notify\0" + url.encode(), hashlib.sha256).hex()[:32],
            label=label(url),
        )
        for url in urls
    )


def label(url: str) -> str:
    """Return the scheme and, where it is a name on the Internet, the masked host: `jsons://ho….com`.

    In many of apprise's URLs a token stands in the host's place.
    """
    scheme, _, rest = url.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2].partition(":")[0]
    if not DOMAIN.fullmatch(host):
        return f"{scheme.lower()}://…"
    return f"{scheme.lower()}://{host[:2]}….{host.rpartition('.')[2]}".lower()


def secrets_in(urls: Sequence[str]) -> set[str]:
    """Return each URL and the parts of it that may be a password or a token: what no log may hold."""
    found = set(urls)
    for url in urls:
        rest = url.partition("://")[2]
        for part in re.split(r"[/?#&=@:,]", rest):
            if len(part) >= SHORTEST_PART and not DOMAIN.fullmatch(part):
                found |= {part, unquote(part)}
        userinfo = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[0]
        if userinfo:
            found |= {userinfo, userinfo.partition(":")[2] or userinfo}
    return found


@lru_cache(maxsize=8)
def mistakes(urls: tuple[str, ...]) -> tuple[str | None, ...]:
    """Return what is wrong with each URL, without any of its text; None where apprise can use it.

    A machine on which apprise does not answer in time gets no verdict: that is no mistake in a setting.
    """
    found = [_known_mistake(url) for url in urls]
    unknown = [url for url, mistake in zip(urls, found, strict=True) if mistake is None]
    try:
        usable = _run({"do": "check", "urls": unknown}, within_s=CHECK_WITHIN_S)["usable"] if unknown else []
    except SendFailed:
        usable = [True] * len(unknown)
    refused = {url for url, good in zip(unknown, usable, strict=True) if not good}
    return tuple(
        mistake or (_why_unusable(url) if url in refused else None)
        for url, mistake in zip(urls, found, strict=True)
    )


def send(target: Target, title: str, body: str) -> None:
    """Send a message, within 30 s. Raises SendFailed."""
    answer = _run({"do": "send", "url": target.url, "title": title, "body": body}, within_s=SEND_WITHIN_S)
    if answer["error"] is not None:
        raise SendFailed(str(answer["error"]))


def _known_mistake(url: str) -> str | None:
    if "://" not in url:
        if re.fullmatch(r"[^@\s]+@[^@\s]+", url):
            return "is an e-mail address; write mailtos://user:password@host?to=address"
        return "has no scheme, such as mailtos:// or slack://"
    return None


def _why_unusable(url: str) -> str:
    scheme = url.partition("://")[0].lower()
    if scheme in {"http", "https"}:
        return f"is an ordinary web address; for a webhook write json{scheme[4:]}:// in place of {scheme}://"
    return "is none that apprise can use: unknown scheme, or parts are missing (see the README)"


def _run(question: Mapping[str, Any], *, within_s: float) -> dict[str, Any]:
    """Ask apprise's process. Raises SendFailed when it does not answer in time, or not at all."""
    environment = {name: value for name, value in os.environ.items() if HANDED_ON.fullmatch(name)}
    # requests would send a password of ~/.netrc along.
    environment |= {"NETRC": os.devnull, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "rdservice.notifications.apprise_process", str(int(within_s) + 5)]
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command,
            input=json.dumps(question).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment,
            timeout=within_s,
            check=False,
        )
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        # Without its text, which quotes the command's input and output.
        raise SendFailed("timeout") from None
    except (OSError, ValueError):
        raise SendFailed("crashed") from None
    if not isinstance(answer, dict):
        raise SendFailed("crashed")
    return answer
