"""What log lines look like, and what they never show."""

import json
import logging
from collections.abc import Callable, Iterator

import psycopg
import pytest
from flask import Flask, g

from rdservice import logs
from rdservice.settings import Settings

KEY = "rdk_abcdefgh_" + "s" * 43
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhYmMifQ.c2lnbmF0dXJl"


MakeLogger = Callable[[dict[str, str]], logging.Logger]


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """The root logger is put back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


# Loggers are made in the test itself: before it, stderr is not yet the one that capsys reads.
def log_readable(variables: dict[str, str]) -> logging.Logger:
    logs.configure(Settings.from_mapping(variables))
    return logging.getLogger("rdservice.test")


def log_json(variables: dict[str, str]) -> logging.Logger:
    values = variables | {
        "RDSERVICE_ENV": "production",
        "RDSTATION_REDIRECT_URI": "https://app.example.com/rd/callback",
        "RDSTATION_API_URL": "https://api.rd.services",
    }
    return log_readable(values)


def test_a_line_for_people_has_level_logger_message_and_request_id(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    logger = log_readable(variables)
    app = Flask(__name__)
    with app.app_context():
        g.request_id = "request-0001"
        logger.warning("%s of %d", "one", 2)
    logger.debug("not shown")
    line = capsys.readouterr().err
    assert line.endswith("WARNING rdservice.test: one of 2 [request-0001]\n")


def test_in_production_a_line_is_one_json_object(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    log_json(variables).info("renewed\n%s", "twice", extra={"fields": {"duration_ms": 1.5}})
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    entry = json.loads(output.err)
    assert entry.pop("timestamp").endswith("+00:00")
    assert entry == {
        "level": "info",
        "logger": "rdservice.test",
        "message": "renewed\ntwice",
        "duration_ms": 1.5,
    }


@pytest.mark.parametrize(
    "private",
    [
        KEY,
        TOKEN,
        "ana.maria+rd@example.com.br",
        "ana.maria+rd%40example.com.br",
        "Bearer 0123456789abcdef0123",
        "postgres://user:pass-word@host/db",
        "0123456789abcdef0123456789abcdef",  # SECRET_KEY of these tests
        "client-secret-of-the-tests",
    ],
)
@pytest.mark.parametrize("make_logger", [log_readable, log_json])
def test_what_looks_private_is_blotted_out(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str], make_logger: MakeLogger, private: str
) -> None:
    logger = make_logger(variables)
    logger.error("failed with %s", private, exc_info=ValueError(f"cannot use {private}"))
    text = capsys.readouterr().err
    assert private not in text
    assert "pass-word" not in text
    assert text.count("[removed]") >= 2
    assert "ValueError: cannot use" in text


def test_a_traceback_names_causes_and_no_database_values(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    logger = log_json(variables)
    cause = psycopg.errors.UniqueViolation('DETAIL: Key (email)=("planted") already exists.')
    wrapped = RuntimeError("storing failed")
    wrapped.__cause__ = cause
    logger.error("wrapped", exc_info=wrapped)
    logger.error("as an argument: %s", cause)
    text = capsys.readouterr().err
    assert "planted" not in text
    first, second = (json.loads(line) for line in text.splitlines())
    assert "RuntimeError: storing failed" in first["exception"]
    assert "UniqueViolation" in first["exception"]
    assert second["message"].startswith("as an argument: psycopg.errors.UniqueViolation")


def test_a_failed_connection_keeps_its_reason(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    logger = log_readable(variables)
    try:
        psycopg.connect("postgresql://someone:hidden@127.0.0.1:1/none", connect_timeout=2).close()
    except psycopg.OperationalError as error:
        logger.warning("no database: %s", error)
    text = capsys.readouterr().err
    assert "refused" in text
    assert "hidden" not in text
