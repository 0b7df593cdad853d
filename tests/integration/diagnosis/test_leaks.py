"""The file can be sent to a stranger: what is planted everywhere is searched for in all that is said."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from rdservice.diagnosis import command
from rdservice.services import Services
from rdservice.tokens import store, workers
from tests.integration.diagnosis.conftest import Run
from tests.support.accounts import stored_pair
from tests.support.leaks.planted import Planted
from tests.support.odd_server import odd_server, respond_with
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
RunScript = Callable[..., Run]

OWNER = "ana.souza@example.com"
PERSON = "maria.lima@example.net"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJqb2FvLnBlcmVpcmEifQ.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"


@pytest.fixture
def planted(
    working: dict[str, str], services: Services, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> Planted:
    """Values in the settings, in every column that holds any, and those that RD Station will answer with."""
    found = Planted()
    # The tests' ordinary one is the example in a message.
    working["SECRET_KEY"] = "a-session-key-that-nobody-else-uses-4711"
    access_token, refresh_token = stored_pair(services, conn)
    sandbox.patch(aud=PERSON, scope=f"contacts {PERSON}")
    pair = sandbox.pair("account-2")
    found.add(
        access_token=access_token,
        refresh_token=refresh_token,
        second_access_token=pair["access_token"],
        second_refresh_token=pair["refresh_token"],
        client_secret=working["RDSTATION_CLIENT_SECRET"],
        secret_key=working["SECRET_KEY"],
        encryption_key=working["TOKEN_ENCRYPTION_KEYS"],
        database_password=str(psycopg.conninfo.conninfo_to_dict(working["DATABASE_URL"])["password"]),
        metrics_token="scrape-me-with-this-token",
        proxy_password="the-proxy-s-password",
        unrelated_variable="another-program-s-secret",
        account_id=OWNER,
        account_name="Padaria da Ana Souza Ltda",
        worker="anas-notebook.home",
        error_text="token of joao.pereira@example.org was refused",
        error_token=JWT,
        audience=PERSON,
        lead_email="joao.pereira@example.org",
        lead_phone="+55 48 99999-1234",
        lead_name="João Pereira",
    )
    with conn.transaction():
        store.authorize(
            conn,
            connected.keys,
            OWNER,
            access_token=pair["access_token"],
            refresh_token=pair["refresh_token"],
            expires_in_s=86_400,
            name=found["account_name"],
            verified=True,
            proven=True,
        )
    workers.beat(conn, f"{found['worker']}:4711")
    conn.execute("UPDATE rdstation_tokens SET last_error = %s", [f"{found['error_text']} {JWT}"])
    conn.execute(
        "INSERT INTO rdstation_refresh_attempts (claim_no, account_id, authorization_id, reason, claimed_by,"
        " started_at, outcome, error) "
        "SELECT nextval('rdstation_claims'), account_id, authorization_id, 'due', %s, rd_now(), 'transient', %s "
        "FROM rdstation_tokens",
        [found["worker"], f"{found['error_text']} {JWT}"],
    )
    return found


def settings_with(planted: Planted, working: dict[str, str], **changes: str) -> dict[str, str]:
    return working | {
        "METRICS_TOKEN": planted["metrics_token"],
        "ANOTHER_PROGRAM": planted["unrelated_variable"],
        **changes,
    }


def answer_of_rd_station(planted: Planted) -> bytes:
    body = (
        f'{{"errors": {{"error_type": "{planted["lead_name"]}", "error_message": "{planted["lead_email"]} {JWT}"}},'
        f' "personal_phone": "{planted["lead_phone"]}"}}'
    ).encode()
    head = f"HTTP/1.1 403 Forbidden\r\nX-Lead: {planted['lead_email']}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def leaks(planted: Planted, done: Run) -> list[str]:
    return [str(found) for found in planted.found_in(done.text + done.out + done.err)]


def test_with_everything_readable_nothing_planted_comes_out(
    run_script: RunScript, working: dict[str, str], planted: Planted
) -> None:
    for arguments in ((), ("--account", OWNER), ("--offline",), ("--output", "-", "--no-refresh")):
        done = run_script(settings_with(planted, working), *arguments)
        assert done.status in (0, 1), done.err
        assert '"verdict"' in done.text + done.out
        assert leaks(planted, done) == []


def test_what_rd_station_answers_does_not_come_out(
    run_script: RunScript, working: dict[str, str], planted: Planted
) -> None:
    with odd_server(respond_with(answer_of_rd_station(planted))) as rdstation:
        done = run_script(
            settings_with(planted, working, RDSTATION_API_URL=rdstation.url), "--account", OWNER
        )
    assert done.report["leads_call"]["error_type"] == "other"
    assert leaks(planted, done) == []


@pytest.mark.parametrize(
    "variable",
    [
        "RDSTATION_CLIENT_ID",
        "RDSTATION_REDIRECT_URI",
        "RDSTATION_API_URL",
        "RDSTATION_SCOPE",
        "RDSTATION_CACHE_TTL",
        "DATABASE_URL",
        "RDSERVICE_ENV",
        "TRUSTED_PROXIES",
    ],
)
def test_a_secret_in_the_wrong_variable_does_not_come_out(
    run_script: RunScript, working: dict[str, str], planted: Planted, variable: str
) -> None:
    done = run_script(settings_with(planted, working, **{variable: planted["client_secret"]}), "--offline")
    assert done.status in (0, 1), done.err
    assert leaks(planted, done) == []


def test_where_the_way_fails_nothing_planted_comes_out(
    run_script: RunScript, working: dict[str, str], planted: Planted
) -> None:
    proxy = f"http://proxy-user:{planted['proxy_password']}@127.0.0.1:9"
    through_proxy = run_script(
        settings_with(planted, working, RDSTATION_API_URL="https://rd-station.invalid", HTTPS_PROXY=proxy)
    )
    assert through_proxy.report["network"]["through_proxy"] is True
    assert leaks(planted, through_proxy) == []
    database_url = f"postgres://app:{planted['database_password']}@127.0.0.1:9/rd"
    without_database = run_script(settings_with(planted, working, DATABASE_URL=database_url))
    assert without_database.codes[0] == "database_unreachable"
    assert leaks(planted, without_database) == []


def test_a_diagnosis_that_fails_itself_tells_no_value(
    planted: Planted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(planted["client_secret"])

    monkeypatch.setattr(command, "diagnose", fail)
    assert command.main(["--output", "-"]) == command.EXIT_COULD_NOT_RUN
    said = capsys.readouterr()
    assert "RuntimeError" in said.err
    assert planted.found_in(said.out + said.err) == []


def test_a_secret_as_an_option_is_not_repeated(
    run_script: RunScript, working: dict[str, str], planted: Planted
) -> None:
    done = run_script(settings_with(planted, working), "--account", planted["client_secret"], "--offline")
    assert "no_account" in done.codes
    assert leaks(planted, done) == []
