"""The whole diagnosis with a real database and a real sandbox: what each trouble is called, and what is left alone."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet

from rdservice.config.settings import Settings
from rdservice.diagnosis.facts import database_check, run
from rdservice.diagnosis.report import build
from rdservice.diagnosis.report.build import Report
from rdservice.services import Services
from rdservice.tokens import access_tokens, workers
from tests.support.accounts import BY, attempts_of, connect_account, lease_one, row, stored_pair
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
Diagnosed = Callable[..., Report]


def codes(made: Report) -> list[str]:
    return [finding.code for finding in made.findings]


def severity(made: Report, code: str) -> str:
    (found,) = [finding.severity for finding in made.findings if finding.code == code]
    return found


def test_when_all_is_well_there_is_no_finding(
    diagnosed: Diagnosed, working: dict[str, str], sandbox: SandboxProcess, services: Services, conn: Conn
) -> None:
    before = row(conn)["access_token"]
    made = diagnosed(working)
    assert (made.findings, made.needs_a_person) == ([], False)
    content = made.content
    assert content["refresh_attempt"]["result"] == "stored"
    assert content["refresh_attempt"]["http_status"] == 200
    assert content["leads_call"]["account_id"] == "default"
    assert (content["leads_call"]["result"], content["leads_call"]["http_status"]) == ("ok", 200)
    assert row(conn)["access_token"] != before
    assert sandbox.calls()["token_refresh"] == {"200": 1}
    assert sandbox.calls()["segmentations_list"] == {"200": 1}
    assert attempts_of(conn) == [("stored", None)]


def test_the_report_describes_installation_and_account(
    diagnosed: Diagnosed, working: dict[str, str], services: Services
) -> None:
    content = diagnosed(working).content
    assert content["versions"]["python"].startswith("3.")
    assert content["versions"]["packages"]["psycopg"]
    assert content["versions"]["postgresql"]
    assert content["database"]["migrations"]["pending"] == []
    assert content["database"]["migrations"]["applied"][0] == "0001_tokens"
    assert "rdstation_tokens" in {table["name"] for table in content["database"]["tables"]}
    assert content["worker"]["seconds_since_last_beat"] < 60
    (account,) = content["accounts"]["shown"]
    assert account["account_id"] == "default"
    assert account["status"] == "connected"
    assert 86_000 < account["life_left_s"] <= 86_400
    key_id = services.keys.key_ids[0]
    for value in (account["access_token"], account["refresh_token"]):
        assert (value["key_id"], value["state"], len(value["fingerprint"])) == (key_id, "readable", 4)
    assert account["access_token"]["length"] > 255
    assert account["generation"] == content["recent_attempts"][0]["claim"]
    assert account["being_renewed"] is False
    assert account["rate_budget"] == {"segmentations": {"spent": 1, "closed_for_s": 0.0}}
    claims = account["access_token_claims"]
    assert (claims["aud"], claims["scope"]) == (["https://api.rd.services"], ["contacts"])
    assert claims["iat"] < claims["exp"]
    (attempt,) = content["recent_attempts"]
    assert (attempt["reason"], attempt["outcome"], attempt["http_status"]) == ("operator", "stored", 200)
    json.dumps(content)


def test_no_refresh_is_tried_when_it_is_not_wanted(
    diagnosed: Diagnosed, working: dict[str, str], sandbox: SandboxProcess
) -> None:
    content = diagnosed(working, try_refresh=False).content
    assert content["refresh_attempt"]["result"] == "skipped"
    assert sandbox.calls()["token_refresh"] == {}
    assert content["leads_call"]["result"] == "ok"


def test_a_dead_refresh_token_needs_a_new_authorization(
    diagnosed: Diagnosed, working: dict[str, str], sandbox: SandboxProcess
) -> None:
    sandbox.revoke()
    made = diagnosed(working)
    assert codes(made) == ["reauthorization_required"]
    assert made.needs_a_person
    assert made.findings[0].account_id == "default"
    refresh = made.content["refresh_attempt"]
    assert (refresh["result"], refresh["http_status"], refresh["error"]) == ("refused", 401, "revoked")
    assert made.content["leads_call"]["result"] == "reauthorization_required"


def test_a_wrong_client_secret_is_the_settings_fault_and_no_account_s(
    diagnosed: Diagnosed, working: dict[str, str]
) -> None:
    made = diagnosed(working | {"RDSTATION_CLIENT_SECRET": "another-client-secret"})
    assert codes(made) == ["credentials_refused"]
    assert severity(made, "credentials_refused") == "error"
    refresh = made.content["refresh_attempt"]
    assert (refresh["http_status"], refresh["error"]) == (401, "credentials")
    assert made.content["leads_call"]["result"] == "ok"


def test_credentials_that_another_process_has_wrong_are_a_warning(
    diagnosed: Diagnosed, working: dict[str, str]
) -> None:
    diagnosed(working | {"RDSTATION_CLIENT_SECRET": "another-client-secret"})
    made = diagnosed(working, try_refresh=False)
    assert codes(made) == ["credentials_refused"]
    assert severity(made, "credentials_refused") == "warning"


def test_rd_station_that_cannot_be_reached_is_named_before_what_follows_from_it(
    diagnosed: Diagnosed, working: dict[str, str], conn: Conn
) -> None:
    down = working | {"RDSTATION_API_URL": "http://127.0.0.1:9"}
    made = diagnosed(down)
    assert codes(made)[0] == "rdstation_unreachable"
    assert severity(made, "rdstation_unreachable") == "error"
    assert made.content["refresh_attempt"]["error"] == "connection"
    assert (made.content["leads_call"]["result"], made.content["leads_call"]["error"]) == (
        "failed",
        "connection",
    )
    conn.execute("UPDATE rdstation_tokens SET retry_at = rd_now() + interval '5 minutes'")
    again = diagnosed(down)
    assert again.content["refresh_attempt"]["result"] == "skipped"
    assert again.content["refresh_attempt"]["reason"].startswith("back-off until 20")
    assert codes(again) == ["rdstation_unreachable", "refresh_backing_off"]
    assert len(attempts_of(conn)) == 1


@pytest.mark.parametrize(
    ("fault", "code", "found_severity"),
    [
        ({"kind": "status", "status": 403}, "plan_without_api", "error"),
        ({"kind": "html", "status": 403}, "forbidden_by_gateway", "error"),
        ({"kind": "status", "status": 429}, "rate_limited", "warning"),
        ({"kind": "status", "status": 503}, "rdstation_failing", "error"),
        ({"kind": "html"}, "rdstation_failing", "error"),
        ({"kind": "truncated"}, "rdstation_failing", "error"),
        ({"kind": "drop_before"}, "rdstation_unreachable", "error"),
        ({"kind": "status", "status": 404}, "rdstation_unexpected", "error"),
        ({"kind": "status", "status": 401, "error_type": "UNAUTHORIZED"}, "unauthorized_api", "error"),
    ],
)
def test_what_rd_station_has_against_the_call_for_leads_has_a_name(
    diagnosed: Diagnosed,
    working: dict[str, str],
    sandbox: SandboxProcess,
    fault: dict[str, Any],
    code: str,
    found_severity: str,
) -> None:
    sandbox.patch(faults=[{"operation": "segmentations_list", **fault}])
    made = diagnosed(working)
    assert codes(made) == [code]
    assert severity(made, code) == found_severity
    assert made.needs_a_person == (found_severity == "error")
    assert made.content["refresh_attempt"]["result"] == "stored"


def test_a_server_error_at_the_refresh_is_rd_station_s_and_not_final(
    diagnosed: Diagnosed, working: dict[str, str], sandbox: SandboxProcess
) -> None:
    sandbox.patch(faults=[{"operation": "token_refresh", "kind": "status", "status": 500}])
    made = diagnosed(working)
    assert codes(made)[0] == "rdstation_failing"
    refresh = made.content["refresh_attempt"]
    assert (refresh["result"], refresh["http_status"]) == ("transient", 500)


@pytest.mark.parametrize(
    ("setting", "code"),
    [({"aud": "https://old.example.com"}, "audience_old"), ({"scope": "emails"}, "scope_missing")],
)
def test_what_the_access_token_lacks_is_named(
    diagnosed: Diagnosed,
    connected: Services,
    sandbox: SandboxProcess,
    conn: Conn,
    live: dict[str, str],
    setting: dict[str, str],
    code: str,
) -> None:
    sandbox.patch(**setting)
    connect_account(connected, sandbox, due=False)
    workers.beat(conn, "worker-1")
    made = diagnosed(live)
    assert code in codes(made)
    refused = made.content["leads_call"]["http_status"] in (401, 403)
    assert severity(made, code) == ("error" if refused else "warning")


def test_an_empty_table_means_that_someone_must_connect(
    diagnosed: Diagnosed, live: dict[str, str], conn: Conn
) -> None:
    workers.beat(conn, "worker-1")
    made = diagnosed(live)
    assert codes(made) == ["no_account"]
    assert made.needs_a_person
    assert made.content["leads_call"]["reason"] == "there is no account"


@pytest.mark.parametrize("silent_s", [None, 61])
def test_a_worker_that_does_not_run_is_found(
    diagnosed: Diagnosed, working: dict[str, str], conn: Conn, silent_s: int | None
) -> None:
    if silent_s is None:
        conn.execute("DELETE FROM rdstation_workers")
    else:
        conn.execute(
            "UPDATE rdstation_workers SET beat_at = rd_now() - make_interval(secs => %s)", [silent_s]
        )
    made = diagnosed(working)
    assert codes(made) == ["worker_not_running"]
    assert made.needs_a_person


def test_a_missing_key_is_named_and_the_row_left_as_it_was(
    diagnosed: Diagnosed, working: dict[str, str], conn: Conn, services: Services, sandbox: SandboxProcess
) -> None:
    before = row(conn)
    made = diagnosed(working | {"TOKEN_ENCRYPTION_KEYS": Fernet.generate_key().decode()})
    assert codes(made) == ["key_missing"]
    assert services.keys.key_ids[0] in made.findings[0].text("en").seen
    assert made.content["accounts"]["shown"][0]["access_token"]["state"] == "key_missing"
    assert made.content["refresh_attempt"]["result"] == "skipped"
    assert made.content["leads_call"]["result"] == "token_unreadable"
    assert row(conn) | {"now": None} == before | {"now": None}
    assert sandbox.calls()["token_refresh"] == {}


@pytest.mark.parametrize("column", ["access_token", "refresh_token"])
def test_a_damaged_value_is_found_and_the_row_left_as_it_was(
    diagnosed: Diagnosed, working: dict[str, str], conn: Conn, column: str
) -> None:
    conn.execute(f"UPDATE rdstation_tokens SET {column} = left({column}, -5)")  # noqa: S608
    before = row(conn)
    made = diagnosed(working)
    assert codes(made) == ["value_damaged"]
    assert made.content["accounts"]["shown"][0][column]["state"] == "damaged"
    assert row(conn) | {"now": None} == before | {"now": None}


def test_a_value_without_encryption_is_found_and_not_shown(
    diagnosed: Diagnosed, working: dict[str, str], conn: Conn
) -> None:
    conn.execute("UPDATE rdstation_tokens SET refresh_token = 'plain-refresh-token'")
    made = diagnosed(working)
    assert codes(made) == ["token_not_encrypted"]
    assert "plain-refresh-token" not in json.dumps(made.content)


def test_a_database_without_tables_lacks_migrations(
    diagnosed: Diagnosed, live: dict[str, str], empty_database_url: str
) -> None:
    made = diagnosed(live | {"DATABASE_URL": empty_database_url})
    assert codes(made) == ["migrations_pending"]
    assert made.content["database"]["reachable"] is True
    assert "0001_tokens" in made.content["database"]["migrations"]["pending"]
    assert made.content["accounts"]["shown"] == []
    assert made.content["refresh_attempt"]["reason"] == "the database cannot be used"


def test_with_one_migration_missing_the_accounts_are_shown_all_the_same(
    diagnosed: Diagnosed, working: dict[str, str], conn: Conn
) -> None:
    last = conn.execute(
        "DELETE FROM schema_migrations WHERE version = (SELECT max(version) FROM schema_migrations) "
        "RETURNING version, name, applied_at"
    ).fetchone()
    try:
        made = diagnosed(working)
    finally:
        conn.execute("INSERT INTO schema_migrations VALUES (%s, %s, %s)", last)
    assert codes(made) == ["migrations_pending"]
    assert made.content["accounts"]["shown"][0]["account_id"] == "default"
    assert made.content["refresh_attempt"]["reason"] == "the database lacks migrations"


def test_a_database_that_is_down_is_a_finding(diagnosed: Diagnosed, live: dict[str, str]) -> None:
    made = diagnosed(live | {"DATABASE_URL": "postgres://ana:the-password@127.0.0.1:9/app"})
    assert codes(made) == ["database_unreachable"]
    assert made.content["database"]["reachable"] is False
    assert "127.0.0.1" in made.content["database"]["error"]
    assert made.content["settings"]["variables"]["DATABASE_URL"] == {
        "set": True,
        "valid": True,
        "host": "127.0.0.1",
        "port": "9",
        "dbname": "app",
        "user": "ana",
        "sslmode": None,
    }
    assert "the-password" not in json.dumps(made.content)


def test_a_wrong_database_password_is_a_finding(
    diagnosed: Diagnosed, live: dict[str, str], database_url: str
) -> None:
    password = psycopg.conninfo.conninfo_to_dict(database_url)["password"]
    made = diagnosed(live | {"DATABASE_URL": database_url.replace(str(password), "wrong-password", 1)})
    assert codes(made) == ["database_unreachable"]
    assert "password authentication failed" in made.content["database"]["error"]
    assert "wrong-password" not in json.dumps(made.content)


def test_a_database_that_hangs_is_given_up(
    diagnosed: Diagnosed, working: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def hang(*_: object, **__: object) -> None:
        released.wait(60)

    monkeypatch.setattr(database_check, "check", hang)
    monkeypatch.setattr(run, "OF_A_COMMAND", replace(run.OF_A_COMMAND, database_until_s=0.2))
    try:
        made = diagnosed(working)
    finally:
        released.set()
    assert codes(made) == ["database_unreachable"]
    assert "no response within" in made.content["database"]["error"]


def test_a_receiver_that_apprise_cannot_use_is_a_warning_in_both_languages(
    diagnosed: Diagnosed, working: dict[str, str]
) -> None:
    made = diagnosed(
        working | {"NOTIFY_URLS": "json://127.0.0.1:9/good nonsense://planted-token"}, offline=True
    )
    (finding,) = made.content["verdict"]["findings"]
    assert (finding["code"], finding["severity"]) == ("notifications_failing", "warning")
    assert finding["seen"]["en"].startswith("NOTIFY_URLS: entry 2 is no URL that apprise can use")
    assert finding["seen"]["pt-BR"].startswith(
        "NOTIFY_URLS: a entrada 2 não é uma URL que o apprise possa usar"
    )
    assert "mailtos://user:password@example.com" in finding["todo"]["en"]
    assert "planted" not in str(made.content)
    assert made.content["settings"]["usable"] is True


def test_a_running_process_tells_of_such_a_receiver_too(
    make_services: Callable[[Settings], Services], working: dict[str, str]
) -> None:
    services = make_services(Settings.from_mapping(working | {"NOTIFY_URLS": "https://example.com/planted"}))
    made = build.diagnose_running(services, by=BY)
    (finding,) = made.findings
    assert finding.words == "notifications_failing/unusable"
    assert "planted" not in str(made.content)


def test_with_broken_settings_the_rest_is_looked_at_all_the_same(
    diagnosed: Diagnosed, working: dict[str, str], sandbox: SandboxProcess
) -> None:
    made = diagnosed(working | {"RDSTATION_CLIENT_SECRET": "", "RDSTATION_CACHE_TTL": "soon"})
    assert codes(made) == ["settings_broken", "settings_broken"]
    assert made.content["accounts"]["shown"][0]["access_token"]["state"] == "readable"
    assert made.content["leads_call"]["reason"] == "the settings for it cannot be used"
    assert sandbox.calls()["segmentations_list"] == {}


def test_with_a_setting_broken_that_calls_do_not_need_rd_station_is_tried(
    diagnosed: Diagnosed, working: dict[str, str]
) -> None:
    made = diagnosed(
        working | {"RDSTATION_REDIRECT_URI": "http://app.example.com/rd/callback", "SECRET_KEY": ""}
    )
    assert codes(made) == ["redirect_uri_not_https", "settings_broken"]
    assert made.content["refresh_attempt"]["result"] == "stored"
    assert made.content["leads_call"]["result"] == "ok"


def test_with_broken_keys_it_is_told_which_key_a_value_needs(
    diagnosed: Diagnosed, working: dict[str, str], services: Services
) -> None:
    made = diagnosed(working | {"TOKEN_ENCRYPTION_KEYS": "too-short"})
    assert codes(made) == ["settings_broken"]
    assert made.content["accounts"]["shown"][0]["access_token"] == {
        "key_id": services.keys.key_ids[0],
        "state": "unknown",
        "length": None,
        "fingerprint": None,
    }
    assert "too-short" not in json.dumps(made.content)


def test_the_account_to_try_can_be_named(
    diagnosed: Diagnosed, working: dict[str, str], connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, "branch", rd_account="account-2", due=False)
    made = diagnosed(working, "branch")
    assert made.content["refresh_attempt"]["account_id"] == "branch"
    assert attempts_of(conn, "branch") == [("stored", None)]
    assert attempts_of(conn) == []
    unknown = diagnosed(working, "nobody")
    assert codes(unknown) == ["no_account"]
    assert unknown.content["leads_call"]["reason"] == "there is no such account"


def test_one_among_several_accounts_is_tried_only_by_name(
    diagnosed: Diagnosed, live: dict[str, str], connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    workers.beat(conn, "worker-1")
    connect_account(connected, sandbox, "north", due=False)
    assert diagnosed(live).content["refresh_attempt"]["account_id"] == "north"
    connect_account(connected, sandbox, "south", rd_account="account-2", due=False)
    made = diagnosed(live)
    assert made.findings == []
    assert "--account" in made.content["refresh_attempt"]["reason"]
    assert len(attempts_of(conn, "north")) == 1


def test_an_account_in_trouble_is_in_the_report_however_many_there_are(
    diagnosed: Diagnosed, working: dict[str, str], conn: Conn
) -> None:
    conn.execute(
        "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, expires_at) "
        "SELECT 'a' || n, access_token, refresh_token, expires_at + interval '1 hour' "
        "FROM rdstation_tokens, generate_series(1, 150) AS n"
    )
    conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required' WHERE account_id = 'a149'")
    made = diagnosed(working, try_refresh=False)
    accounts = made.content["accounts"]
    assert accounts["total"] == 151
    assert accounts["by_status"]["reauthorization_required"] == 1
    assert [account["account_id"] for account in accounts["shown"][:2]] == ["default", "a149"]
    assert len(accounts["shown"]) == 100
    assert "reauthorization_required" in codes(made)


def test_a_slow_refresh_is_waited_for_and_its_token_stored(
    diagnosed: Diagnosed,
    working: dict[str, str],
    sandbox: SandboxProcess,
    conn: Conn,
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = stored_pair(services, conn)
    monkeypatch.setattr(access_tokens, "WAIT_S", 0.2)
    sandbox.patch(latency_ms=1_000, rotate_refresh_tokens=True)
    made = diagnosed(working)
    assert made.content["refresh_attempt"]["result"] == "stored"
    assert made.content["refresh_attempt"]["duration_ms"] >= 1_000
    after = stored_pair(services, conn)
    assert after[0] != before[0]
    assert after[1] != before[1]


def test_a_refresh_that_another_process_holds_is_no_trouble(
    diagnosed: Diagnosed,
    connected: Services,
    working: dict[str, str],
    conn: Conn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now()")
    lease_one(connected)
    monkeypatch.setattr(access_tokens, "WAIT_S", 0.2)
    made = diagnosed(working)
    assert made.findings == []
    assert made.content["refresh_attempt"]["result"] == "rdstation_unavailable"
    assert attempts_of(conn) == [(None, None)]


def test_the_call_for_leads_spends_the_account_s_budget_and_not_more(
    diagnosed: Diagnosed, working: dict[str, str], sandbox: SandboxProcess
) -> None:
    limited = working | {"RDSTATION_RATE_LIMIT": "1"}
    assert diagnosed(limited).findings == []
    made = diagnosed(limited)
    assert codes(made) == ["rate_limited"]
    assert made.content["leads_call"]["result"] == "skipped"
    assert sandbox.calls()["segmentations_list"] == {"200": 1}


def test_a_running_process_makes_the_diagnosis_with_what_it_has(
    connected: Services, working: dict[str, str], sandbox: SandboxProcess, conn: Conn
) -> None:
    made = build.diagnose_running(connected, by=BY)
    assert made.findings == []
    content = json.loads(made.to_bytes())
    assert content["settings"]["variables"]["RDSTATION_API_URL"]["value"] == sandbox.url
    assert content["leads_call"]["result"] == "ok"
    assert content["refresh_attempt"]["result"] == "skipped"
    assert attempts_of(conn) == []
    assert (
        build.diagnose_running(connected, by=BY, try_refresh=True).content["refresh_attempt"]["result"]
        == "stored"
    )
    # The process goes on with its own parts.
    assert connected.access_tokens.refresh_now("default", by=BY) == "stored"


def test_a_running_process_whose_database_is_down_is_told_so(
    make_services: Callable[[Settings], Services], sandbox_settings: Settings
) -> None:
    lost = make_services(
        replace(sandbox_settings, database_url="postgres://ana:the-password@127.0.0.1:9/app")
    )
    made = build.diagnose_running(lost, by=BY)
    assert codes(made) == ["database_unreachable"]
    assert b"the-password" not in made.to_bytes()
