"""What crashes leave behind: no secret, no person, no core file; and lines that tell what has happened."""

import os
import signal
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path

import psycopg
import pytest
import requests

from tests.e2e.leaks.conftest import MakeStage
from tests.support.leaks.stage import Stage
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

QUOTE_THE_ROW = """
CREATE FUNCTION quote_the_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'cannot take %', NEW USING DETAIL = NEW::text, HINT = NEW::text, ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER quote_the_row BEFORE UPDATE ON rdstation_tokens FOR EACH ROW
    WHEN (NEW.leased_until IS NULL) EXECUTE FUNCTION quote_the_row();
CREATE TRIGGER quote_the_row BEFORE INSERT ON rdservice_operators FOR EACH ROW EXECUTE FUNCTION quote_the_row();
"""
DO_NOT_QUOTE = "DROP FUNCTION quote_the_row() CASCADE"


@pytest.fixture(scope="module", params=[False, True], ids=["without the second fence", "in production"])
def stage(request: pytest.FixtureRequest, make_stage: MakeStage) -> Stage:
    made = make_stage(production=request.param)
    made.store_account(
        made.planted["account"], made.planted["sandbox_access_token"], "crash-refresh-Qa1Ws2Ed3"
    )
    return made


def expect_clean(stage: Stage, *, without: tuple[Path, ...] = ()) -> None:
    found = stage.look_everywhere(without=without)
    assert not found, "\n".join(found)


def all_lines(stage: Stage) -> str:
    return "\n".join([*stage.lines("web"), *stage.lines("worker"), *stage.outputs])


def test_an_error_that_quotes_a_row_is_told_by_its_kind(stage: Stage) -> None:
    stage.sql(QUOTE_THE_ROW)
    pair = {"access_token": stage.planted["uploaded_access_token"], "refresh_token": "crash-given-Rf4Tg5Yh6"}
    stage.planted.add(crash_given=pair["refresh_token"])
    body = pair | {"expires_in": 600, "account_id": stage.planted["account"], "verify": False}
    assert stage.call("POST", "/rd/tokens", "key", json=body).status_code == 500
    created = stage.flask(
        "operators",
        "create",
        stage.planted["lead_email"],
        "--password-stdin",
        text=stage.planted["new_password"] + "\n",
    )
    assert created == 1
    stage.sql(DO_NOT_QUOTE)
    assert "CheckViolation (SQLSTATE 23514)" in all_lines(stage)
    # The server's own log repeats what the trigger has said, as the server of a platform would.
    expect_clean(stage, without=(stage.postgres.log_file,))


@pytest.mark.parametrize("place", ["refresh", "loop"])
def test_an_unexpected_error_in_the_worker_is_told_without_variables(stage: Stage, place: str) -> None:
    if stage.production:
        # What breaks it is a part of taking the second fence away.
        return
    stage.sql("UPDATE rdstation_tokens SET refresh_after = rd_now(), retry_at = NULL, leased_until = NULL")
    worker = stage.processes.worker(RDSERVICE_TEST_BREAK=place)
    worker.wait_until_it_says("LookupError: broken on purpose")
    if place == "loop":
        assert worker.ended() == 1
        assert "the process ends by an unexpected error" in worker.log
    else:
        assert "a refresh failed unexpectedly [claim " in worker.log
    worker.kill()
    expect_clean(stage, without=(stage.postgres.log_file,))


def test_a_request_that_is_no_http_is_not_repeated(stage: Stage) -> None:
    key, cookie = stage.planted["key_secret"], "rdservice_session=crash-cookie-Uj7Ik8Ol9"
    stage.planted.add(crash_cookie=cookie)
    for request in (
        f"GET / HTTP/1.1\r\nAuthorization Bearer {key}\r\n\r\n",
        f"GET / HTTP/1.1\r\nAuthorization Bearer {key}: x\r\n\r\n",
        f"GET /rd/leads/email/{stage.planted['lead_email']} HTTP/9.9\r\n\r\n",
        f"GET /?key={key} and more HTTP/1.1\r\n\r\n",
        f"{cookie} / HTTP/1.1\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: a\r\n{cookie}\r\n\r\n",
        f"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {key}\r\n\r\n",
        f"POST /login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{key}\r\n",
    ):
        with socket.create_connection(("127.0.0.1", stage.web.port), timeout=20) as connection:
            connection.sendall(request.encode())
            with suppress(ConnectionResetError):
                while connection.recv(65_536):
                    pass
    assert "Invalid request from ip=127.0.0.1" in all_lines(stage)
    expect_clean(stage, without=(stage.postgres.log_file,))


def has_another(stage: Stage, than: int) -> bool:
    return than not in stage.web.workers and len(stage.web.workers) == 2


def test_a_killed_or_crashed_process_leaves_no_core_file_and_no_secret(stage: Stage) -> None:
    for number in (signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL):
        pid = min(stage.web.workers)
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert "Max core file size        0 " in limits
        os.kill(pid, number)
        wait_until(partial(has_another, stage, pid), "another process took its place", seconds=40)
    response = stage.call("GET", f"/rd/leads/email/{stage.planted['lead_email']}", "key")
    assert response.status_code in (200, 409)
    expect_clean(stage, without=(stage.postgres.log_file,))


def test_a_database_that_refuses_the_password_or_is_gone_is_told_without_it(stage: Stage) -> None:
    right = stage.planted["database_password"]
    wrong = f"wrong-{right[::-1]}"
    stage.planted.add(wrong_database_password=wrong)
    url = stage.settings.database_url.replace(right, wrong)
    assert stage.flask("operators", "list", DATABASE_URL=url) == os.EX_TEMPFAIL
    assert stage.flask("release", DATABASE_URL=url) == os.EX_TEMPFAIL
    assert stage.postgres.pid is not None
    os.kill(stage.postgres.pid, signal.SIGQUIT)
    wait_until(lambda: not stage.postgres.is_running, "the database is gone")
    response = stage.call("GET", f"/rd/leads/email/{stage.planted['lead_email']}", "key")
    assert response.status_code == 503
    stage.postgres.start()
    ready = f"{stage.web.url}/readyz"
    wait_until(lambda: requests.get(ready, timeout=20).status_code == 200, "the database is back", seconds=40)
    with psycopg.connect(stage.settings.database_url) as conn:
        assert conn.execute("SELECT count(*) FROM rdstation_tokens").fetchone() == (1,)
    expect_clean(stage, without=(stage.postgres.log_file,))
