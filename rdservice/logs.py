"""Logging of a process: JSON lines in production, readable lines otherwise; on stderr, and free of secrets.

Nothing here replaces care where a line is written. It is the second fence: messages of PostgreSQL errors, which quote
values, are cut down to what names the error, and what looks like a secret or an e-mail address is blotted out.
"""

import json
import logging
import re
import traceback
from collections.abc import Callable
from datetime import UTC, datetime

import psycopg
from flask import g, has_app_context

from rdservice.settings import Settings

BLOT = "[removed]"
LOOKS_SECRET = re.compile(
    r"rdk_[a-z2-7]{8}_[\w-]+"
    r"|eyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?"  # a JSON Web Token
    r"|(?i:(?<=bearer )[\w.~+/=-]{8,})"
    r"|(?<=://)[^\s/:@]*:[^\s/@]+(?=@)"  # user and password in a URL
    r"|[\w.+-]+(?:@|%40)[\w-]+(?:\.[\w-]+)+"
)


def configure(settings: Settings) -> None:
    """Send all loggers of this process, from INFO on, to stderr in the form for its environment. Safe twice."""
    secrets = {
        *settings.client_secrets,
        settings.secret_key,
        *(key.decode() for key in settings.encryption_keys),
    }
    if settings.metrics_token:
        secrets.add(settings.metrics_token)
    exact = re.compile("|".join(re.escape(secret) for secret in sorted(secrets, key=len, reverse=True)))

    def redact(text: str) -> str:
        text = exact.sub(BLOT, text)
        return LOOKS_SECRET.sub(BLOT, text) if _may_look_secret(text) else text

    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(redact) if settings.production else ReadableFormatter(redact))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)


def _may_look_secret(text: str) -> bool:
    """Whether LOOKS_SECRET can match at all: each of its alternatives needs one of these.

    The search itself costs many times as much, and most lines, those of the access log above all, have none of them.
    """
    return "@" in text or "%40" in text or "rdk_" in text or "eyJ" in text or "bearer " in text.lower()


class ReadableFormatter(logging.Formatter):
    """One line for people: time, level, logger, message, request id. A traceback follows."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        line = f"{time} {record.levelname:<7} {record.name}: {_message(record)}"
        request_id = _request_id()
        if request_id:
            line += f" [{request_id}]"
        if record.exc_info and record.exc_info[1] is not None:
            line += "\n" + describe_exception(record.exc_info[1])
        return self._redact(line)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `timestamp` (RFC 3339, UTC), `level`, `logger`, `message`, and `request_id`, `exception`
    and the members of the record's `fields` where there are any."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._redact(_message(record)),
        }
        request_id = _request_id()
        if request_id:
            entry["request_id"] = request_id
        entry.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[1] is not None:
            entry["exception"] = self._redact(describe_exception(record.exc_info[1]))
        return json.dumps(entry, ensure_ascii=False, default=str)


def describe_exception(error: BaseException) -> str:
    """Return the traceback of `error` and of what caused it, without local variables or PostgreSQL's values."""
    parts = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        frames = "".join(traceback.format_tb(link.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{_headline(link)}")
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "\n\nThis was raised while handling, or because of, the following:\n\n".join(parts)


def _message(record: logging.LogRecord) -> str:
    """Return the record's message, with exceptions among its arguments cut down to their headlines."""
    if isinstance(record.args, tuple):
        args = tuple(_headline(arg) if isinstance(arg, psycopg.Error) else arg for arg in record.args)
        return str(record.msg) % args if args else str(record.msg)
    return record.getMessage()


def _headline(error: BaseException) -> str:
    """Return the last line of a traceback.

    Of PostgreSQL's errors only the connection's keep their message: the others quote statements and values.
    """
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(error, psycopg.Error):
        if error.sqlstate:
            return f"{name} (SQLSTATE {error.sqlstate})"
        if not isinstance(error, psycopg.OperationalError):
            return name
    text = " ".join(str(error).split())
    return f"{name}: {text}" if text else name


def _request_id() -> str | None:
    request_id = g.get("request_id") if has_app_context() else None
    return request_id if isinstance(request_id, str) else None
