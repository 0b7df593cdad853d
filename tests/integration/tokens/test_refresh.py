"""One refresh: each answer of the token endpoint and what follows from it."""

import dataclasses
import logging
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import requests
from cryptography.fernet import Fernet
from requests_mock import Mocker

from rdservice.config.settings import Settings
from rdservice.database.pool import transaction
from rdservice.encryption import KeyMissing
from rdservice.services import Services
from rdservice.tokens import credentials, leases
from rdservice.tokens.refresh import Result
from tests.conftest import Clock
from tests.support.accounts import attempts_of, connect_account, lease_due, lease_one, row, stored_pair
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
TOKEN_URL = "http://127.0.0.1:9/auth/token"


def refusal(error_type: str) -> dict[str, Any]:
    return {"error_type": error_type, "error_message": "said RD Station"}


def renew(services: Services) -> Result:
    return services.refresher.refresh(lease_one(services))


def without_the_key(make_services: Callable[[Settings], Services], variables: dict[str, str]) -> Services:
    """Return a process that has another encryption key."""
    return make_services(
        Settings.from_mapping(variables | {"TOKEN_ENCRYPTION_KEYS": Fernet.generate_key().decode()})
    )


def test_a_refresh_stores_what_rd_station_answers(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    before = connect_account(connected, sandbox)
    assert renew(connected) is Result.STORED
    found = row(conn)
    assert stored_pair(connected, conn)[0] != before["access_token"]
    assert (found["status"], found["holder"], found["leased_until"], found["failures"]) == (
        "connected",
        None,
        None,
        0,
    )
    assert attempts_of(conn) == [("stored", None)]
    assert sandbox.calls()["token_refresh"] == {"200": 1}


def test_a_rotated_refresh_token_is_stored(connected: Services, sandbox: SandboxProcess, conn: Conn) -> None:
    sandbox.patch(rotate_refresh_tokens=True)
    before = connect_account(connected, sandbox)
    for _ in range(3):
        assert renew(connected) is Result.STORED
        conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now()")
    assert stored_pair(connected, conn)[1] != before["refresh_token"]
    assert sandbox.calls()["token_refresh"] == {"200": 3}


@pytest.mark.parametrize(
    ("response", "result", "status", "error"),
    [
        ({"text": "<html>maintenance</html>"}, "transient", "connected", "bad_payload"),
        ({"text": '{"access_token": "cut o'}, "transient", "connected", "bad_payload"),
        ({"json": []}, "transient", "connected", "bad_payload"),
        ({"json": {"error": "oops"}}, "transient", "connected", "bad_payload"),
        ({"json": {"access_token": "", "refresh_token": "r"}}, "transient", "connected", "bad_payload"),
        ({"json": {"access_token": 7, "refresh_token": "r"}}, "transient", "connected", "bad_payload"),
        ({"json": {"access_token": "a", "refresh_token": 7}}, "transient", "connected", "bad_payload"),
        (
            {"status_code": 401, "json": refusal("INVALID_REFRESH_TOKEN")},
            "refused",
            "reauthorization_required",
            "revoked",
        ),
        (
            {"status_code": 400, "json": {"error": "invalid_grant"}},
            "refused",
            "reauthorization_required",
            "revoked",
        ),
        (
            {"status_code": 401, "json": {"errors": refusal("INVALID_REFRESH_TOKEN")}},
            "refused",
            "reauthorization_required",
            "revoked",
        ),
        ({"status_code": 401, "json": refusal("UNAUTHORIZED")}, "transient", "connected", "unauthorized"),
        ({"status_code": 401, "text": "who are you"}, "transient", "connected", "unauthorized"),
        (
            {"status_code": 401, "json": refusal("ACCESS_DENIED")},
            "transient",
            "credentials_refused",
            "credentials",
        ),
        ({"status_code": 429, "headers": {"Retry-After": "7"}}, "transient", "connected", "rate_limited"),
        ({"status_code": 429}, "transient", "connected", "rate_limited"),
        (
            {"status_code": 302, "headers": {"Location": "http://elsewhere.example"}},
            "transient",
            "connected",
            "client_error",
        ),
        ({"status_code": 403, "text": "gateway"}, "transient", "connected", "client_error"),
        ({"status_code": 404}, "transient", "connected", "client_error"),
        (
            {"status_code": 400, "json": {"error": "invalid_request"}},
            "transient",
            "connected",
            "client_error",
        ),
        ({"status_code": 500}, "transient", "connected", "server_error"),
        ({"status_code": 503}, "transient", "connected", "server_error"),
        ({"exc": requests.ConnectTimeout}, "transient", "connected", "timeout"),
        ({"exc": requests.ReadTimeout}, "transient", "connected", "timeout"),
        ({"exc": requests.ConnectionError}, "transient", "connected", "connection"),
    ],
)
def test_an_answer_without_a_usable_pair_keeps_the_stored_one(
    services: Services,
    conn: Conn,
    requests_mock: Mocker,
    response: dict[str, Any],
    result: str,
    status: str,
    error: str,
) -> None:
    pair = connect_account(services)
    requests_mock.post(TOKEN_URL, **response)
    assert renew(services) == result
    found = row(conn)
    assert stored_pair(services, conn) == (pair["access_token"], pair["refresh_token"])
    assert (found["status"], found["last_error"], found["holder"]) == (status, error, None)
    assert attempts_of(conn) == [(result, error)]


@pytest.mark.parametrize("expires_in", [None, 0, -5, "soon", True, 10**12])
def test_an_absurd_expires_in_counts_as_a_day_and_is_on_record(
    services: Services, conn: Conn, requests_mock: Mocker, expires_in: object
) -> None:
    connect_account(services)
    requests_mock.post(TOKEN_URL, json={"access_token": "a", "refresh_token": "r", "expires_in": expires_in})
    assert renew(services) is Result.STORED
    found = row(conn)
    assert (found["expires_at"] - found["issued_at"]).total_seconds() == 86_400
    assert attempts_of(conn) == [("stored", "expires_in_assumed")]


def test_another_401_counts_as_a_refusal_only_after_three_over_ten_minutes(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock
) -> None:
    connect_account(services)
    requests_mock.post(TOKEN_URL, status_code=401, json=refusal("UNAUTHORIZED"))
    results = []
    for _ in range(3):
        results.append(renew(services))
        clock.advance(302)
    assert results == [Result.TRANSIENT, Result.TRANSIENT, Result.REFUSED]
    assert row(conn)["status"] == "reauthorization_required"


def test_a_good_answer_forgets_earlier_refusals(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock
) -> None:
    connect_account(services)
    for _ in range(2):
        requests_mock.post(TOKEN_URL, status_code=401, json=refusal("UNAUTHORIZED"))
        renew(services)
        clock.advance(302)
    requests_mock.post(TOKEN_URL, json={"access_token": "a", "expires_in": 86_400})
    assert renew(services) is Result.STORED
    assert (row(conn)["refusals"], row(conn)["refused_since"]) == (0, None)


def test_wrong_credentials_blame_the_settings_and_one_account_asks_again_every_five_minutes(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock
) -> None:
    for number in range(5):
        connect_account(services, account_id=f"account-{number}")
    requests_mock.post(TOKEN_URL, status_code=401, json=refusal("ACCESS_DENIED"))
    assert services.refresher.refresh(lease_due(services, slots=1)[0]) is Result.TRANSIENT
    assert lease_due(services) == []
    clock.advance(credentials.PROBE_EVERY_S + 1)
    probes = lease_due(services)
    assert len(probes) == 1
    assert lease_due(services) == []
    requests_mock.post(TOKEN_URL, json={"access_token": "a", "refresh_token": "r", "expires_in": 86_400})
    assert services.refresher.refresh(probes[0]) is Result.STORED
    rest = lease_due(services)
    assert len(rest) == 4
    for lease in rest:
        assert services.refresher.refresh(lease) is Result.STORED
    statuses = conn.execute("SELECT DISTINCT status FROM rdstation_tokens").fetchall()
    assert statuses == [("connected",)]


def test_a_probe_is_not_used_up_when_nothing_is_due(
    services: Services, requests_mock: Mocker, clock: Clock
) -> None:
    connect_account(services)
    requests_mock.post(TOKEN_URL, status_code=401, json=refusal("ACCESS_DENIED"))
    renew(services)
    clock.advance(credentials.PROBE_EVERY_S + 1)
    with transaction(services.pool) as conn:
        conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now() + interval '1 hour'")
    assert lease_due(services) == []
    with transaction(services.pool) as conn:
        conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now()")
    assert len(lease_due(services)) == 1


def test_access_denied_is_one_accounts_matter_when_another_exchange_worked_within_the_hour(
    services: Services, conn: Conn, requests_mock: Mocker
) -> None:
    connect_account(services, account_id="good")
    requests_mock.post(TOKEN_URL, json={"access_token": "a", "refresh_token": "r", "expires_in": 86_400})
    assert renew(services) is Result.STORED
    connect_account(services, account_id="odd")
    connect_account(services, account_id="other")
    requests_mock.post(TOKEN_URL, status_code=401, json=refusal("ACCESS_DENIED"))
    assert services.refresher.refresh(lease_due(services, slots=1)[0]) is Result.TRANSIENT
    assert len(lease_due(services)) == 1, "the gate must stay open"
    assert (
        conn.execute("SELECT 1 FROM rdstation_tokens WHERE status = 'credentials_refused'").fetchone() is None
    )


def test_a_secret_that_stops_working_is_never_held_against_an_account(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock
) -> None:
    connect_account(services, account_id="renewed just before")
    requests_mock.post(TOKEN_URL, json={"access_token": "a", "refresh_token": "r", "expires_in": 86_400})
    assert renew(services) is Result.STORED
    requests_mock.post(TOKEN_URL, status_code=401, json=refusal("ACCESS_DENIED"))
    connect_account(services, account_id="due now")
    for _ in range(10):
        assert renew(services) is Result.TRANSIENT
        assert row(conn, "due now")["status"] == "connected"
        clock.advance(302)
    clock.advance(credentials.PROVEN_FOR_S - 10 * 302)
    assert renew(services) is Result.TRANSIENT
    assert row(conn, "due now")["status"] == "credentials_refused"


def test_refusals_of_the_credentials_do_not_add_up_with_another_401(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock
) -> None:
    connect_account(services, account_id="renewed just before")
    requests_mock.post(TOKEN_URL, json={"access_token": "a", "refresh_token": "r", "expires_in": 86_400})
    assert renew(services) is Result.STORED
    connect_account(services, account_id="due now")
    requests_mock.post(TOKEN_URL, status_code=401, json=refusal("ACCESS_DENIED"))
    for _ in range(3):
        renew(services)
        clock.advance(302)
    requests_mock.post(TOKEN_URL, status_code=401, text='{"errors": {"error_type": "ACCESS_DE')
    assert renew(services) is Result.TRANSIENT
    assert row(conn, "due now")["status"] == "connected"


def test_an_account_that_alone_is_denied_does_not_keep_the_others_from_being_tried(
    services: Services, conn: Conn, requests_mock: Mocker, clock: Clock
) -> None:
    connect_account(services, account_id="denied")
    requests_mock.post(TOKEN_URL, status_code=401, json=refusal("ACCESS_DENIED"))
    renew(services)
    assert row(conn, "denied")["status"] == "credentials_refused"
    conn.execute(
        "UPDATE rdstation_tokens SET refresh_after = rd_now() - interval '1 day', expires_at = rd_now()"
    )
    connect_account(services, account_id="good")
    probed = []
    for _ in range(4):
        clock.advance(credentials.PROBE_EVERY_S + 1)
        probe = lease_one(services)
        probed.append(probe.account_id)
        services.refresher.refresh(probe)
    assert set(probed) == {"denied", "good"}


def test_a_changed_list_of_secrets_makes_all_refused_accounts_due(
    services: Services,
    variables: dict[str, str],
    make_services: Callable[[Settings], Services],
    requests_mock: Mocker,
) -> None:
    for number in range(3):
        connect_account(services, account_id=f"account-{number}")
    requests_mock.post(TOKEN_URL, status_code=401, json=refusal("ACCESS_DENIED"))
    for lease in lease_due(services):
        services.refresher.refresh(lease)
    assert lease_due(services) == []
    mended = make_services(Settings.from_mapping(variables | {"RDSTATION_CLIENT_SECRET": "the-new-secret"}))
    assert len(lease_due(mended)) == 3


def test_a_second_secret_is_tried_when_the_first_is_refused(
    variables: dict[str, str], make_services: Callable[[Settings], Services], sandbox: SandboxProcess
) -> None:
    both = variables | {
        "RDSTATION_API_URL": sandbox.url,
        "RDSTATION_CLIENT_SECRET": f"not-yet-valid,{sandbox.client_secret}",
    }
    services = make_services(Settings.from_mapping(both))
    connect_account(services, sandbox)
    assert renew(services) is Result.STORED
    assert sandbox.calls()["token_refresh"] == {"401": 1, "200": 1}


def test_a_revoked_account_is_noticed_at_the_first_attempt(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox)
    sandbox.revoke()
    assert renew(connected) is Result.REFUSED
    assert (row(conn)["status"], row(conn)["last_error"]) == ("reauthorization_required", "revoked")


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncated", "html"])
def test_an_attempt_that_may_have_taken_effect_is_marked_so(
    connected: Services, sandbox: SandboxProcess, conn: Conn, kind: str
) -> None:
    connect_account(connected, sandbox)
    sandbox.patch(faults=[{"operation": "token_refresh", "kind": kind, "count": 1}])
    assert renew(connected) is Result.TRANSIENT
    (unknown,) = conn.execute("SELECT answer_unknown FROM rdstation_refresh_attempts").fetchone() or (None,)
    assert unknown is True
    assert sum(sandbox.calls()["token_refresh"].values()) == 1, "an exchange is never repeated by itself"


def test_an_attempt_that_never_left_is_not_marked_as_lost(services: Services, conn: Conn) -> None:
    connect_account(services)
    assert renew(services) is Result.TRANSIENT
    assert conn.execute("SELECT answer_unknown, error FROM rdstation_refresh_attempts").fetchone() == (
        False,
        "connection",
    )


def test_a_lost_rotated_answer_is_named_answer_lost_and_not_revoked(
    connected: Services, sandbox: SandboxProcess, conn: Conn, clock: Clock
) -> None:
    sandbox.patch(
        rotate_refresh_tokens=True, faults=[{"operation": "token_refresh", "kind": "drop_after", "count": 1}]
    )
    connect_account(connected, sandbox)
    assert renew(connected) is Result.TRANSIENT
    for _ in range(3):
        assert row(conn)["status"] == "connected"
        clock.advance(700)
        renew(connected)
    assert (row(conn)["status"], row(conn)["last_error"]) == ("reauthorization_required", "answer_lost")


def test_nothing_is_sent_when_too_little_of_the_lease_is_left(
    connected: Services, sandbox: SandboxProcess, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_account(connected, sandbox)
    lease = lease_one(connected)
    monkeypatch.setattr(leases, "LEASE_S", 24.9)
    assert connected.refresher.refresh(lease) is Result.SUPERSEDED
    assert sandbox.calls()["token_refresh"] == {}
    assert attempts_of(conn) == [("released", None)]


def test_nothing_is_sent_when_another_took_the_claim_over(
    connected: Services, sandbox: SandboxProcess, clock: Clock
) -> None:
    connect_account(connected, sandbox)
    late = lease_one(connected)
    clock.advance(leases.LEASE_S + 1)
    current = lease_one(connected)
    assert connected.refresher.refresh(late) is Result.SUPERSEDED
    assert sandbox.calls()["token_refresh"] == {}
    assert connected.refresher.refresh(current) is Result.STORED


def test_nothing_is_sent_for_a_deleted_account(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox)
    lease = lease_one(connected)
    conn.execute("DELETE FROM rdstation_tokens WHERE account_id = 'default'")
    assert connected.refresher.refresh(lease) is Result.SUPERSEDED
    assert sandbox.calls()["token_refresh"] == {}


def test_a_missing_key_puts_the_row_off_for_workers_and_changes_nothing_else(
    services: Services, variables: dict[str, str], make_services: Callable[[Settings], Services], conn: Conn
) -> None:
    connect_account(services)
    before = row(conn)
    with pytest.raises(KeyMissing):
        without_the_key(make_services, variables).refresher.refresh(lease_one(services))
    after = row(conn)
    unchanged = set(before) - {"now", "attempted_at", "undecryptable_until"}
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}
    assert after["undecryptable_until"] > after["now"]
    assert attempts_of(conn) == [("released", "key_missing")]


def test_a_missing_key_of_a_process_that_serves_requests_puts_nothing_off(
    services: Services, variables: dict[str, str], make_services: Callable[[Settings], Services], conn: Conn
) -> None:
    connect_account(services)
    lease = dataclasses.replace(lease_one(services), reason="early")
    with pytest.raises(KeyMissing):
        without_the_key(make_services, variables).refresher.refresh(lease)
    assert row(conn)["undecryptable_until"] is None
    assert len(lease_due(services)) == 1


def test_a_probe_is_not_used_up_by_an_account_that_cannot_be_opened(
    services: Services,
    variables: dict[str, str],
    make_services: Callable[[Settings], Services],
    conn: Conn,
    requests_mock: Mocker,
    clock: Clock,
) -> None:
    connect_account(without_the_key(make_services, variables), account_id="theirs")
    connect_account(services, account_id="ours")
    requests_mock.post(TOKEN_URL, status_code=401, json=refusal("ACCESS_DENIED"))
    ours = next(lease for lease in lease_due(services) if lease.account_id == "ours")
    assert services.refresher.refresh(ours) is Result.TRANSIENT
    conn.execute(
        "UPDATE rdstation_tokens SET leased_until = NULL, refresh_after = rd_now() - interval '1 hour'"
        " WHERE account_id = 'theirs'"
    )
    clock.advance(credentials.PROBE_EVERY_S + 1)
    (probe,) = lease_due(services)
    assert probe.account_id == "theirs"
    with pytest.raises(KeyMissing):
        services.refresher.refresh(probe)
    (probe,) = lease_due(services)
    assert probe.account_id == "ours"
    assert services.refresher.refresh(probe) is Result.TRANSIENT
    assert lease_due(services) == [], "the gate is closed"


def test_a_damaged_value_needs_a_person_and_is_never_sent(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox)
    conn.execute("UPDATE rdstation_tokens SET refresh_token = left(refresh_token, -4) || 'AAAA'")
    assert renew(connected) is Result.REFUSED
    assert (row(conn)["status"], row(conn)["last_error"]) == ("reauthorization_required", "damaged")
    assert sandbox.calls()["token_refresh"] == {}


def test_no_connection_is_held_during_the_call_to_rd_station(
    connected: Services, sandbox: SandboxProcess
) -> None:
    connect_account(connected, sandbox)
    lease = lease_one(connected)
    sandbox.patch(latency_ms=1500)
    renewing = threading.Thread(target=connected.refresher.refresh, args=[lease])
    renewing.start()
    while not sandbox.report()["in_flight"]:
        assert renewing.is_alive()
    stats = connected.pool.get_stats()
    assert stats["pool_available"] == stats["pool_size"]
    with transaction(connected.pool) as conn:
        idle = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
        assert conn.execute(idle).fetchone() == (0,)
    renewing.join()


def test_an_answer_is_written_as_soon_as_the_database_takes_it(
    connected: Services, sandbox: SandboxProcess, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_account(connected, sandbox)
    lease = lease_one(connected)
    tries = []
    really_store = leases.store

    def fail_twice(*args: Any, **kwargs: Any) -> bool:
        tries.append(1)
        if len(tries) < 3:
            raise psycopg.OperationalError("the disk is full")
        return really_store(*args, **kwargs)

    monkeypatch.setattr(leases, "store", fail_twice)
    assert connected.refresher.refresh(lease) is Result.STORED
    assert len(tries) == 3
    assert sandbox.calls()["token_refresh"] == {"200": 1}
    assert attempts_of(conn) == [("stored", None)]


def test_no_token_and_no_secret_is_logged(
    connected: Services, sandbox: SandboxProcess, caplog: pytest.LogCaptureFixture, conn: Conn
) -> None:
    caplog.set_level(logging.DEBUG)
    pair = connect_account(connected, sandbox)
    renew(connected)
    sandbox.patch(faults=[{"operation": "token_refresh", "kind": "html", "count": 1}])
    conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now()")
    renew(connected)
    secrets = [
        *stored_pair(connected, conn),
        pair["access_token"],
        pair["refresh_token"],
        sandbox.client_secret,
    ]
    assert caplog.text
    for secret in secrets:
        assert secret not in caplog.text
    assert all(secret not in repr(connected) for secret in secrets)
