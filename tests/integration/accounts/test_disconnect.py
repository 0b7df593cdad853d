"""The removal of an account."""

from typing import Any

import psycopg
import pytest
import requests
from requests_mock import Mocker

from rdservice import errors
from rdservice.accounts import upload as uploads
from rdservice.accounts.disconnect import disconnect
from rdservice.notices import Notice
from rdservice.services import Services
from tests.support.accounts import BY, connect_account
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
API = "http://127.0.0.1:9"


def upload(services: Services, body: dict[str, Any]) -> None:
    uploads.upload(services, uploads.parse_upload(body), by=BY)


def codes(warnings: list[Notice]) -> list[str]:
    return [warning.code for warning in warnings]


def rows_of(conn: Conn) -> int:
    """Return how many pairs are stored, the kept ones included."""
    [(tokens, kept)] = conn.execute(
        "SELECT (SELECT count(*) FROM rdstation_tokens), (SELECT count(*) FROM rdstation_replaced_tokens)"
    ).fetchall()
    return int(tokens) + int(kept)


def test_a_removed_account_is_gone_here_and_revoked_at_rd_station(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    pair = sandbox.pair()
    upload(connected, pair)
    removed = disconnect(connected, "default", by=BY)
    assert (removed.revoked, removed.warnings) == (True, [])
    assert rows_of(conn) == 0
    with pytest.raises(errors.NotConnected):
        connected.access_tokens.usable("default")
    assert connected.rdstation.account_info(pair["access_token"]).status == 401
    assert connected.rdstation.refresh(pair["refresh_token"]).error_type == "INVALID_REFRESH_TOKEN"


def test_an_unknown_account_cannot_be_removed(services: Services, requests_mock: Mocker) -> None:
    with pytest.raises(errors.NotFound):
        disconnect(services, "nobody", by=BY)
    assert requests_mock.request_history == []


@pytest.mark.parametrize(
    "response", [{"exc": requests.ConnectionError}, {"status_code": 500}, {"status_code": 401, "json": {}}]
)
def test_an_account_that_cannot_be_revoked_is_removed_with_a_warning(
    services: Services, conn: Conn, requests_mock: Mocker, response: dict[str, Any]
) -> None:
    requests_mock.post(f"{API}/auth/revoke", **response)
    connect_account(services)
    removed = disconnect(services, "default", by=BY)
    assert (removed.revoked, codes(removed.warnings)) == (False, ["not_revoked"])
    assert rows_of(conn) == 0


def test_a_token_that_cannot_be_decrypted_is_removed_without_revoking(
    services: Services, conn: Conn, requests_mock: Mocker
) -> None:
    connect_account(services)
    conn.execute("UPDATE rdstation_tokens SET access_token = 'planted'")
    removed = disconnect(services, "default", by=BY)
    assert (removed.revoked, codes(removed.warnings)) == (False, ["not_revoked"])
    assert "planted" not in removed.warnings[0].text
    assert requests_mock.request_history == []


def test_an_rd_station_account_that_is_used_twice_is_revoked_with_the_last(
    connected: Services, sandbox: SandboxProcess
) -> None:
    upload(connected, sandbox.pair() | {"account_id": "one"})
    pair = sandbox.pair()
    upload(connected, pair | {"account_id": "two"})
    (warning,) = disconnect(connected, "one", by=BY).warnings
    assert (warning.code, warning.values) == ("kept_for_others", {"accounts": "two"})
    assert "Do not remove the app" in warning.text
    assert connected.rdstation.account_info(pair["access_token"]).status == 200
    assert disconnect(connected, "two", by=BY).revoked


def test_an_account_that_may_be_used_twice_is_not_revoked_and_the_words_do_not_say_to_remove_the_app(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    pair = sandbox.pair()
    upload(connected, pair | {"account_id": "one"})
    upload(connected, sandbox.pair("account-2") | {"account_id": "two"})
    conn.execute("UPDATE rdstation_tokens SET name = NULL WHERE account_id = 'two'")
    (warning,) = disconnect(connected, "one", by=BY).warnings
    assert (warning.code, warning.values) == ("kept_to_be_safe", {"accounts": "two"})
    assert connected.rdstation.account_info(pair["access_token"]).status == 200


def test_tokens_that_cannot_be_decrypted_are_no_reason_to_remove_an_app_that_another_account_uses(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    for name in ("one", "two"):
        upload(connected, sandbox.pair() | {"account_id": name})
    conn.execute("UPDATE rdstation_tokens SET access_token = 'planted' WHERE account_id = 'one'")
    assert codes(disconnect(connected, "one", by=BY).warnings) == ["kept_for_others"]
