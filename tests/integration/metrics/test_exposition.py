"""What /metrics shows: complete, valid, and the same from every process."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import psycopg
import pytest
from flask.testing import FlaskClient

import rdservice
from rdservice.config.settings import Settings
from rdservice.metrics.definitions import (
    OPERATIONS,
    AuthStage,
    CacheOutcome,
    EventResult,
    NotificationResult,
    Reason,
    RefreshResult,
    StatusClass,
)
from rdservice.services import Services
from rdservice.tokens import workers
from rdservice.tokens.store import Status
from rdservice.web import create_app
from rdservice.web.api.exposition import HTTP_METHODS, HTTP_STATUSES
from scripts.local.embedded_postgres import EmbeddedPostgres
from tests.conftest import Clock
from tests.support.accounts import connect_account
from tests.support.processes import Processes
from tests.support.scraping import parse, scrape, take_down
from tests.support.waiting import wait_until

EVENTS: dict[str, dict[str, tuple[str, ...]]] = {
    "rdstation_api_requests_total": {"operation": OPERATIONS, "status_class": get_args(StatusClass)},
    "rdstation_api_failures_total": {"operation": OPERATIONS, "reason": get_args(Reason)},
    "rdstation_api_request_duration_seconds_count": {"operation": OPERATIONS},
    "rdstation_api_request_duration_seconds_sum": {"operation": OPERATIONS},
    "rdstation_token_refreshes_total": {"result": get_args(RefreshResult)},
    "rdstation_auth_failures_total": {"stage": get_args(AuthStage)},
    "rdstation_leads_served_total": {"cache": get_args(CacheOutcome)},
    "rdstation_webhook_events_total": {"result": get_args(EventResult)},
    "rdstation_notifications_total": {"result": get_args(NotificationResult)},
    "rdstation_notifications_failing": {},
    "rdstation_lost_notes_total": {},
    "rdstation_metrics_flush_failures_total": {},
    "flask_http_request_total": {"method": HTTP_METHODS, "status": tuple(HTTP_STATUSES)},
}
MOMENTS = {
    "rdstation_token_earliest_expiry_timestamp_seconds",
    "rdstation_token_last_refresh_success_timestamp_seconds",
    "rdstation_worker_heartbeat_timestamp_seconds",
}


def test_every_series_is_there_at_zero_before_anything_has_happened(client: FlaskClient) -> None:
    shown = scrape(client)
    for name, labels in EVENTS.items():
        combinations = [frozenset[tuple[str, str]]()]
        for label, allowed in labels.items():
            combinations = [known | {(label, value)} for known in combinations for value in allowed]
        assert shown.all(name) == dict.fromkeys(combinations, 0.0), name


def test_promtool_finds_nothing_to_complain_about(
    client: FlaskClient, services: Services, conn: psycopg.Connection[Any], promtool: str
) -> None:
    connect_account(services)
    workers.beat(conn, "a-worker")
    with pytest.raises(Exception, match="no response"):
        services.rdstation.account_info("a-token")
    for path in ("/healthz", "/nowhere", "/rd/tokens", "/metrics"):
        client.get(path)
    text = client.get("/metrics").text
    assert not MOMENTS - parse(text).names
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_process_gives_the_same_answer(
    make_services: Callable[[Settings], Services], settings: Settings
) -> None:
    first, second = make_services(settings), make_services(settings)
    one, other = create_app(first).test_client(), create_app(second).test_client()
    first.metrics.leads_served("hit")
    one.get("/healthz")
    before = scrape(one)
    second.metrics.leads_served("hit")
    other.get("/healthz")
    after = scrape(other)
    assert before.value("rdstation_leads_served_total", cache="hit") == 1
    assert after.value("rdstation_leads_served_total", cache="hit") == 2
    # The scrape of the first process is counted by now, and every other series is in both.
    assert before.values.keys() <= after.values.keys()
    health = {"method": "GET", "url_rule": "/healthz", "status": "200"}
    assert after.value("flask_http_request_duration_seconds_count", **health) == 2
    assert scrape(one).values.keys() == scrape(other).values.keys()


def test_counts_outlive_the_process_that_made_them(
    make_services: Callable[[Settings], Services], settings: Settings
) -> None:
    ended = make_services(settings)
    ended.metrics.leads_served("stale")
    ended.close()
    client = create_app(make_services(settings)).test_client()
    assert scrape(client).value("rdstation_leads_served_total", cache="stale") == 1


def test_tokens_are_shown_by_state(
    client: FlaskClient, services: Services, conn: psycopg.Connection[Any], clock: Clock
) -> None:
    assert set(scrape(client).all("rdstation_tokens").values()) == {0}
    stored = ["connected", "connected", "unverified", "credentials_refused", "reauthorization_required"]
    for number, status in enumerate(stored):
        connect_account(services, account_id=f"a{number}", due=False)
        conn.execute("UPDATE rdstation_tokens SET status = %s WHERE account_id = %s", [status, f"a{number}"])
    conn.execute("UPDATE rdstation_tokens SET expires_at = rd_now() WHERE account_id = 'a1'")
    shown = scrape(client).all("rdstation_tokens")
    assert shown == {frozenset({("state", state)}): 1 for state in get_args(Status)}
    clock.advance(86_401)
    later = scrape(client)
    assert later.value("rdstation_tokens", state="connected") == 0
    assert later.value("rdstation_tokens", state="expired") == 2


def test_moments_are_absent_until_there_is_something(
    client: FlaskClient, services: Services, conn: psycopg.Connection[Any]
) -> None:
    assert not MOMENTS & scrape(client).names
    connect_account(services, lifetime_s=3600)
    connect_account(services, account_id="other", lifetime_s=7200)
    workers.beat(conn, "a-worker")
    clock = conn.execute("SELECT EXTRACT(epoch FROM now())::float8").fetchone()
    assert clock is not None
    shown = scrape(client)
    assert shown.value("rdstation_token_earliest_expiry_timestamp_seconds") == pytest.approx(
        clock[0] + 3600, abs=60
    )
    for name in MOMENTS - {"rdstation_token_earliest_expiry_timestamp_seconds"}:
        assert shown.value(name) == pytest.approx(clock[0], abs=60)


def test_a_token_that_must_be_authorized_again_does_not_hide_the_expiry_of_others(
    client: FlaskClient, services: Services, conn: psycopg.Connection[Any]
) -> None:
    connect_account(services, lifetime_s=60)
    connect_account(services, account_id="other", lifetime_s=7200)
    both = scrape(client).value("rdstation_token_earliest_expiry_timestamp_seconds")
    conn.execute(
        "UPDATE rdstation_tokens SET status = 'reauthorization_required' WHERE account_id = 'default'"
    )
    other = scrape(client).value("rdstation_token_earliest_expiry_timestamp_seconds")
    assert both is not None
    assert other is not None
    assert other - both == pytest.approx(7140, abs=30)


def test_build_info_names_the_version_and_python(client: FlaskClient) -> None:
    (labels,) = scrape(client).all("rdstation_build_info")
    python = ".".join(str(part) for part in sys.version_info[:3])
    assert labels == {("version", rdservice.__version__), ("python_version", python)}


def test_without_the_database_only_what_needs_none_is_shown(
    own_postgres: EmbeddedPostgres,
    make_services: Callable[[Settings], Services],
    variables: dict[str, str],
) -> None:
    services = make_services(Settings.from_mapping(variables | {"DATABASE_URL": own_postgres.url}))
    client = create_app(services).test_client()
    assert scrape(client).value("rdstation_database_up") == 1
    take_down(own_postgres)
    down = scrape(client)
    assert down.value("rdstation_database_up") == 0
    assert down.value("rdstation_metrics_flush_failing") == 1
    assert down.names == {
        "rdstation_database_up",
        "rdstation_metrics_flush_failing",
        "rdstation_build_info",
    }
    own_postgres.start()
    wait_until(lambda: scrape(client).value("rdstation_database_up") == 1, "the database is used again")
    services.close()


REFUSE_COUNTS = """
CREATE FUNCTION refuse_counts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no counts now'; END $$;
CREATE TRIGGER refuse_counts BEFORE INSERT OR UPDATE ON rdservice_metric_totals EXECUTE FUNCTION refuse_counts()
"""
TAKE_COUNTS = "DROP FUNCTION refuse_counts CASCADE"


def test_a_database_that_takes_no_counts_is_read_all_the_same(
    services: Services, client: FlaskClient, conn: psycopg.Connection[Any]
) -> None:
    services.metrics.leads_served("hit")
    assert scrape(client).value("rdstation_metrics_flush_failing") == 0
    conn.execute(REFUSE_COUNTS)
    try:
        services.metrics.leads_served("hit")
        failing = scrape(client)
    finally:
        conn.execute(TAKE_COUNTS)
    assert failing.value("rdstation_metrics_flush_failing") == 1
    assert failing.value("rdstation_database_up") == 1
    assert failing.value("rdstation_leads_served_total", cache="hit") == 1
    again = scrape(client)
    assert again.value("rdstation_metrics_flush_failing") == 0
    assert again.value("rdstation_leads_served_total", cache="hit") == 2
    assert again.value("rdstation_metrics_flush_failures_total") == 1


def test_a_database_without_the_tables_is_a_problem_that_names_the_remedy(
    make_services: Callable[[Settings], Services], variables: dict[str, str], empty_database_url: str
) -> None:
    services = make_services(Settings.from_mapping(variables | {"DATABASE_URL": empty_database_url}))
    response = create_app(services).test_client().get("/metrics")
    assert response.status_code == 503
    assert "flask release" in response.get_json()["detail"]
    services.close()


def test_the_format_is_prometheus_text_whatever_is_asked_for(client: FlaskClient) -> None:
    openmetrics = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
    response = client.get("/metrics?name[]=x", headers=openmetrics)
    assert response.status_code == 200
    assert response.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert "rdstation_database_up" in parse(response.text).names


def test_http_requests_are_counted_by_route_and_not_by_address(client: FlaskClient) -> None:
    for number in range(30):
        client.get(f"/rd/tokens/account-{number}/access-token")
        client.get(f"/nowhere/ana{number}@example.com")
    shown = scrape(client)
    routes = shown.non_zero("flask_http_request_duration_seconds_count", "method", "url_rule", "status")
    assert routes == {
        ("GET", "/rd/tokens/<account_id>/access-token", "401"): 30,
        ("GET", "None", "404"): 30,
    }
    counts = shown.non_zero("flask_http_request_total", "method", "status")
    assert counts == {("GET", "401"): 30, ("GET", "404"): 30}
    assert "example.com" not in shown.text


def test_a_method_that_a_client_invented_becomes_no_label(client: FlaskClient) -> None:
    for method in ("FOO", "TRACE", "PROPFIND", "get"):
        assert client.open("/healthz", method=method).status_code in {200, 405}
        assert client.open("/nowhere", method=method).status_code == 404
    shown = scrape(client)
    for labels in [
        *shown.all("flask_http_request_total"),
        *shown.all("flask_http_request_duration_seconds_count"),
    ]:
        assert dict(labels)["method"] in HTTP_METHODS


@pytest.mark.slow
def test_the_librarys_multiprocess_mode_changes_nothing(processes: Processes, tmp_path: Path) -> None:
    # Twice in the same process id's files, as after the restart of a container, would count what was counted before.
    files = tmp_path / "multiprocess"
    files.mkdir()
    web = processes.web(None, PROMETHEUS_MULTIPROC_DIR=str(files))
    with web.sessions_of_each_worker() as sessions:
        for session in sessions:
            shown = parse(session.get(f"{web.url}/metrics?name[]=x", timeout=20).text)
            assert shown.names >= EVENTS.keys() | {"rdstation_tokens", "rdstation_build_info"}
            answered = shown.non_zero("flask_http_request_duration_seconds_count", "url_rule", "status")
            assert answered["/healthz", "200"] >= 1
    assert list(files.iterdir()) == []
