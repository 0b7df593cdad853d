"""Logging of a process to stderr: JSON lines in production, readable lines elsewhere, without secrets.

Code that logs must still leave secrets out; this is the second safeguard. Messages of PostgreSQL errors, which quote
values, are reduced to the error's name, and all text passes through `rdservice.logs.redaction`.
"""

import json
import logging
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, TextIO

import psycopg
from flask import g, has_app_context

from rdservice.config.settings import Settings
from rdservice.logs.redaction import redactor, secrets_in

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

QUOTING = {"urllib3": logging.ERROR, "werkzeug": logging.WARNING}
"""Libraries' loggers and their minimum level. Below it they log URLs and headers, with people's e-mail addresses,
authorization codes and tokens."""

ACCESS_LOG = "rdservice.access"
WAIT_S = 0.05
"""How long lines of the access log are buffered."""
MOST_WAITING = 10_000
"""Most lines in that buffer."""

_about: ContextVar[Mapping[str, str | int]] = ContextVar("about", default=MappingProxyType({}))


def configure_logging(settings: Settings) -> None:
    """Log to stderr from level INFO, in the format for the environment. Idempotent.

    Also logs Python warnings, and exceptions that end a thread or the process.
    """
    handler = _Handler()
    handler.setFormatter(formatter(settings))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for name, level in QUOTING.items():
        logging.getLogger(name).setLevel(level)
    # No line shows these, and looking them up costs more than writing the line
    # (https://docs.python.org/3/howto/logging.html#optimization).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.captureWarnings(True)
    sys.excepthook = _log_end_of_process
    threading.excepthook = _log_end_of_thread
    sys.unraisablehook = _log_unraisable


def formatter(settings: Settings) -> logging.Formatter:
    """Return the formatter for the environment of `settings`; it removes their secrets."""
    return _formatter(secrets_in(settings), production=settings.production)


def formatter_without_settings(*, production: bool) -> logging.Formatter:
    """Return the formatter for a process whose settings are invalid."""
    return _formatter(set(), production=production)


@contextmanager
def log_context(**subject: str | int) -> Iterator[None]:
    """Add `subject` (names to values) to every line that this thread logs until the block ends, such as `claim`."""
    token = _about.set({**_about.get(), **subject})
    try:
        yield
    finally:
        _about.reset(token)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to stderr. For a line that cannot be formatted it writes only the place of the call: the standard handler
    would print the arguments.

    Lines of the access log are buffered for WAIT_S; a thread then writes them at once. Each write releases the
    interpreter's lock, so one write per request would cost a busy process a third of its throughput. The order of all
    lines is kept, and the buffer is written when the process ends.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting: deque[logging.LogRecord] = deque()
        self._some_wait = threading.Event()
        self._thread: threading.Thread | None = None

    def handle(self, record: logging.LogRecord) -> bool:
        if record.name != ACCESS_LOG:
            return bool(super().handle(record))
        self._waiting.append(record)
        if len(self._waiting) > MOST_WAITING:
            # The reader of stderr is slower than the requests, so this request writes the lines and waits for it.
            self._write_waiting()
        elif not self._some_wait.is_set():
            self._begin_to_wait()
        return True

    def emit(self, record: logging.LogRecord) -> None:
        self._write_waiting()
        super().emit(record)

    def close(self) -> None:
        self._write_waiting()
        super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        kind = sys.exc_info()[0]
        self.stream.write(
            f"a log line of {record.pathname}:{record.lineno} could not be written"
            f" ({kind.__name__ if kind else 'unknown'})\n"
        )

    def _begin_to_wait(self) -> None:
        with self.lock or nullcontext():
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_later, name="access-log", daemon=True)
                self._thread.start()
        self._some_wait.set()

    def _write_later(self) -> None:
        while True:
            self._some_wait.wait()
            time.sleep(WAIT_S)
            self._some_wait.clear()
            self._write_waiting()

    def _write_waiting(self) -> None:
        with self.lock or nullcontext():
            lines = []
            while self._waiting:
                record = self._waiting.popleft()
                try:
                    lines.append(self.format(record) + self.terminator)
                except Exception:  # noqa: BLE001 - handleError reports it, as in logging itself
                    self.handleError(record)
            if lines:
                self.stream.write("".join(lines))
                self.flush()


def _formatter(secrets: set[str], *, production: bool) -> logging.Formatter:
    redact = redactor(secrets)
    return JsonFormatter(redact) if production else ReadableFormatter(redact)


class ReadableFormatter(logging.Formatter):
    """A line for people: time (UTC), level, logger, message, and in brackets request id and subject.

    The traceback of an exception follows on further lines.
    """

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        line = f"{at} {record.levelname:<7} {record.name}: {_message(record)}"
        marks = [f"{name} {value}" for name, value in _about.get().items()]
        request_id = _request_id(record)
        if request_id:
            marks.insert(0, request_id)
        if marks:
            line += f" [{', '.join(marks)}]"
        if record.exc_info and record.exc_info[1] is not None:
            line += "\n" + describe_exception(record.exc_info[1])
        return self._redact(line)


class JsonFormatter(logging.Formatter):
    """One JSON object per line, with `timestamp` (RFC 3339, UTC), `level`, `logger` and `message`.

    Optional members: `request_id`, `exception`, those of `log_context`, and those of the record's `fields`.
    """

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
        request_id = _request_id(record)
        if request_id:
            entry["request_id"] = self._redact(request_id)
        for name, value in {**_about.get(), **getattr(record, "fields", {})}.items():
            entry[name] = self._redact(value) if isinstance(value, str) else value
        if record.exc_info and record.exc_info[1] is not None:
            entry["exception"] = self._redact(describe_exception(record.exc_info[1]))
        return json.dumps(entry, ensure_ascii=False, default=str)


def describe_exception(error: BaseException) -> str:
    """Return the traceback of `error` and of its causes, without local variables and without values from PostgreSQL."""
    parts = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        frames = "".join(traceback.format_tb(link.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{_headline(link)}")
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "\n\nThis was raised while handling, or because of, the following:\n\n".join(parts)


def _log_end_of_process(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("rdservice").critical("the process ends by an unexpected error", exc_info=error)


def _log_end_of_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is None or issubclass(ended.exc_type, SystemExit):
        return
    name = ended.thread.name if ended.thread else "unknown"
    logging.getLogger("rdservice").error(
        "the thread %s ends by an unexpected error", name, exc_info=ended.exc_value
    )


def _log_unraisable(failed: "UnraisableHookArgs") -> None:
    # Leaves out the object: its repr is not under our control.
    logging.getLogger("rdservice").error("an error while cleaning up was ignored", exc_info=failed.exc_value)


def _message(record: logging.LogRecord) -> str:
    """Return the record's message, with database errors among its arguments reduced to their headlines."""
    if isinstance(record.args, tuple):
        args = tuple(_headline(arg) if isinstance(arg, psycopg.Error) else arg for arg in record.args)
        return str(record.msg) % args if args else str(record.msg)
    return record.getMessage()


def _headline(error: BaseException) -> str:
    """Return the last line of the error's traceback.

    Of psycopg's errors, only connection errors keep their message: the others quote statements and values.
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


def _request_id(record: logging.LogRecord) -> str | None:
    """Return the request id that the record carries, else the id of the request that this thread serves."""
    request_id = getattr(record, "request_id", None)
    if request_id is None and has_app_context():
        request_id = g.get("request_id")
    return request_id if isinstance(request_id, str) else None
