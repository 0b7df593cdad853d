"""What becomes an incident, when it is over, and that it is told once."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from rdservice.config.settings import Settings
from rdservice.database.pool import transaction
from rdservice.notifications import deliveries, incidents
from rdservice.notifications.deliveries import APART_S, TEST_EVERY_S
from rdservice.notifications.incidents import GATHER_S, WELL_FOR_S
from rdservice.services import Services
from tests.conftest import Clock
from tests.integration.notifications.conftest import Outbox
from tests.support.accounts import connect_account

Conn = psycopg.Connection[Any]
Trouble = Callable[..., None]
HOUR_S = 3600


@pytest.fixture
def account(services: Services) -> None:
    """The account `default`, connected; nobody refreshes its token."""
    connect_account(services)


@pytest.fixture
def open_incident(outbox: Outbox, trouble: Trouble) -> None:
    """The account `shop` must be authorized again; a look has found that and told nobody yet."""
    trouble("shop")
    assert outbox.look() == [], "others of the same cause are waited for"


@pytest.fixture
def told_incident(open_incident: None, outbox: Outbox, clock: Clock) -> str:
    """The message about `shop`, which has just gone out."""
    clock.advance(GATHER_S + 1)
    [body] = outbox.look()
    return body


def kinds(conn: Conn) -> list[tuple[str, str | None]]:
    return [(found.kind, found.account_id) for found in incidents.open_now(conn, limit=100)]


def last_delivery(conn: Conn) -> deliveries.Delivery:
    return deliveries.newest(conn, limit=1)[0]


def recover(conn: Conn, account_id: str = "default") -> None:
    conn.execute(
        "UPDATE rdstation_tokens SET status = 'connected', last_error = NULL, failures = 0, expires_at = rd_now()"
        " + interval '1 day', issued_at = rd_now(), refresh_after = rd_now() + interval '15 hours', retry_at = NULL"
        " WHERE account_id = %s",
        [account_id],
    )


def test_an_account_that_must_be_authorized_again_is_told_once_with_its_link(
    outbox: Outbox, trouble: Trouble, clock: Clock
) -> None:
    trouble("shop", name="Padaria Um")
    assert outbox.look() == [], "others of the same cause are waited for"
    clock.advance(GATHER_S + 1)
    [body] = outbox.look()
    assert "Padaria Um (shop) precisa ser autorizada de novo." in body
    assert body.count("): http://localhost:8000/accounts/shop") == 2
    for _ in range(5):
        clock.advance(HOUR_S)
        assert outbox.look() == []


@pytest.mark.usefixtures("told_incident")
def test_a_restarted_or_further_worker_tells_nothing_again(outbox: Outbox, clock: Clock) -> None:
    clock.advance(HOUR_S)
    outbox.notifier = outbox.another()
    assert outbox.look() == []


@pytest.mark.usefixtures("account")
def test_a_failing_renewal_is_told_when_a_quarter_of_the_life_is_left(
    outbox: Outbox, conn: Conn, clock: Clock
) -> None:
    conn.execute("UPDATE rdstation_tokens SET failures = 3, last_error = 'timeout'")
    clock.advance(17 * HOUR_S)
    outbox.look()
    assert kinds(conn) == []
    clock.advance(HOUR_S + 60)
    outbox.look()
    assert kinds(conn) == [("expiring", "default")]
    clock.advance(GATHER_S + 1)
    [body] = outbox.look()
    assert "token válido até" in body
    assert "token valid until" in body


@pytest.mark.usefixtures("account")
def test_a_token_that_nobody_renews_at_all_is_told_too(outbox: Outbox, conn: Conn, clock: Clock) -> None:
    clock.advance(19 * HOUR_S)
    outbox.look()
    assert kinds(conn) == [("expiring", "default")]


def test_a_healthy_account_is_no_incident_whatever_its_age(
    outbox: Outbox, services: Services, conn: Conn, clock: Clock
) -> None:
    connect_account(services, due=False)
    clock.advance(15 * HOUR_S)
    outbox.look()
    assert kinds(conn) == []


def test_refused_credentials_are_one_incident_of_the_service_and_not_of_each_account(
    outbox: Outbox, services: Services, conn: Conn, clock: Clock
) -> None:
    for number in range(20):
        connect_account(services, account_id=f"account-{number}")
    conn.execute("UPDATE rdstation_tokens SET status = 'credentials_refused', failures = 1")
    outbox.look()
    assert kinds(conn) == [("credentials_refused", None)]
    clock.advance(GATHER_S + 1)
    [body] = outbox.look()
    assert "RDSTATION_CLIENT_SECRET" in body
    assert "account-1" not in body
    clock.advance(20 * HOUR_S)
    assert outbox.look() == []


@pytest.mark.usefixtures("told_incident")
def test_recovered_is_told_after_some_minutes_and_once(outbox: Outbox, conn: Conn, clock: Clock) -> None:
    recover(conn, "shop")
    assert outbox.look() == []
    clock.advance(WELL_FOR_S - 60)
    assert outbox.look() == []
    clock.advance(61)
    [body] = outbox.look()
    assert "Voltou ao normal" in body
    assert "Back to normal" in body
    clock.advance(HOUR_S)
    assert outbox.look() == []


@pytest.mark.usefixtures("account")
def test_credentials_that_work_again_are_told(outbox: Outbox, conn: Conn, clock: Clock) -> None:
    conn.execute("UPDATE rdstation_tokens SET status = 'credentials_refused'")
    outbox.look()
    clock.advance(HOUR_S)
    assert len(outbox.look()) == 1
    recover(conn)
    conn.execute(
        "INSERT INTO rdstation_client_credentials (fingerprint, last_success_at) VALUES ('f', rd_now())"
    )
    outbox.look()
    clock.advance(WELL_FOR_S + 1)
    [body] = outbox.look()
    assert "Client ID e client secret" in body


@pytest.mark.usefixtures("told_incident")
def test_what_comes_and_goes_is_one_incident(outbox: Outbox, conn: Conn, clock: Clock) -> None:
    for _ in range(10):
        recover(conn, "shop")
        clock.advance(WELL_FOR_S / 2)
        assert outbox.look() == []
        conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required'")
        clock.advance(WELL_FOR_S / 2)
        assert outbox.look() == []


@pytest.mark.usefixtures("open_incident")
def test_what_is_over_before_it_was_told_is_not_told_at_all(outbox: Outbox, conn: Conn, clock: Clock) -> None:
    outbox.failing = "connection"
    clock.advance(GATHER_S + 1)
    outbox.look()
    recover(conn, "shop")
    outbox.look()
    clock.advance(WELL_FOR_S + 1)
    outbox.failing = None
    outbox.notifier.compare()
    assert outbox.look() == []
    clock.advance(HOUR_S)
    assert outbox.look() == []
    outcomes = {delivery.outcome for delivery in deliveries.newest(conn, limit=10)}
    assert outcomes == {"not_needed"}


@pytest.mark.usefixtures("told_incident")
def test_a_disconnected_account_ends_its_incident_in_silence(
    outbox: Outbox, conn: Conn, clock: Clock
) -> None:
    conn.execute("DELETE FROM rdstation_tokens")
    assert outbox.look() == []
    assert kinds(conn) == []
    clock.advance(HOUR_S)
    assert outbox.look() == []


@pytest.mark.usefixtures("account")
def test_an_expiring_account_that_then_must_be_authorized_is_told_of_that(
    outbox: Outbox, conn: Conn, clock: Clock
) -> None:
    conn.execute("UPDATE rdstation_tokens SET failures = 3")
    clock.advance(19 * HOUR_S)
    outbox.look()
    clock.advance(HOUR_S)
    assert len(outbox.look()) == 1
    conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required'")
    outbox.look()
    clock.advance(HOUR_S)
    [body] = outbox.look()
    assert "precisa ser autorizada de novo" in body
    assert "Voltou" not in body


def test_two_thousand_accounts_come_in_one_message_that_names_ten(
    outbox: Outbox, services: Services, conn: Conn, clock: Clock
) -> None:
    connect_account(services, due=False)
    conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required'")
    conn.execute(
        "INSERT INTO rdstation_tokens (account_id, status)"
        " SELECT 'account-' || n, 'reauthorization_required' FROM generate_series(2, 2000) n"
    )
    outbox.look()
    clock.advance(GATHER_S + 1)
    [body] = outbox.look()
    portuguese = body.partition("— English —")[0]
    assert portuguese.count("/accounts/") == 10
    assert "e mais 1990" in portuguese
    assert "(2000)" in outbox.titles[-1]


def test_accounts_that_fail_one_after_the_other_come_in_ever_rarer_messages(
    outbox: Outbox, trouble: Trouble, clock: Clock
) -> None:
    sent = 0
    for number in range(360):
        trouble(f"account-{number}")
        sent += len(outbox.look())
        clock.advance(60)
    assert 3 <= sent <= 12, "six hours, an account a minute"


def test_the_next_message_waits_until_the_last_one_is_old_enough(
    outbox: Outbox, trouble: Trouble, clock: Clock
) -> None:
    trouble("first")
    outbox.look()
    clock.advance(GATHER_S + 1)
    assert len(outbox.look()) == 1
    trouble("second")
    outbox.look()
    clock.advance(APART_S - 1)
    assert outbox.look() == []
    clock.advance(2)
    [body] = outbox.look()
    assert "second" in body
    assert "first" not in body


def test_what_happened_while_nobody_was_set_is_told_once_somebody_is(
    services: Services, settings: Settings, notified: Settings, trouble: Trouble, conn: Conn, clock: Clock
) -> None:
    trouble("shop")
    Outbox(services, settings).look()
    clock.advance(HOUR_S)
    assert Outbox(services, settings).look() == []
    assert kinds(conn) == [("reauthorization_required", "shop")]
    assert len(Outbox(services, notified).look()) == 1


def test_an_account_named_by_an_e_mail_address_is_told_without_it(
    outbox: Outbox, trouble: Trouble, clock: Clock
) -> None:
    trouble("maria@example.com")
    trouble("jose@example.com", name="Padaria Dois")
    outbox.look()
    clock.advance(GATHER_S + 1)
    [body] = outbox.look()
    assert "@" not in body
    assert "%40" not in body
    assert "Padaria Dois precisa ser autorizada de novo." in body


def test_only_one_process_compares_at_a_time(services: Services, trouble: Trouble, conn: Conn) -> None:
    trouble("shop")
    with transaction(services.pool) as first:
        assert incidents.compare(first)
        with transaction(services.pool) as second:
            assert not incidents.compare(second)
    assert kinds(conn) == [("reauthorization_required", "shop")]


@pytest.mark.usefixtures("open_incident")
def test_a_message_that_is_not_accepted_is_tried_again_ever_later_for_a_day(
    outbox: Outbox, conn: Conn, clock: Clock
) -> None:
    outbox.failing = "http_500"
    clock.advance(GATHER_S + 1)
    outbox.look()
    assert (last_delivery(conn).outcome, last_delivery(conn).error) == (None, "http_500")
    assert deliveries.failed(conn) == ["http_500"]
    assert outbox.counted == {"failed": 1}
    outbox.look()
    assert last_delivery(conn).attempts == 1
    clock.advance(31)
    outbox.look()
    assert last_delivery(conn).attempts == 2
    for _ in range(24):
        clock.advance(HOUR_S)
        outbox.look()
    assert 20 < last_delivery(conn).attempts < 40
    clock.advance(HOUR_S)
    outbox.look()
    assert last_delivery(conn).outcome == "given_up"
    assert outbox.counted == {"failed": last_delivery(conn).attempts, "given_up": 1}
    outbox.failing = None
    clock.advance(HOUR_S)
    assert outbox.look() == []
    assert deliveries.failed(conn) == ["http_500"]
    clock.advance(24 * HOUR_S)
    assert deliveries.failed(conn) == []


def test_what_failed_is_mended_once_all_receivers_have_accepted_a_test(
    services: Services, settings: Settings, trouble: Trouble, conn: Conn, clock: Clock
) -> None:
    two = replace(settings, notify_urls=("json://one.example.com/hook", "json://two.example.com/hook"))
    outbox = Outbox(services, two)
    trouble("shop")
    outbox.look()
    outbox.failing = "http_500"
    clock.advance(GATHER_S + 1)
    outbox.look()
    both = ["http_500", "http_500"]
    assert deliveries.failed(conn) == both
    deliveries.begin_test(conn, outbox.targets)
    assert deliveries.failed(conn) == both, "nobody has tried the test"
    outbox.notifier.send_next()
    outbox.failing = None
    outbox.notifier.send_next()
    assert deliveries.failed(conn) == both, "one receiver did not accept it"
    assert outbox.counted == {"failed": 2, "given_up": 1, "sent": 1}
    clock.advance(TEST_EVERY_S + 1)
    conn.execute(
        "UPDATE rdservice_deliveries SET next_attempt_at = rd_now() + interval '1 hour' WHERE outcome IS NULL"
    )
    deliveries.begin_test(conn, outbox.targets)
    outbox.look()
    assert deliveries.failed(conn) == []


def test_a_delivery_under_lease_is_nobody_elses_until_the_lease_ends(
    services: Services, notified: Settings, trouble: Trouble, conn: Conn, clock: Clock, outbox: Outbox
) -> None:
    trouble("shop")
    outbox.notifier.compare()
    clock.advance(GATHER_S + 1)
    outbox.notifier.compare()
    targets = list(outbox.notifier._targets.values())
    with transaction(services.pool) as mine:
        leased = deliveries.lease(mine, targets)
    assert leased is not None
    assert not outbox.another().send_next()
    clock.advance(deliveries.LEASE_S + 1)
    assert outbox.another().send_next(), "whoever held it was killed"
    deliveries.fail(conn, leased, "timeout")
    assert last_delivery(conn).outcome == "sent", "a late result changes nothing"


def test_no_more_incidents_are_open_at_once_than_a_look_can_bear(
    outbox: Outbox, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incidents, "MOST_OPEN", 30)
    conn.execute(
        "INSERT INTO rdstation_tokens (account_id, status)"
        " SELECT 'account-' || n, 'reauthorization_required' FROM generate_series(1, 100) n"
    )
    outbox.look()
    outbox.look()
    assert len(kinds(conn)) == 30
    conn.execute(
        "DELETE FROM rdstation_tokens WHERE account_id IN (SELECT account_id FROM rdservice_incidents)"
    )
    outbox.look()
    assert len(kinds(conn)) == 30, "the next ones have their turn"


def test_no_look_reads_through_all_tokens(outbox: Outbox, conn: Conn) -> None:
    conn.execute(
        "INSERT INTO rdstation_tokens (account_id, expires_at, issued_at, refresh_after)"
        " SELECT 'account-' || n, rd_now() + interval '20 hours', rd_now() - interval '4 hours',"
        " rd_now() + interval '11 hours' FROM generate_series(1, 50000) n"
    )
    conn.execute("ANALYZE rdstation_tokens")
    # What earlier tests deleted would count as open incidents.
    conn.execute("VACUUM ANALYZE rdservice_incidents")
    plans = []
    for statement, values in (
        (incidents.OPEN, {"free": 5000}),
        (incidents.MARK_ACCOUNTS, {}),
        (incidents.MARK_SETTINGS, {}),
        (incidents.CLOSE_GONE, {}),
        (incidents.CLOSE_REPLACED, {}),
    ):
        plans += [line for (line,) in conn.execute("EXPLAIN " + statement, values).fetchall()]
    assert not [line for line in plans if "Seq Scan on rdstation_tokens" in line], "\n".join(plans)
