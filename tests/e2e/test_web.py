"""The web processes: what each of them knows, and what callers see when a process or RD Station is in trouble."""

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import requests

from rdservice.access import operators, passwords
from rdservice.services import Services
from rdservice.tokens.access_tokens import WAIT_S
from tests.conftest import REDIRECT_URI
from tests.support.accounts import attempts_of, connect_account, row, stored_pair
from tests.support.processes import Processes, Web
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

EMAIL = "ana@example.com"
PASSWORD = "correct horse battery"
TOKEN = "/rd/tokens/default/access-token"
HTML = {"Accept": "text/html"}
Conn = psycopg.Connection[Any]


@dataclass(frozen=True)
class Stage:
    """Web processes whose RD Station is the sandbox, and the account `default`, whose token is good for a day."""

    web: Web
    services: Services
    sandbox: SandboxProcess
    conn: Conn
    pair: dict[str, Any]
    """What the account was connected with."""

    def stored_pair(self) -> tuple[str, str]:
        return stored_pair(self.services, self.conn)


@pytest.fixture
def stage(processes: Processes, connected: Services, sandbox: SandboxProcess, conn: Conn) -> Stage:
    web = processes.web()
    return Stage(web, connected, sandbox, conn, connect_account(connected, sandbox, due=False))


def test_a_delete_takes_effect_within_a_second_in_every_process_and_rd_login_connects_again(
    stage: Stage, authorized: dict[str, str]
) -> None:
    with stage.web.sessions_of_each_worker() as sessions:
        assert len(sessions) == 2

        def ask(session: requests.Session) -> requests.Response:
            return session.get(stage.web.url + TOKEN, headers=authorized, timeout=20)

        def is_gone(session: requests.Session) -> bool:
            return ask(session).status_code == 409

        assert [ask(session).status_code for session in sessions] == [200, 200]
        stage.conn.execute("DELETE FROM rdstation_tokens WHERE account_id='default';")
        deleted_at = time.monotonic()
        for session in sessions:
            wait_until(partial(is_gone, session), "the token is gone", seconds=1)
        assert time.monotonic() - deleted_at < 1
        for session in sessions:
            problem = ask(session)
            assert problem.json()["code"] == "not_connected"
            assert problem.json()["reauthorize_url"] == REDIRECT_URI.replace(
                "/rd/callback", "/rd/login?account_id=default"
            )

        authorize_in_a_browser(stage)
        assert [ask(session).status_code for session in sessions] == [200, 200]
    assert row(stage.conn)["status"] == "connected"


@pytest.mark.fault(
    "kill-9-web-idle",
    "a web process is killed",
    "gunicorn replaces it; callers get the stored token",
)
def test_a_killed_web_worker_is_replaced_and_nothing_is_lost(
    stage: Stage, authorized: dict[str, str]
) -> None:
    before = stage.stored_pair()
    first = stage.web.workers
    os.kill(min(first), signal.SIGKILL)
    wait_until(lambda: len(stage.web.workers - first) == 1, "gunicorn has started another worker")
    wait_until(lambda: min(first) not in stage.web.workers, "the killed one is gone")
    with stage.web.sessions_of_each_worker() as sessions:
        for session in sessions:
            response = session.get(stage.web.url + TOKEN, headers=authorized, timeout=20)
            assert response.json()["access_token"] == before[0]
    assert stage.stored_pair() == before


@pytest.mark.fault(
    "sigterm-web",
    "SIGTERM to the web processes during an exchange that a caller waits for",
    "the answer is stored, the caller gets it, they end in time with status 0",
)
def test_sigterm_stores_the_answer_of_a_refresh_that_a_caller_waits_for(
    stage: Stage, authorized: dict[str, str]
) -> None:
    stage.sandbox.patch(latency_ms=1_500, rotate_refresh_tokens=True)
    with ThreadPoolExecutor(1) as executor:
        refresh = f"{stage.web.url}/rd/tokens/default/refresh"
        response = executor.submit(requests.post, refresh, headers=authorized, timeout=30)
        wait_until(lambda: stage.sandbox.report()["in_flight"] == 1, "the exchange is in flight")
        stage.web.send(signal.SIGTERM)
        assert response.result().json()["result"] == "stored"
    assert stage.web.ended(27) == 0, stage.web.log
    assert attempts_of(stage.conn) == [("stored", None)]
    assert stage.stored_pair()[1] != stage.pair["refresh_token"]


@pytest.mark.fault(
    "sigterm-web-background",
    "SIGTERM to the web processes during an exchange that nobody waits for",
    "the answer is stored; they end in time with status 0",
)
def test_sigterm_stores_the_answer_of_a_refresh_that_nobody_waits_for(
    stage: Stage, authorized: dict[str, str]
) -> None:
    stage.sandbox.patch(latency_ms=1_500, rotate_refresh_tokens=True)
    # Old enough to be renewed early, and good enough to be given out meanwhile.
    stage.conn.execute(
        "UPDATE rdstation_tokens SET issued_at = rd_now() - interval '1 day',"
        " expires_at = rd_now() + interval '30 s'"
    )
    given = requests.get(stage.web.url + TOKEN, headers=authorized, timeout=20)
    assert given.json()["access_token"] == stage.pair["access_token"]
    wait_until(lambda: stage.sandbox.report()["in_flight"] == 1, "the exchange is in flight")
    stage.web.send(signal.SIGTERM)
    assert stage.web.ended(27) == 0, stage.web.log
    assert attempts_of(stage.conn) == [("stored", None)]
    assert stage.stored_pair()[1] != stage.pair["refresh_token"]


@pytest.mark.fault(
    "rdstation-never-answers-callers",
    "RD Station takes requests and never answers; callers want a dead token",
    "503 with Retry-After within ten seconds; /healthz answers on",
)
def test_callers_get_503_while_rd_station_accepts_and_never_answers_and_healthz_answers_on(
    stage: Stage, authorized: dict[str, str]
) -> None:
    before = stage.stored_pair()
    stage.conn.execute(
        "UPDATE rdstation_tokens SET issued_at = rd_now() - interval '25 h',"
        " expires_at = rd_now() - interval '1 h'"
    )
    stage.sandbox.patch(faults=[{"operation": "token_refresh", "kind": "timeout"}])

    def ask(_: int) -> tuple[requests.Response, float]:
        asked_at = time.monotonic()
        response = requests.get(stage.web.url + TOKEN, headers=authorized, timeout=60)
        return response, time.monotonic() - asked_at

    with ThreadPoolExecutor(50) as executor:
        waiting = [executor.submit(ask, number) for number in range(50)]
        wait_until(lambda: stage.sandbox.report()["in_flight"] == 1, "the exchange is in flight")
        slowest = 0.0
        while not all(caller.done() for caller in waiting):
            asked_at = time.monotonic()
            assert requests.get(f"{stage.web.url}/healthz", timeout=60).status_code == 200
            slowest = max(slowest, time.monotonic() - asked_at)
        responses = [caller.result() for caller in waiting]
    assert {response.status_code for response, _ in responses} == {503}
    assert all(int(response.headers["Retry-After"]) >= 1 for response, _ in responses)
    assert {response.json()["code"] for response, _ in responses} == {"rdstation_unavailable"}
    # Bounds, not measurements: nobody waits twice, and nobody's health check waits for other people's tokens.
    assert max(seconds for _, seconds in responses) < 2 * WAIT_S
    assert slowest < WAIT_S / 2
    assert stage.stored_pair() == before
    assert row(stage.conn)["status"] == "connected"


def authorize_in_a_browser(stage: Stage) -> None:
    """Log in, open /rd/login, consent at the sandbox and come back, as a browser does at the redirect URI's host."""
    assert operators.create(stage.conn, EMAIL, passwords.hash_password(PASSWORD))
    host = {"Host": urlsplit(REDIRECT_URI).netloc, **HTML}
    with requests.Session() as browser:
        browser.headers.update(host)
        # requests keys cookies by the URL's host, so those of the Host header reach 127.0.0.1 as well.
        page = browser.get(f"{stage.web.url}/login", timeout=20).text
        found = re.search(r'name="csrf_token" value="([^"]+)"', page)
        assert found is not None
        form = {"csrf_token": found[1], "email": EMAIL, "password": PASSWORD}
        logged_in = browser.post(f"{stage.web.url}/login", data=form, allow_redirects=False, timeout=20)
        assert logged_in.status_code == 303, logged_in.text
        dialog = browser.get(f"{stage.web.url}/rd/login", allow_redirects=False, timeout=20).headers[
            "Location"
        ]
        assert dialog.startswith(f"{stage.sandbox.url}/auth/dialog?")
        back = urlsplit(consent(dialog))
        assert f"{back.scheme}://{back.netloc}{back.path}" == REDIRECT_URI
        ended = browser.get(f"{stage.web.url}{back.path}?{back.query}", allow_redirects=False, timeout=20)
        assert ended.status_code == 303, ended.text


def consent(dialog: str) -> str:
    """Press *Autorizar* on the dialog's page; return where it leads."""
    page = requests.get(dialog, timeout=20).text
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page))
    action = dialog.partition("?")[0]
    return requests.post(action, data=fields, allow_redirects=False, timeout=20).headers["Location"]
