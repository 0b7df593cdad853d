"""Each case that stops leads, made with the real sandbox over HTTP: what is named first, and who must act."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet

from rdservice.diagnosis.facts import network, run
from rdservice.diagnosis.report.build import Report
from rdservice.services import Services
from rdservice.tokens import workers
from tests.support.accounts import connect_account
from tests.support.odd_server import odd_server, say_nothing
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]


@dataclass
class Scene:
    """A service in which all is well, until a case changes something."""

    settings: dict[str, str]
    sandbox: SandboxProcess
    conn: Conn
    services: Services

    def connect_again(self) -> None:
        connect_account(self.services, self.sandbox, due=False)

    def fault(self, operation: str = "segmentations_list", **fault: Any) -> None:
        self.sandbox.patch(faults=[{"operation": operation, **fault}])

    def update(self, change: str) -> None:
        self.conn.execute(f"UPDATE rdstation_tokens SET {change}".encode())  # noqa: S608 - of this file


@pytest.fixture
def scene(working: dict[str, str], sandbox: SandboxProcess, conn: Conn, connected: Services) -> Scene:
    return Scene(working, sandbox, conn, connected)


def old_aud(scene: Scene) -> None:
    scene.sandbox.patch(aud="https://www.rdstation.com.br/api")
    scene.fault(kind="status", status=401, error_type="UNAUTHORIZED")
    scene.connect_again()


def missing_scope(scene: Scene) -> None:
    scene.sandbox.patch(scope="emails", api_access=False)
    scene.connect_again()


def dead_refresh_token(scene: Scene) -> None:
    scene.sandbox.revoke()


def wrong_secret(scene: Scene) -> None:
    scene.sandbox.patch(client_secrets=["the-secret-was-changed-in-the-app-store"])
    scene.update("expires_at = rd_now() - interval '1 hour'")


def swapped_id_and_secret(scene: Scene) -> None:
    settings = scene.settings
    settings["RDSTATION_CLIENT_ID"], settings["RDSTATION_CLIENT_SECRET"] = (
        settings["RDSTATION_CLIENT_SECRET"],
        settings["RDSTATION_CLIENT_ID"],
    )


def secret_in_redirect_uri(scene: Scene) -> None:
    scene.settings["RDSTATION_REDIRECT_URI"] = scene.settings["RDSTATION_CLIENT_SECRET"]


def local_host_in_production(scene: Scene) -> None:
    scene.settings["RDSERVICE_ENV"] = "production"


def another_redirect_uri_than_registered(scene: Scene) -> None:
    scene.settings["RDSTATION_REDIRECT_URI"] = "https://elsewhere.example.com/rd/callback"
    scene.conn.execute("DELETE FROM rdstation_tokens")


def rd_station_down(scene: Scene) -> None:
    scene.settings["RDSTATION_API_URL"] = "http://127.0.0.1:9"


def rd_station_fails(scene: Scene) -> None:
    scene.fault("*", kind="status", status=503)


def forbidden_by_gateway(scene: Scene) -> None:
    scene.fault(kind="html", status=403)


def rate_limited(scene: Scene) -> None:
    scene.fault(kind="status", status=429)


def worker_not_running(scene: Scene) -> None:
    scene.conn.execute("UPDATE rdstation_workers SET beat_at = rd_now() - interval '5 minutes'")
    scene.update("expires_at = rd_now() - interval '1 hour', retry_at = rd_now() + interval '5 minutes'")


def wrong_encryption_key(scene: Scene) -> None:
    scene.settings["TOKEN_ENCRYPTION_KEYS"] = Fernet.generate_key().decode()
    scene.conn.execute("DELETE FROM rdstation_workers")


def clock_two_hours_off(scene: Scene) -> None:
    scene.sandbox.patch(clock_offset_s=7200)


def empty_table(scene: Scene) -> None:
    scene.conn.execute("DELETE FROM rdstation_tokens")


def plan_without_api(scene: Scene) -> None:
    scene.sandbox.patch(api_access=False)


def database_down(scene: Scene) -> None:
    scene.settings["DATABASE_URL"] = "postgres://ana:the-password@127.0.0.1:9/app"


def settings_missing(scene: Scene) -> None:
    scene.settings["SECRET_KEY"] = ""
    scene.conn.execute("DELETE FROM rdstation_workers")


# The case; the findings, each with what it follows from; who must act on the first, and with which button.
CASES: list[tuple[Callable[[Scene], None], list[tuple[str, str | None]], str, str]] = [
    (old_aud, [("audience_old", None), ("unauthorized_api", "audience_old")], "operator", "connect"),
    (missing_scope, [("scope_missing", None), ("forbidden_api", "scope_missing")], "operator", "connect"),
    (dead_refresh_token, [("reauthorization_required", None)], "operator", "connect"),
    (
        wrong_secret,
        [("credentials_refused", None), ("token_expired", "credentials_refused")],
        "server",
        "none",
    ),
    (
        swapped_id_and_secret,
        [("credentials_refused", None), ("redirect_uri_not_registered", "credentials_refused")],
        "server",
        "none",
    ),
    (secret_in_redirect_uri, [("redirect_uri_holds_secret", None)], "server", "none"),
    (local_host_in_production, [("redirect_uri_local_host", None)], "server", "none"),
    (
        another_redirect_uri_than_registered,
        [("redirect_uri_not_registered", None), ("no_account", None)],
        "server",
        "none",
    ),
    (rd_station_down, [("rdstation_unreachable", None)], "server", "none"),
    (rd_station_fails, [("rdstation_failing", None)], "rdstation", "none"),
    (forbidden_by_gateway, [("forbidden_by_gateway", None)], "server", "none"),
    (rate_limited, [("rate_limited", None)], "server", "none"),
    (
        worker_not_running,
        [
            ("worker_not_running", None),
            ("token_expired", "worker_not_running"),
            ("refresh_backing_off", "worker_not_running"),
        ],
        "server",
        "none",
    ),
    (wrong_encryption_key, [("key_missing", None), ("worker_not_running", "key_missing")], "server", "none"),
    (clock_two_hours_off, [("clock_skew", None)], "server", "none"),
    (empty_table, [("no_account", None)], "operator", "connect"),
    (plan_without_api, [("plan_without_api", None)], "rdstation", "none"),
    (database_down, [("database_unreachable", None)], "server", "none"),
    (
        settings_missing,
        [("settings_broken", None), ("worker_not_running", "settings_broken")],
        "server",
        "none",
    ),
]


@pytest.mark.parametrize(
    ("break_it", "expected", "who", "action"), CASES, ids=lambda value: getattr(value, "__name__", None)
)
def test_each_case_has_its_one_root_cause(
    diagnosed: Callable[..., Report],
    scene: Scene,
    break_it: Callable[[Scene], None],
    expected: list[tuple[str, str | None]],
    who: str,
    action: str,
) -> None:
    break_it(scene)
    made = diagnosed(scene.settings)
    # What this run itself has brought about, a pause after its own failed renewal, is no part of the case.
    found = [(finding.code, finding.follows_from) for finding in made.findings]
    own = {"refresh_backing_off"} - {code for code, _ in expected}
    assert [pair for pair in found if pair[0] not in own] == expected
    first = made.findings[0]
    assert (first.who, first.action) == (who, action)
    verdict = made.content["verdict"]
    assert verdict["root_cause"] == expected[0][0]
    assert (verdict["findings"][0]["who"], verdict["findings"][0]["action"]) == (who, action)


def test_a_name_that_is_unknown_and_a_refused_connection_are_told_apart(
    diagnosed: Callable[..., Report], working: dict[str, str]
) -> None:
    unknown = diagnosed(working | {"RDSTATION_API_URL": "https://rd-station.invalid"})
    assert unknown.findings[0].words == "rdstation_unreachable/dns"
    refused = diagnosed(working | {"RDSTATION_API_URL": "https://127.0.0.1:9"})
    assert refused.findings[0].words == "rdstation_unreachable/tcp"
    connectivity = refused.content["network"]
    assert (connectivity["failed_at"], connectivity["dns_ms"] is None, connectivity["tcp_ms"]) == (
        "tcp",
        False,
        None,
    )


def test_rd_station_that_hangs_at_tls_is_given_up(
    diagnosed: Callable[..., Report], working: dict[str, str], conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "STEP_TIMEOUT_S", 0.3)
    monkeypatch.setattr("rdservice.rdstation.client.CALL_DEADLINE_S", 0.5)
    conn.execute("DELETE FROM rdstation_tokens")
    with odd_server(say_nothing, scheme="https") as hanging:
        made = diagnosed(working | {"RDSTATION_API_URL": hanging.url})
    assert [finding.words for finding in made.findings] == ["rdstation_unreachable/tls", "no_account"]
    assert made.content["network"]["tcp_ms"] is not None


def test_the_database_s_clock_and_this_machine_s_are_told_apart(
    diagnosed: Callable[..., Report], working: dict[str, str], sandbox: SandboxProcess
) -> None:
    sandbox.patch(clock_offset_s=-300)
    made = diagnosed(working)
    (finding,) = made.findings
    # Tests have one clock for both, so it is the database's that is told.
    assert (finding.words, finding.severity) == ("clock_skew", "warning")
    clocks = made.content["clocks"]
    assert 295 < clocks["database_ahead_of_rdstation_s"] < 305
    assert abs(clocks["database_ahead_of_this_machine_s"]) < 60


def test_offline_asks_nobody_but_the_database(
    diagnosed: Callable[..., Report], working: dict[str, str], sandbox: SandboxProcess
) -> None:
    before = sandbox.report()["calls"]
    made = diagnosed(working | {"RDSTATION_API_URL": "https://rd-station.invalid"}, offline=True)
    assert made.findings == []
    content = made.content
    assert content["network"] is None
    assert {content[part]["result"] for part in ("refresh_attempt", "leads_call", "consent_dialog")} == {
        "skipped"
    }
    assert content["accounts"]["shown"][0]["status"] == "connected"
    assert sandbox.report()["calls"] == before


def test_a_database_that_takes_packets_and_answers_nothing_is_cut_off(
    diagnosed: Callable[..., Report], working: dict[str, str], conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "OF_A_COMMAND", replace(run.OF_A_COMMAND, database_until_s=1.0))
    with conn.transaction():
        # Nobody reads the table meanwhile; the server's own time limit is longer.
        conn.execute("LOCK TABLE schema_migrations IN ACCESS EXCLUSIVE MODE")
        monkeypatch.setattr("rdservice.diagnosis.facts.database_check.TIME_LIMITS", "SELECT 1")
        made = diagnosed(working)
    assert [finding.words for finding in made.findings] == ["database_unreachable/failing"]
    assert made.content["database"]["error"] == "no response within 1 s"


def test_ten_thousand_accounts_are_counted_and_the_worst_of_them_listed(
    diagnosed: Callable[..., Report], working: dict[str, str], conn: Conn
) -> None:
    conn.execute(
        "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, expires_at, status) "
        "SELECT 'a' || n, access_token, refresh_token, rd_now() + make_interval(mins => n), "
        "       CASE WHEN n <= 5000 THEN 'reauthorization_required' ELSE 'connected' END "
        "FROM rdstation_tokens, generate_series(1, 10000) AS n"
    )
    made = diagnosed(working, offline=True)
    accounts = made.content["accounts"]
    assert (accounts["total"], accounts["by_status"]["reauthorization_required"]) == (10_001, 5_000)
    assert len(accounts["shown"]) == 100
    assert len(made.to_bytes()) < 1_000_000


def test_a_worker_is_described_without_the_name_of_its_machine(
    diagnosed: Callable[..., Report], working: dict[str, str], conn: Conn
) -> None:
    workers.beat(conn, "anas-laptop:4711")
    made = diagnosed(working, offline=True)
    assert len(made.content["worker"]["workers"]) == 2
    assert b"anas-laptop" not in made.to_bytes()
