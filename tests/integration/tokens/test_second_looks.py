"""Second looks: a refused refresh token is tried again, since RD Station may have refused it by mistake."""

import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from requests_mock import Mocker

from rdservice import errors
from rdservice.config.settings import Settings
from rdservice.encryption import KeyMissing
from rdservice.services import Services
from rdservice.tokens import credentials, lease_sql
from rdservice.tokens.refresh import Result
from tests.conftest import Clock
from tests.support.accounts import BY, attempts_of, connect_account, lease_due, lease_one, row, stored_pair
from tests.support.pairs import kept, upload
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
TOKEN_URL = "http://127.0.0.1:9/auth/token"
HOUR = 3600
PAIR = {"access_token": "a", "refresh_token": "r", "expires_in": 86_400}


def refusing(requests_mock: Mocker, error_type: str = "INVALID_REFRESH_TOKEN") -> None:
    requests_mock.post(TOKEN_URL, status_code=401, json={"error_type": error_type, "error_message": "said"})


def responding(requests_mock: Mocker) -> None:
    requests_mock.post(TOKEN_URL, json=PAIR)


def refuse(services: Services, requests_mock: Mocker, account_id: str = "default", **values: Any) -> None:
    """Connect an account, and let RD Station refuse its refresh token."""
    connect_account(services, account_id=account_id, **values)
    refusing(requests_mock)
    (lease,) = [found for found in lease_due(services) if found.account_id == account_id]
    assert services.refresher.refresh(lease) is Result.REFUSED


def looks_at(services: Services, clock: Clock, *, until_s: int, step_s: int = 300) -> list[int]:
    """Let time pass and make every second look; return their times in minutes."""
    made = []
    for second in range(step_s, until_s + 1, step_s):
        clock.advance(step_s)
        for lease in lease_due(services):
            assert lease.reason == "second_look"
            services.refresher.refresh(lease)
            made.append(second // 60)
    return made


def test_a_refused_token_is_tried_again_until_a_day_after_its_access_token_ended(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock
) -> None:
    refuse(services, requests_mock)
    assert row(conn)["status"] == "reauthorization_required"
    made = looks_at(services, clock, until_s=60 * HOUR)
    assert made[:3] == [15, 60, 180]
    assert made[3:] == [180 + 360 * number for number in range(1, 8)], "48 h after it was issued is the end"
    assert row(conn)["status"] == "reauthorization_required"
    assert row(conn)["second_look_at"] is None


def test_a_second_look_that_succeeds_lifts_the_refusal(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock
) -> None:
    refuse(services, requests_mock)
    clock.advance(901)
    responding(requests_mock)
    assert services.refresher.refresh(lease_one(services)) is Result.STORED
    found = row(conn)
    assert (found["status"], found["last_error"]) == ("connected", None)
    assert (found["second_look_at"], found["second_looks"], found["refusals"]) == (None, 0, 0)
    assert stored_pair(services, conn) == ("a", "r")


@pytest.mark.parametrize("error_type", ["INVALID_REFRESH_TOKEN", "UNAUTHORIZED", "SOMETHING_NEW"])
def test_eleven_minutes_of_refusals_end_no_account(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock, error_type: str
) -> None:
    for number in range(20):
        connect_account(services, account_id=f"account-{number}")
    refusing(requests_mock, error_type)
    for _ in range(34):
        for lease in lease_due(services, slots=32):
            services.refresher.refresh(lease)
        clock.advance(20)
    responding(requests_mock)
    clock.advance(900)
    for lease in lease_due(services, slots=32):
        services.refresher.refresh(lease)
    assert conn.execute("SELECT DISTINCT status FROM rdstation_tokens").fetchall() == [("connected",)]


@pytest.mark.parametrize(
    "response",
    [
        {"status_code": 503},
        {"status_code": 429, "headers": {"Retry-After": "60"}},
        {"status_code": 404},
        {"text": "<html>"},
        {"status_code": 401, "json": {"error_type": "ACCESS_DENIED"}},
    ],
)
def test_only_a_response_about_the_token_changes_a_refused_row(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock, response: dict[str, Any]
) -> None:
    refuse(services, requests_mock)
    clock.advance(901)
    before = row(conn)
    requests_mock.post(TOKEN_URL, **response)
    assert services.refresher.refresh(lease_one(services)) is Result.TRANSIENT
    after = row(conn)
    changed = {name for name in before if before[name] != after[name]} - {"now", "attempted_at"}
    assert changed <= {"second_look_at"}, "the next look comes later"


def test_a_second_look_at_tokens_of_an_unknown_account_changes_nothing_while_the_name_is_not_told(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock
) -> None:
    refuse(services, requests_mock)
    conn.execute("UPDATE rdstation_tokens SET name_due = true")
    clock.advance(901)
    before = row(conn)
    requests_mock.get("http://127.0.0.1:9/marketing/account_info", status_code=503)
    calls = requests_mock.call_count
    assert services.refresher.refresh(lease_one(services)) is Result.TRANSIENT
    assert requests_mock.call_count == calls + 1, "the refresh token was not used"
    after = row(conn)
    changed = {name for name in before if before[name] != after[name]} - {"now", "attempted_at"}
    assert changed <= {"second_look_at"}
    assert lease_due(services) == []
    clock.advance(901)
    assert len(lease_due(services)) == 1
    assert conn.execute("SELECT count(*) FROM rdstation_client_credentials").fetchone() == (0,)


def test_an_operators_try_of_a_refused_token_changes_only_what_it_is_about(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock
) -> None:
    refuse(services, requests_mock)
    clock.advance(61)
    before = row(conn)
    for response in ({"status_code": 503}, {"status_code": 401, "json": {"error_type": "ACCESS_DENIED"}}):
        requests_mock.post(TOKEN_URL, **response)
        assert services.access_tokens.refresh_now("default", by=BY) is Result.TRANSIENT
        clock.advance(61)
    after = row(conn)
    assert {name for name in before if before[name] != after[name]} <= {"now", "attempted_at"}


def test_refresh_now_on_a_refused_row_heeds_sixty_seconds_since_the_last_attempt_and_nothing_else(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock
) -> None:
    refuse(services, requests_mock)
    conn.execute("UPDATE rdstation_tokens SET retry_at = rd_now() + interval '1 hour'")
    with pytest.raises(errors.TooManyRequests) as raised:
        services.access_tokens.refresh_now("default", by=BY)
    assert raised.value.retry_after_s == pytest.approx(60, abs=5)
    clock.advance(61)
    responding(requests_mock)
    assert services.access_tokens.refresh_now("default", by=BY) is Result.STORED


def test_second_looks_take_only_slots_that_nothing_due_needs(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock
) -> None:
    for number in range(5):
        refuse(services, requests_mock, f"refused-{number}")
    clock.advance(901)
    for number in range(3):
        connect_account(services, account_id=f"due-{number}")
    assert [lease.reason for lease in lease_due(services, slots=2)] == ["due", "due"]
    assert sorted(lease.reason for lease in lease_due(services, slots=3)) == [
        "due",
        "second_look",
        "second_look",
    ]
    conn.execute("UPDATE rdstation_tokens SET leased_until = NULL")
    backlog = [lease.reason for lease in lease_due(services, slots=4, backlog=True)]
    assert backlog == ["due", "due", "due", "second_look"]


def test_second_looks_rest_while_the_credentials_are_refused_and_are_never_their_probe(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock
) -> None:
    for number in range(5):
        refuse(services, requests_mock, f"refused-{number}")
    connect_account(services, account_id="healthy")
    refusing(requests_mock, "ACCESS_DENIED")
    services.refresher.refresh(lease_one(services))
    conn.execute("UPDATE rdstation_tokens SET expires_at = rd_now() + interval '20 hours'")
    clock.advance(3 * HOUR)
    assert [lease.account_id for lease in lease_due(services)] == ["healthy"]
    assert lease_due(services) == []
    clock.advance(credentials.PROBE_EVERY_S + 1)
    responding(requests_mock)
    assert services.refresher.refresh(lease_one(services)) is Result.STORED
    assert {lease.reason for lease in lease_due(services)} == {"second_look"}


@pytest.mark.parametrize("error", ["damaged", "no_refresh_token"])
def test_what_can_never_work_has_no_second_look(
    services: Services, conn: Conn, clock: Clock, error: str
) -> None:
    connect_account(services)
    if error == "damaged":
        conn.execute("UPDATE rdstation_tokens SET refresh_token = left(refresh_token, -4) || 'AAAA'")
        assert services.refresher.refresh(lease_one(services)) is Result.REFUSED
    else:
        conn.execute(
            "UPDATE rdstation_tokens SET status = 'reauthorization_required', last_error = %s", [error]
        )
    clock.advance(20 * HOUR)
    assert lease_due(services) == []


def test_a_value_that_was_damaged_since_its_refusal_has_no_further_look(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock
) -> None:
    refuse(services, requests_mock)
    conn.execute("UPDATE rdstation_tokens SET refresh_token = left(refresh_token, -4) || 'AAAA'")
    clock.advance(901)
    services.refresher.refresh(lease_one(services))
    assert row(conn)["last_error"] == "damaged"
    clock.advance(10 * HOUR)
    assert lease_due(services) == []


def test_rows_that_an_earlier_version_refused_have_no_second_look(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock
) -> None:
    connect_account(services)
    conn.execute(
        "UPDATE rdstation_tokens SET status = 'reauthorization_required', last_error = 'revoked', refusals = 1"
    )
    clock.advance(7 * HOUR)
    assert lease_due(services) == []


@pytest.mark.parametrize(
    ("names", "other_lives", "looks"),
    [
        (("Acme", "Acme"), True, False),
        (("Acme", "Acme"), False, True),
        (("Acme", "Other"), True, True),
        ((None, None), True, True),
    ],
)
def test_a_refused_row_is_left_alone_while_another_row_of_the_same_name_works(
    services: Services,
    conn: Conn,
    requests_mock: Mocker,
    clock: Clock,
    names: tuple[str | None, str | None],
    other_lives: bool,
    looks: bool,
) -> None:
    refuse(services, requests_mock)
    connect_account(services, account_id="second", due=False)
    for account_id, name in zip(("default", "second"), names, strict=True):
        conn.execute("UPDATE rdstation_tokens SET name = %s WHERE account_id = %s", [name, account_id])
    if not other_lives:
        conn.execute(
            "UPDATE rdstation_tokens SET status = 'reauthorization_required' WHERE account_id = 'second'"
        )
    clock.advance(901)
    sent = requests_mock.call_count
    services.refresher.refresh(lease_one(services))
    assert requests_mock.call_count - sent == (1 if looks else 0)
    assert lease_due(services) == [], "the next look comes later"


def test_second_looks_count_apart_and_in_no_metric_of_failures(
    connected: Services, sandbox: SandboxProcess, clock: Clock
) -> None:
    connect_account(connected, sandbox)
    sandbox.revoke()
    assert connected.refresher.refresh(lease_one(connected)) is Result.REFUSED
    before = connected.metrics.current()
    clock.advance(901)
    assert connected.refresher.refresh(lease_one(connected)) is Result.REFUSED
    after = connected.metrics.current()
    changed = {series for series, value in after.items() if value != before[series]}
    counted = [series for series in changed if not series[0].startswith("rdstation_api_request")]
    assert counted == [("rdstation_token_refreshes_total", (("result", "second_look"),))]


def test_a_second_look_without_the_key_is_left_to_a_worker_that_has_it(
    services: Services,
    variables: dict[str, str],
    make_services: Callable[[Settings], Services],
    requests_mock: Mocker,
    clock: Clock,
) -> None:
    refuse(services, requests_mock)
    other = make_services(
        Settings.from_mapping(variables | {"TOKEN_ENCRYPTION_KEYS": Fernet.generate_key().decode()})
    )
    clock.advance(901)
    with pytest.raises(KeyMissing):
        other.refresher.refresh(lease_one(other))
    assert lease_due(other) == []
    clock.advance(301)
    responding(requests_mock)
    assert services.refresher.refresh(lease_one(services)) is Result.STORED


def test_an_upload_and_the_kept_pair_are_looked_at_in_turn(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock
) -> None:
    connect_account(services)
    upload(services, "uploaded")
    refusing(requests_mock)
    for _ in range(2):
        services.refresher.refresh(lease_one(services))
    assert row(conn)["status"] == "reauthorization_required"
    presented = []
    for _ in range(3):
        clock.advance(3 * HOUR)
        services.refresher.refresh(lease_one(services))
        presented.append(requests_mock.request_history[-1].json()["refresh_token"])
    assert presented == ["uploaded", "refresh-of-default", "uploaded"]
    responding(requests_mock)
    clock.advance(7 * HOUR)
    assert services.refresher.refresh(lease_one(services)) is Result.STORED
    assert (row(conn)["status"], kept(services, conn)) == ("connected", [])


def test_a_new_authorization_ends_the_second_looks(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock
) -> None:
    refuse(services, requests_mock)
    connect_account(services, due=False)
    clock.advance(901)
    assert lease_due(services) == []
    assert (row(conn)["second_look_at"], row(conn)["second_looks"]) == (None, 0)


def test_a_second_look_that_is_overtaken_by_a_new_authorization_changes_nothing(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock
) -> None:
    refuse(services, requests_mock)
    clock.advance(901)
    look = lease_one(services)

    def respond(_request: Any, context: Any) -> dict[str, str]:
        connect_account(services, due=False)
        context.status_code = 401
        return {"error_type": "INVALID_REFRESH_TOKEN"}

    requests_mock.post(TOKEN_URL, json=respond)
    assert services.refresher.refresh(look) is Result.SUPERSEDED
    assert row(conn)["status"] == "connected"
    assert attempts_of(conn)[-1] == ("superseded", "revoked")


def test_second_looks_read_only_what_is_due_among_many_refused_rows(services: Services, conn: Conn) -> None:
    conn.execute(
        "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, expires_at, status, second_look_at,"
        " leased_until)"
        " SELECT 'refused-' || n, '', '', rd_now() + interval '1 day', 'reauthorization_required',"
        " CASE WHEN n % 2 = 0 THEN rd_now() END + n * interval '1 s',"
        " CASE WHEN n < 1000 THEN rd_now() + interval '1 hour' END FROM generate_series(1, 20000) n"
    )
    conn.execute("VACUUM (ANALYZE) rdstation_tokens")
    explain = f"EXPLAIN (ANALYZE, BUFFERS) {lease_sql.PICK_SECOND_LOOKS}".encode()
    plan = "\n".join(line for (line,) in conn.execute(explain, {"slots": 32}))
    assert "Index Scan using rdstation_tokens_second_looks" in plan
    assert "Sort" not in plan
    buffers = re.search(r"shared ([a-z0-9= ]+)", plan)
    assert buffers is not None
    assert sum(map(int, re.findall(r"(?:hit|read)=(\d+)", buffers[0]))) <= 10
