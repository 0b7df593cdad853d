"""When counts reach the database."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from rdservice.config.settings import Settings
from rdservice.metrics import flusher as flusher_module
from rdservice.metrics import store
from rdservice.metrics.definitions import Series
from rdservice.rdstation.client import TransportError
from rdservice.services import Services
from scripts.local.embedded_postgres import EmbeddedPostgres
from tests.support.scraping import take_down
from tests.support.waiting import wait_until

HIT: Series = ("rdstation_leads_served_total", (("cache", "hit"),))
NO_ANSWER: Series = (
    "rdstation_api_requests_total",
    (("operation", "account_info"), ("status_class", "none")),
)


def test_an_outgoing_call_reaches_the_database_by_itself(
    services: Services, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flusher_module, "EVERY_S", 3600.0)
    with pytest.raises(TransportError):
        services.rdstation.account_info("a-token")
    wait_until(lambda: store.totals(conn).get(NO_ANSWER) == 1, "the call is in the sums", seconds=5)


def test_other_counts_reach_the_database_after_the_interval(
    make_services: Callable[[Settings], Services],
    settings: Settings,
    conn: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flusher_module, "EVERY_S", 0.2)
    services = make_services(settings)
    services.metrics.leads_served("hit")
    wait_until(lambda: store.totals(conn).get(HIT) == 1, "the count is in the sums", seconds=5)
    services.metrics.leads_served("hit")
    wait_until(lambda: store.totals(conn).get(HIT) == 2, "the second count is in the sums", seconds=5)


def test_closing_hands_over_what_was_counted(
    make_services: Callable[[Settings], Services], settings: Settings, conn: psycopg.Connection[Any]
) -> None:
    services = make_services(settings)
    services.metrics.leads_served("hit")
    services.close()
    assert store.totals(conn) == {HIT: 1}


def test_counts_wait_while_the_database_is_down_and_arrive_when_it_is_back(
    own_postgres: EmbeddedPostgres,
    make_services: Callable[[Settings], Services],
    variables: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flusher_module, "EVERY_S", 0.2)
    services = make_services(Settings.from_mapping(variables | {"DATABASE_URL": own_postgres.url}))
    services.metrics.leads_served("hit")
    first = services.metrics_flusher.snapshot(20)
    assert first is not None
    assert first.totals[HIT] == 1

    take_down(own_postgres)
    services.metrics.leads_served("hit")
    assert services.metrics_flusher.snapshot(20) is None
    services.metrics.leads_served("hit")
    assert services.metrics_flusher.snapshot(20) is None

    own_postgres.start()
    again = wait_until(lambda: services.metrics_flusher.snapshot(20), "the database is used again")
    assert again is not None
    assert again.totals[HIT] == 3
    assert again.totals["rdstation_metrics_flush_failures_total", ()] >= 1
    services.close()


def test_an_unexpected_error_neither_ends_the_thread_nor_stays_unseen(
    services: Services,
    conn: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    add, failures = store.add, iter([ValueError("something unforeseen")])

    def failing(own: psycopg.Connection[Any], batch: store.Batch) -> None:
        for failure in failures:
            raise failure
        add(own, batch)

    monkeypatch.setattr(store, "add", failing)
    services.metrics.leads_served("hit")
    with pytest.raises(ValueError, match="unforeseen"):
        services.metrics_flusher.snapshot(10)
    assert "cannot be brought to the database" in caplog.text
    snapshot = services.metrics_flusher.snapshot(10)
    assert snapshot is not None
    assert snapshot.totals[HIT] == 1
