"""When a refusal is told, and as whose fault."""

from typing import Any

import psycopg
import pytest
from requests_mock import Mocker

from rdservice.diagnosis.facts import database_facts
from rdservice.diagnosis.facts.types import Facts
from rdservice.diagnosis.findings.find import find
from rdservice.notifications import refused_together
from rdservice.notifications.incidents import GATHER_S
from rdservice.services import Services
from rdservice.tokens.refresh import Result
from tests.conftest import Clock
from tests.integration.notifications.conftest import Outbox
from tests.support.accounts import connect_account, lease_due, lease_one

Conn = psycopg.Connection[Any]
TOKEN_URL = "http://127.0.0.1:9/auth/token"


@pytest.fixture(autouse=True)
def _rdstation_refuses(requests_mock: Mocker) -> None:
    requests_mock.post(TOKEN_URL, status_code=401, json={"error_type": "INVALID_REFRESH_TOKEN"})


def refuse(services: Services, account_id: str = "shop", *, left_s: int = 30_000) -> None:
    """Connect an account whose access token lives for `left_s` more seconds, and let its refresh be refused."""
    connect_account(services, account_id=account_id, lifetime_s=left_s)
    assert services.refresher.refresh(lease_one(services)) is Result.REFUSED


def told(outbox: Outbox, clock: Clock) -> list[str]:
    """Return the messages that go out now."""
    outbox.look()
    clock.advance(GATHER_S + 1)
    return outbox.look()


def test_a_refusal_is_told_when_the_first_second_look_is_refused_too(
    services: Services, outbox: Outbox, clock: Clock
) -> None:
    refuse(services)
    clock.advance(800)
    assert told(outbox, clock) == []
    clock.advance(100)
    services.refresher.refresh(lease_one(services))
    [body] = told(outbox, clock)
    assert "shop must be authorized again." in body


def test_a_refusal_that_the_second_look_lifts_is_told_to_nobody(
    services: Services, outbox: Outbox, clock: Clock, requests_mock: Mocker, conn: Conn
) -> None:
    refuse(services)
    outbox.look()
    clock.advance(901)
    requests_mock.post(TOKEN_URL, json={"access_token": "a", "expires_in": 86_400})
    assert services.refresher.refresh(lease_one(services)) is Result.STORED
    assert told(outbox, clock) == []
    assert conn.execute("SELECT count(*) FROM rdservice_incidents").fetchone() == (0,)


@pytest.mark.parametrize(("left_s", "at_once"), [(3500, True), (60, True), (3700, False)])
def test_a_refusal_is_told_at_once_when_the_access_token_ends_within_the_hour(
    services: Services, outbox: Outbox, clock: Clock, left_s: int, at_once: bool
) -> None:
    refuse(services, left_s=left_s)
    assert len(told(outbox, clock)) == (1 if at_once else 0)


def test_a_refusal_is_told_when_the_hour_comes_before_a_second_look_could_be_made(
    services: Services, outbox: Outbox, clock: Clock
) -> None:
    refuse(services, left_s=5000)
    clock.advance(800)
    assert told(outbox, clock) == []
    clock.advance(700)
    assert len(told(outbox, clock)) == 1


def test_an_expiring_account_that_is_refused_stays_an_incident_until_that_is_told(
    services: Services, outbox: Outbox, clock: Clock, conn: Conn
) -> None:
    connect_account(services, account_id="shop", lifetime_s=20_000)
    conn.execute(
        "UPDATE rdstation_tokens SET failures = 3, expires_at = rd_now() + interval '90 minutes',"
        " issued_at = rd_now() - interval '5 hours'"
    )
    [body] = told(outbox, clock)
    assert "expires soon" in body
    services.refresher.refresh(lease_one(services))
    assert told(outbox, clock) == []
    kinds = "SELECT kind FROM rdservice_incidents WHERE closed_at IS NULL"
    assert conn.execute(kinds).fetchall() == [("expiring",)]
    clock.advance(901)
    services.refresher.refresh(lease_one(services))
    outbox.look()
    assert conn.execute(kinds).fetchall() == [("reauthorization_required",)]


def findings(conn: Conn) -> list[tuple[str, str | None]]:
    facts = database_facts.read(conn, keys=None, fingerprint=None, api_url="", scope="")
    found = find(Facts(database=facts))
    return [
        (one.code, one.follows_from)
        for one in found
        if one.code in ("refused_together", "reauthorization_required")
    ]


@pytest.mark.parametrize(
    ("accounts", "apart_s", "together"), [(5, 120, True), (12, 50, True), (4, 1, False), (5, 160, False)]
)
def test_accounts_that_are_refused_together_are_one_finding_about_rd_station(
    services: Services, conn: Conn, clock: Clock, accounts: int, apart_s: int, together: bool
) -> None:
    for number in range(accounts):
        refuse(services, f"account-{number}")
        clock.advance(apart_s)
    assert refused_together.count(conn) == (accounts if together else 0)
    cause = "refused_together" if together else None
    expected = [("reauthorization_required", cause)] * accounts
    assert findings(conn) == ([("refused_together", None)] if together else []) + expected


def test_a_renewal_shows_that_rd_station_accepts_refresh_tokens(
    services: Services, conn: Conn, clock: Clock, requests_mock: Mocker
) -> None:
    for number in range(6):
        refuse(services, f"account-{number}")
    connect_account(services, account_id="renewed")
    requests_mock.post(TOKEN_URL, json={"access_token": "a", "expires_in": 86_400})
    clock.advance(60)
    assert services.refresher.refresh(lease_one(services)) is Result.STORED
    assert refused_together.count(conn) == 0


def test_accounts_that_were_refused_together_come_in_one_message_with_other_words(
    services: Services, outbox: Outbox, clock: Clock
) -> None:
    for number in range(7):
        refuse(services, f"account-{number}")
    clock.advance(901)
    for lease in lease_due(services):
        services.refresher.refresh(lease)
    [body] = told(outbox, clock)
    assert "RD Station refused 7 accounts within minutes and renewed none" in body
    assert "O RD Station recusou 7 contas em poucos minutos" in body
    assert "must be authorized again" not in body
    assert "Connect the account again" not in body
    assert "account-6" in body
