"""What log lines look like, and what they never show."""

import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from urllib.parse import quote

import psycopg
import pytest
from flask import Flask, g

from rdservice.config.settings import Settings
from rdservice.logs import formatting
from tests.conftest import REPOSITORY
from tests.support.waiting import wait_until

KEY = "rdk_abcdefgh_" + "s" * 43
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhYmMifQ.c2lnbmF0dXJl"


MakeLogger = Callable[[dict[str, str]], logging.Logger]


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """What `configure` changes is put back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in formatting.QUOTING:
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(False)


# Loggers are made in the test itself: before it, stderr is not yet the one that capsys reads.
def log_readable(variables: dict[str, str]) -> logging.Logger:
    formatting.configure_logging(Settings.from_mapping(variables))
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
        quote("the-2nd-secret/of-the-tests", safe=""),
        "+55 (11) 98765-4321",
        "refresh_token=Zx81-opaque-value",
        '{"refresh_token": "Zx81-opaque-value"}',
        "'client_secret': 'Zx81-opaque-value'",
        "GET /rd/callback?code=Zx81-opaque-value&state=Zx81-opaque-value",
    ],
)
@pytest.mark.parametrize("make_logger", [log_readable, log_json])
def test_what_looks_private_is_blotted_out(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str], make_logger: MakeLogger, private: str
) -> None:
    variables["RDSTATION_CLIENT_SECRET"] += ",the-2nd-secret/of-the-tests"
    logger = make_logger(variables)
    logger.error("failed with %s", private, exc_info=ValueError(f"cannot use {private}"))
    text = capsys.readouterr().err
    assert private not in text
    assert "pass-word" not in text
    assert "Zx81" not in text
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


def test_every_form_of_every_setting_that_is_secret_is_blotted_out(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    password, metrics, hexadecimal = 'p"q\\r/s t', "metrics token é", "ab" * 32
    variables["DATABASE_URL"] = f"postgresql://me:{quote(password, safe='')}@db.example.com/rd"
    variables["METRICS_TOKEN"] = metrics
    variables["TOKEN_ENCRYPTION_KEYS"] += f",{hexadecimal}"
    logger = log_json(variables)
    for secret in (password, metrics, hexadecimal, variables["TOKEN_ENCRYPTION_KEYS"].partition(",")[0]):
        logger.info("plain %s", secret)
        logger.info("in a URL %s", quote(secret))
        logger.info("in JSON %s", json.dumps([secret]))
        logger.info("in Python %r", [secret])
    messages = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    assert len(messages) == 16
    assert {message.rpartition(" ")[2].strip("[]\"'") for message in messages} == {"removed"}


def test_a_short_secret_does_not_empty_all_lines(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    variables["DATABASE_URL"] = "postgresql://me:a@db.example.com/rd"
    log_readable(variables).info("a database has answered")
    assert "a database has answered" in capsys.readouterr().err


def test_words_about_tokens_are_no_secrets(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        "POST /rd/tokens/<account_id>/refresh 200: the access_token of account 'acme' is damaged (HTTP 401)"
    )
    log_readable(variables).info("%s", text)
    assert text in capsys.readouterr().err


def test_what_ends_a_thread_or_the_process_is_a_log_line_without_values(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    log_json(variables)
    error = psycopg.errors.UniqueViolation('DETAIL: Key (email)=("planted") already exists.')

    def fail() -> None:
        raise error

    thread = threading.Thread(target=fail, name="failing")
    thread.start()
    thread.join()
    sys.excepthook(type(error), error, error.__traceback__)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == [
        "the thread failing ends by an unexpected error",
        "the process ends by an unexpected error",
    ]
    assert all("UniqueViolation" in line["exception"] for line in lines)
    assert "planted" not in str(lines)


def test_warnings_are_log_lines(variables: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    log_json(variables)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"do not use {TOKEN}", UserWarning, stacklevel=1)
    entry = json.loads(capsys.readouterr().err)
    assert entry["logger"] == "py.warnings"
    assert TOKEN not in entry["message"]


def test_a_line_that_cannot_be_made_is_told_without_its_arguments(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    log_json(variables).info("%d leads", "planted")
    text = capsys.readouterr().err
    assert "could not be written (TypeError)" in text
    assert "planted" not in text


@pytest.mark.parametrize("name", ["urllib3.connectionpool", "werkzeug"])
def test_libraries_that_write_down_addresses_are_not_heard_at_any_level_of_ours(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    log_readable(variables)
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger(name).debug('"GET /platform/contacts/0a1b2c HTTP/1.1" 200')
    assert capsys.readouterr().err == ""


def test_every_line_of_a_subject_names_it(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    logger = log_json(variables)
    with formatting.log_context(claim=12):
        logger.info("first")
        with formatting.log_context(page=2):
            logger.info("second")
    logger.info("third")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line.get("claim"), line.get("page")) for line in lines] == [(12, None), (12, 2), (None, None)]
    readable = log_readable(variables)
    with formatting.log_context(claim=12):
        readable.info("fourth")
    assert capsys.readouterr().err.endswith("fourth [claim 12]\n")


def test_a_request_id_that_holds_a_secret_does_not_bring_it_into_the_log(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    logger = log_json(variables)
    with Flask(__name__).app_context():
        g.request_id = variables["SECRET_KEY"]
        logger.info("asked", extra={"fields": {"route": f"/x/{variables['SECRET_KEY']}"}})
    text = capsys.readouterr().err
    assert variables["SECRET_KEY"] not in text
    assert json.loads(text)["request_id"] == "[removed]"


def test_lines_of_requests_are_written_soon_and_in_order_with_all_others(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    other, requests = log_readable(variables), logging.getLogger(formatting.ACCESS_LOG)
    written = ""

    def wait_for(last: str) -> None:
        nonlocal written

        def is_there() -> bool:
            nonlocal written
            written += capsys.readouterr().err
            return last in written

        wait_until(is_there, f"{last} is written")

    requests.info("one")
    requests.info("two")
    wait_for("two")
    requests.info("three")
    other.info("four")
    wait_for("four")
    assert [line.rsplit(" ", 1)[1] for line in written.splitlines()] == ["one", "two", "three", "four"]


def test_a_line_of_a_request_that_cannot_be_made_takes_no_other_with_it(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    other, requests = log_readable(variables), logging.getLogger(formatting.ACCESS_LOG)
    requests.info("%d", "no number")
    requests.info("the next")
    other.info("the last")
    written = capsys.readouterr().err
    assert "could not be written (TypeError)" in written
    assert "the next" in written
    assert "no number" not in written


def test_the_end_of_the_process_writes_the_lines_that_wait(variables: dict[str, str]) -> None:
    program = (
        "import logging, os\n"
        "from rdservice.logs import formatting\n"
        "from rdservice.config.settings import Settings\n"
        "formatting.WAIT_S = 60.0\n"
        f"formatting.configure_logging(Settings.from_mapping({variables!r}))\n"
        "for number in range(3):\n"
        "    logging.getLogger(formatting.ACCESS_LOG).info('request %d', number)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert [line.rsplit(" ", 1)[1] for line in done.stderr.splitlines()] == ["0", "1", "2"]


def test_more_lines_of_requests_than_may_wait_are_written_at_once(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formatting, "WAIT_S", 60.0)
    monkeypatch.setattr(formatting, "MOST_WAITING", 2)
    log_readable(variables)
    for number in range(3):
        logging.getLogger(formatting.ACCESS_LOG).info("request %d", number)
    assert "request 2" in capsys.readouterr().err
