"""A good response for an account that was removed during the exchange: nobody else could end its tokens."""

import logging
from typing import Any

import psycopg
import pytest
import requests
from requests_mock import Mocker

from rdservice.services import Services
from rdservice.tokens.refresh import Result
from tests.support.accounts import attempts_of, connect_account, lease_due, row

Conn = psycopg.Connection[Any]
TOKEN_URL = "http://127.0.0.1:9/auth/token"
REVOKE_URL = "http://127.0.0.1:9/auth/revoke"
PAIR = {"access_token": "the-new-access", "refresh_token": "the-new-refresh", "expires_in": 86_400}


def refresh_while(services: Services, conn: Conn, requests_mock: Mocker, *statements: str) -> Result:
    """Refresh `default`, and run the statements while RD Station responds."""

    def respond(_request: Any, _context: Any) -> dict[str, Any]:
        for statement in statements:
            conn.execute(statement.encode())
        return PAIR

    requests_mock.post(TOKEN_URL, json=respond)
    (lease,) = [found for found in lease_due(services) if found.account_id == "default"]
    return services.refresher.refresh(lease)


def revoked(requests_mock: Mocker) -> list[str]:
    return [found.text for found in requests_mock.request_history if found.url == REVOKE_URL]


def name(conn: Conn, account_id: str, called: str | None) -> None:
    conn.execute("UPDATE rdstation_tokens SET name = %s WHERE account_id = %s", [called, account_id])


REMOVE = "DELETE FROM rdstation_tokens WHERE account_id = 'default'"


def test_the_new_tokens_of_a_removed_account_are_revoked(
    services: Services, conn: Conn, requests_mock: Mocker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    requests_mock.post(REVOKE_URL, json={})
    connect_account(services)
    assert refresh_while(services, conn, requests_mock, REMOVE) is Result.SUPERSEDED
    (body,) = revoked(requests_mock)
    assert "token=the-new-access" in body
    assert attempts_of(conn) == [("superseded", None)]
    assert "were revoked at RD Station (HTTP 200)" in caplog.text
    assert "the-new" not in caplog.text


@pytest.mark.parametrize("response", [{"exc": requests.ConnectionError}, {"status_code": 503}])
def test_a_revocation_that_fails_is_logged_and_changes_nothing(
    services: Services,
    conn: Conn,
    requests_mock: Mocker,
    caplog: pytest.LogCaptureFixture,
    response: dict[str, Any],
) -> None:
    requests_mock.post(REVOKE_URL, **response)
    connect_account(services)
    assert refresh_while(services, conn, requests_mock, REMOVE) is Result.SUPERSEDED
    assert len(revoked(requests_mock)) == 1
    assert "was removed during its refresh" in caplog.text


def test_an_account_that_was_connected_again_meanwhile_is_not_cut_off(
    services: Services, conn: Conn, requests_mock: Mocker
) -> None:
    connect_account(services)
    again = (
        "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token) VALUES ('default', 'a', 'r')"
    )
    assert refresh_while(services, conn, requests_mock, REMOVE, again) is Result.SUPERSEDED
    assert revoked(requests_mock) == []


@pytest.mark.parametrize(
    ("ours", "theirs", "may_be_the_same"),
    [
        ("Acme", "Acme", True),
        ("Acme", None, True),
        (None, "Acme", True),
        (None, None, True),
        ("Acme", "Other", False),
    ],
)
def test_tokens_that_may_belong_to_the_rd_station_account_of_another_row_are_spared(
    services: Services,
    conn: Conn,
    requests_mock: Mocker,
    ours: str | None,
    theirs: str | None,
    may_be_the_same: bool,
) -> None:
    requests_mock.post(REVOKE_URL, json={})
    connect_account(services)
    connect_account(services, account_id="second", due=False)
    name(conn, "default", ours)
    name(conn, "second", theirs)
    refresh_while(services, conn, requests_mock, REMOVE)
    assert len(revoked(requests_mock)) == (0 if may_be_the_same else 1)


def test_a_response_that_a_newer_authorization_replaced_is_not_revoked(
    services: Services, conn: Conn, requests_mock: Mocker
) -> None:
    connect_account(services)
    newer = "UPDATE rdstation_tokens SET authorization_id = gen_random_uuid()"
    assert refresh_while(services, conn, requests_mock, newer) is Result.SUPERSEDED
    assert revoked(requests_mock) == []
    assert row(conn)["status"] == "connected"
