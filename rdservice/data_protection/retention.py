"""How long each table's rows are kept. The worker deletes older rows, one batch per table at a time.

Every table has a rule in RULES or a reason in WITHOUT_LIMIT.
"""

import logging
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from rdservice.access import audit, sessions, throttle
from rdservice.accounts import connect, waiting_pairs
from rdservice.cache import table as cache_table
from rdservice.database import outage
from rdservice.database.pool import transaction
from rdservice.events import store as events
from rdservice.metrics import store as metric_totals
from rdservice.notifications import deliveries, incidents
from rdservice.rdstation import rate_budget
from rdservice.tokens import attempts, workers

log = logging.getLogger(__name__)

BATCH = 1000
# The worker refreshes tokens in the same loop, so it must not wait long for an overloaded database.
BE_QUICK = "SET LOCAL statement_timeout = '2s'"


class Prune(Protocol):
    """Deletes up to `batch` expired rows and returns how many. Skips locked rows.

    Statements select the rows in an ARRAY or a materialized CTE, which PostgreSQL evaluates once. A subquery after IN
    may become the inner side of a join; PostgreSQL would then run it for each row of the table and lock another batch
    each time.
    """

    def __call__(self, conn: psycopg.Connection[Any], *, batch: int) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The rule of one table. `kept`: the limit in words. `batch`: most rows that are deleted per run (10 seconds)."""

    table: str
    kept: str
    prune: Prune
    batch: int = BATCH


RULES = (
    Rule(table="rdstation_cache", kept="24 hours after it was fetched at the most", prune=cache_table.prune),
    Rule(table="rdservice_events", kept="30 days, and the newest 64 MiB of an account", prune=events.prune),
    Rule(table="rdstation_refresh_attempts", kept="30 days", prune=attempts.prune),
    Rule(table="rdstation_workers", kept="a day after the last heartbeat", prune=workers.prune),
    Rule(table="rdstation_oauth_states", kept="10 minutes", prune=connect.prune),
    Rule(table="rdstation_waiting_pairs", kept="1 hour", prune=waiting_pairs.prune),
    Rule(
        table="rdstation_rate_limits",
        kept="two hours after the last call at the most",
        prune=rate_budget.prune,
    ),
    Rule(table="rdservice_sessions", kept="12 hours without use, 7 days at the most", prune=sessions.prune),
    # A flood from ever-changing addresses adds rows as fast as requests are refused.
    Rule(table="rdservice_access_failures", kept="15 minutes", prune=throttle.prune, batch=10_000),
    Rule(table="rdservice_audit", kept="400 days", prune=audit.prune),
    Rule(table="rdservice_incidents", kept="90 days after its end", prune=incidents.prune),
    Rule(
        table="rdservice_notifications",
        kept="90 days, and as long as an incident lasts that it tells of",
        prune=deliveries.prune,
    ),
    Rule(table="rdservice_metric_hours", kept="2 days", prune=metric_totals.prune_hours),
    Rule(
        table="rdservice_metric_processes",
        kept="a week after the last batch",
        prune=metric_totals.prune_processes,
    ),
)

WITHOUT_LIMIT = {
    "rdstation_tokens": "an account stays until it is disconnected",
    "rdstation_replaced_tokens": "one for an account at the most, until the uploaded pair or this one works",
    "rdstation_client_credentials": "one for each list of client secrets that was ever set; no person's data",
    "rdservice_event_streams": "one for each account that ever had an event; no person's data",
    "rdservice_subscriptions": "one for an account, until it is disconnected; no person's data",
    "rdstation_rate_budgets": "earlier versions delete what they write; a later migration drops the table",
    "rdservice_operators": "operators stay until they are removed",
    "rdservice_api_keys": "made by hand, and a revoked one still tells whose it was",
    "rdservice_deliveries": "they go with their notification",
    "rdservice_metric_totals": "one for each of a closed list of series; no person's data",
    "schema_migrations": "one for each migration",
}

TABLES = (*(rule.table for rule in RULES), *WITHOUT_LIMIT)
"""All tables of the database."""


def enforce(pool: ConnectionPool[psycopg.Connection[Any]]) -> None:
    """Delete one batch of expired rows from each table, each in its own transaction.

    A rule that fails is logged and does not stop the others. Without a connection, the rest is left for the next call.
    """
    for rule in RULES:
        try:
            with transaction(pool) as conn:
                conn.execute(BE_QUICK)
                rule.prune(conn, batch=rule.batch)
        except PoolTimeout as error:
            outage.log.warning("old rows wait for the database (%s)", type(error).__name__)
            return
        except psycopg.Error:
            log.exception("old rows of %s were not deleted", rule.table)
