"""What counts as what."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient

from rdservice import errors
from rdservice.access import operators
from rdservice.accounts import connect
from rdservice.accounts.waiting_pairs import Owner
from rdservice.config.settings import Settings
from rdservice.metrics.definitions import OPERATIONS, Metrics
from rdservice.rdstation import call_metrics, deadline
from rdservice.rdstation.client import ApiResponse, TransportError
from rdservice.services import Services
from tests.support.accounts import BY, connect_account, lease_due, lease_one
from tests.support.sandbox_process import SandboxProcess
from tests.support.scraping import scrape

REQUESTS, FAILURES = "rdstation_api_requests_total", "rdstation_api_failures_total"
DURATIONS = "rdstation_api_request_duration_seconds_count"
REFRESHES, AUTH_FAILURES = "rdstation_token_refreshes_total", "rdstation_auth_failures_total"
PAIR = b'{"access_token": "a", "refresh_token": "r", "expires_in": 86400}'


def outcome(operation: str, status: int, body: bytes = b"{}") -> ApiResponse:
    return ApiResponse(operation=operation, status=status, headers={}, body=body)


@pytest.mark.parametrize(
    ("response", "status_class", "reason"),
    [
        (outcome("token_refresh", 200, PAIR), "2xx", None),
        (outcome("token_refresh", 200, b"{}"), "2xx", "bad_payload"),
        (outcome("token_exchange", 200, b"<html>"), "2xx", "bad_payload"),
        (outcome("account_info", 200, b'{"name": "x"}'), "2xx", None),
        (outcome("account_info", 200, b'{"name": "x'), "2xx", "bad_payload"),
        (outcome("revoke", 200, b""), "2xx", None),
        (outcome("other", 204, b""), "2xx", None),
        (outcome("contact_get", 302), "3xx", "client_error"),
        (outcome("token_refresh", 400, b'{"error": "invalid_grant"}'), "4xx", "refused"),
        (outcome("token_refresh", 401, b'{"error_type": "INVALID_REFRESH_TOKEN"}'), "4xx", "refused"),
        (outcome("token_refresh", 401, b'{"error_type": "ACCESS_DENIED"}'), "4xx", "credentials"),
        (outcome("contacts_list", 401, b'{"errors": {"error_type": "UNAUTHORIZED"}}'), "4xx", "unauthorized"),
        (outcome("contacts_list", 404), "4xx", "client_error"),
        (outcome("segmentations_list", 429), "4xx", "rate_limited"),
        (outcome("contacts_list", 500), "5xx", "server_error"),
        (outcome("contacts_list", 999), "5xx", "server_error"),
        (TransportError("revoke", "timeout", sent=True), "none", "timeout"),
        (TransportError("revoke", "connection", sent=False), "none", "connection"),
    ],
)
def test_a_call_counts_by_its_status_and_the_reason_of_its_failure(
    response: ApiResponse | TransportError, status_class: str, reason: str | None
) -> None:
    metrics, hurried = Metrics(), threading.Event()
    call_metrics.count(metrics, hurried.set, response, 0.7)
    counted = {series: value for series, value in metrics.current().items() if value}
    operation = ("operation", response.operation)
    assert counted.pop((REQUESTS, (operation, ("status_class", status_class)))) == 1
    assert counted.pop((DURATIONS, (operation,))) == 1
    if reason is not None:
        assert counted.pop((FAILURES, (operation, ("reason", reason)))) == 1
    if isinstance(response, ApiResponse) and response.status == 401 and response.operation == "contacts_list":
        assert counted.pop((AUTH_FAILURES, (("stage", "api_call"),))) == 1
    assert {name for name, _ in counted} <= {
        DURATIONS.replace("count", suffix) for suffix in ("bucket", "sum")
    }
    assert hurried.is_set()


def test_an_operation_without_a_name_of_its_own_is_other() -> None:
    metrics = Metrics()
    call_metrics.count(metrics, threading.Event().set, outcome("emails_list", 200), 0.1)
    assert metrics.current()[REQUESTS, (("operation", "other"), ("status_class", "2xx"))] == 1


def test_each_attempt_of_a_token_request_counts(
    make_services: Callable[[Settings], Services], variables: dict[str, str], sandbox: SandboxProcess
) -> None:
    secrets = f"an-old-secret,{variables['RDSTATION_CLIENT_SECRET']}"
    changed = {"RDSTATION_API_URL": sandbox.url, "RDSTATION_CLIENT_SECRET": secrets}
    services = make_services(Settings.from_mapping(variables | changed))
    connect_account(services, sandbox)
    before = sandbox.calls()["token_exchange"]
    services.refresher.refresh(lease_one(services))
    assert sandbox.calls()["token_exchange"] == before
    assert sandbox.calls()["token_refresh"] == {"401": 1, "200": 1}
    current = services.metrics.current()
    for status_class in ("2xx", "4xx"):
        assert current[REQUESTS, (("operation", "token_refresh"), ("status_class", status_class))] == 1
    # The second secret was accepted: nothing failed but the first attempt.
    assert current[FAILURES, (("operation", "token_refresh"), ("reason", "credentials"))] == 1
    assert current[AUTH_FAILURES, (("stage", "refresh"),)] == 0


def test_a_request_without_an_answer_counts(connected: Services, sandbox: SandboxProcess) -> None:
    pair = connect_account(connected, sandbox, due=False)
    sandbox.patch(faults=[{"operation": "account_info", "kind": "drop_before", "count": 1}])
    with pytest.raises(TransportError):
        connected.rdstation.account_info(pair["access_token"])
    assert connected.rdstation.account_info(pair["access_token"]).status == 200
    current = connected.metrics.current()
    assert current[REQUESTS, (("operation", "account_info"), ("status_class", "none"))] == 1
    assert current[REQUESTS, (("operation", "account_info"), ("status_class", "2xx"))] == 1
    assert current[FAILURES, (("operation", "account_info"), ("reason", "connection"))] == 1
    assert current[DURATIONS, (("operation", "account_info"),)] == 2


def test_each_operation_counts_as_often_as_it_reached_rd_station(
    connected: Services, sandbox: SandboxProcess, connected_client: FlaskClient
) -> None:
    client = connected.rdstation
    first = client.exchange_code(sandbox.code()).json()
    token = client.refresh(first["refresh_token"]).json()["access_token"]
    client.account_info(token)
    client.segmentations(token, {"page": 1})
    client.segmentation_contacts(token, "no-such-segmentation", {"page": 1})
    client.contact(token, "no-such-contact")
    client.contact_by_email(token, "no-one@example.com")
    client.revoke(token)
    shown = scrape(connected_client).non_zero(DURATIONS, "operation")
    calls = {(operation,): sum(results.values()) for operation, results in sandbox.calls().items()}
    assert shown == {operation: number for operation, number in calls.items() if number}
    assert shown.keys() == {(operation,) for operation in OPERATIONS if operation != "other"}
    assert shown["contact_get",] == 2


@pytest.mark.parametrize("operation", ["token_refresh", "account_info"])
def test_a_call_that_takes_too_long_counts_as_a_time_out(
    operation: str, connected: Services, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounded = deadline.bounded
    monkeypatch.setattr(deadline, "bounded", lambda _seconds, call: bounded(0.3, call))
    sandbox.patch(latency_ms=3_000)
    call: dict[str, Callable[[str], object]] = {
        "token_refresh": connected.rdstation.refresh,
        "account_info": connected.rdstation.account_info,
    }
    with pytest.raises(TransportError) as raised:
        call[operation]("a-token")
    assert raised.value.kind == "timeout"
    current = connected.metrics.current()
    assert current[REQUESTS, (("operation", operation), ("status_class", "none"))] == 1
    assert current[FAILURES, (("operation", operation), ("reason", "timeout"))] == 1
    assert current[DURATIONS, (("operation", operation),)] == 1


def test_renewals_count_by_their_result(
    connected_client: FlaskClient, connected: Services, sandbox: SandboxProcess, conn: psycopg.Connection[Any]
) -> None:
    for account_id in ("kept", "removed", "damaged", "failing"):
        connect_account(connected, sandbox, account_id)
    conn.execute(
        "UPDATE rdstation_tokens SET refresh_token = left(refresh_token, -8) WHERE account_id = 'damaged'"
    )
    leased = {lease.account_id: lease for lease in lease_due(connected)}
    conn.execute("DELETE FROM rdstation_tokens WHERE account_id = 'removed'")
    for account_id in ("kept", "removed", "damaged"):
        connected.refresher.refresh(leased[account_id])
    sandbox.patch(faults=[{"operation": "token_refresh", "kind": "status", "status": 503}])
    connected.refresher.refresh(leased["failing"])
    shown = scrape(connected_client)
    assert shown.non_zero(REFRESHES, "result") == {
        ("stored",): 1,
        ("superseded",): 1,
        ("refused",): 1,
        ("transient",): 1,
    }
    assert shown.non_zero(AUTH_FAILURES, "stage") == {}


def test_a_refused_refresh_token_is_an_authentication_failure(
    connected_client: FlaskClient, connected: Services, sandbox: SandboxProcess
) -> None:
    connect_account(connected, sandbox)
    sandbox.revoke()
    connected.refresher.refresh(lease_one(connected))
    shown = scrape(connected_client)
    assert shown.non_zero(AUTH_FAILURES, "stage") == {("refresh",): 1}
    assert shown.non_zero(REFRESHES, "result") == {("refused",): 1}
    assert shown.value("rdstation_tokens", state="reauthorization_required") == 1


def test_refused_client_credentials_are_an_authentication_failure(
    make_services: Callable[[Settings], Services], variables: dict[str, str], sandbox: SandboxProcess
) -> None:
    changed = {"RDSTATION_API_URL": sandbox.url, "RDSTATION_CLIENT_SECRET": "one-wrong,another-wrong"}
    services = make_services(Settings.from_mapping(variables | changed))
    connect_account(services, sandbox)
    services.refresher.refresh(lease_one(services))
    current = services.metrics.current()
    assert current[AUTH_FAILURES, (("stage", "refresh"),)] == 1
    assert current[FAILURES, (("operation", "token_refresh"), ("reason", "credentials"))] == 2


def test_a_refused_access_token_is_an_authentication_failure(
    connected_client: FlaskClient, connected: Services
) -> None:
    assert connected.rdstation.account_info("no-such-token").status == 401
    shown = scrape(connected_client)
    assert shown.non_zero(AUTH_FAILURES, "stage") == {("api_call",): 1}
    assert shown.non_zero(FAILURES, "operation", "reason") == {("account_info", "unauthorized"): 1}


@pytest.fixture
def operator_id(conn: psycopg.Connection[Any]) -> str:
    created = operators.create(conn, "ana@example.com", "no hash")
    assert created is not None
    return str(created.operator_id)


def test_a_refused_code_is_an_authentication_failure_and_consent_refused_is_none(
    connected_client: FlaskClient, connected: Services, sandbox: SandboxProcess, operator_id: str
) -> None:
    owner = Owner(operator_id=operator_id, session_id="s")

    def come_back(**callback: str) -> None:
        url = connect.begin(connected, owner, account_id="default")
        state = url.rpartition("state=")[2]
        query = {"state": state, **callback}
        connect.complete(connected, owner, callback=query, by=BY)

    with pytest.raises(errors.ConsentRefused):
        come_back(error="access_denied")
    code = sandbox.code()
    come_back(code=code)
    assert scrape(connected_client).non_zero(AUTH_FAILURES, "stage") == {}
    with pytest.raises(errors.CodeExpired):
        come_back(code=code)
    with pytest.raises(errors.CodeRefused):
        come_back(code="no-such-code")
    assert scrape(connected_client).non_zero(AUTH_FAILURES, "stage") == {("code_exchange",): 2}


@pytest.fixture
def held(connected: Services, sandbox: SandboxProcess) -> Iterator[threading.Thread]:
    """Another process that renews the account `default`, whose access token has expired, until RD Station answers."""
    connect_account(connected, sandbox)
    lease = lease_one(connected)
    sandbox.patch(latency_ms=500)
    renewing = threading.Thread(target=connected.refresher.refresh, args=[lease])
    renewing.start()
    yield renewing
    renewing.join()


def test_waiting_for_another_process_is_a_result_of_its_own_and_no_failure(
    held: threading.Thread,
    make_services: Callable[[Settings], Services],
    sandbox_settings: Settings,
    conn: psycopg.Connection[Any],
) -> None:
    conn.execute("UPDATE rdstation_tokens SET expires_at = rd_now() - interval '1 minute'")
    waiting = make_services(sandbox_settings)
    assert waiting.access_tokens.usable("default").life_left_s > 0
    current = waiting.metrics.current()
    assert {series for series, value in current.items() if value} == {(REFRESHES, (("result", "waited"),))}
    assert current[REFRESHES, (("result", "waited"),)] == 1


def test_refresh_now_that_finds_another_at_it_counts_as_waited(
    held: threading.Thread, make_services: Callable[[Settings], Services], sandbox_settings: Settings
) -> None:
    waiting = make_services(sandbox_settings)
    assert waiting.access_tokens.refresh_now("default", by=BY) == "stored"
    assert waiting.metrics.current()[REFRESHES, (("result", "waited"),)] == 1
