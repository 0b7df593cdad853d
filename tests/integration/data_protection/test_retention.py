"""How long rows are kept: every table has a rule or a reason, and the worker enforces each rule in batches."""

import logging
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg_pool import PoolTimeout

from rdservice.data_protection import retention
from rdservice.data_protection.retention import RULES, WITHOUT_LIMIT, Rule
from rdservice.database import pool
from rdservice.services import Services
from rdservice.worker.auto_refresh import _Loop
from rdservice.worker.bell import Bell
from tests.conftest import Clock
from tests.support.accounts import connect_account

Conn = psycopg.Connection[Any]

MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
MANY = 2_300

SETUP = (
    "INSERT INTO rdservice_operators (operator_id, email, password_hash) VALUES (%s, 'ana@example.com', '')"
)
OPERATOR = "7a1f8e0c-2b0c-4b0e-9b57-7d1f4f0c2a11"

OLD_ROWS: dict[str, tuple[int, str]] = {
    "rdstation_cache": (
        DAY_S,
        """(key, account_id, connection_id, epoch, value, fetched_at, expires_at)
           SELECT sha256(n::text::bytea), 'default', gen_random_uuid(), 0, 'v', rd_now(), rd_now() + interval '24 h'""",
    ),
    "rdservice_events": (
        30 * DAY_S,
        """(account_id, number, connection_id, event_type, event_at, late, identity, lead, payload, ends_at)
           SELECT 'default', n, (SELECT connection_id FROM rdstation_tokens), 'WEBHOOK.CONVERTED', rd_now(), false,
                  sha256(n::text::bytea), 'lead', 'v', n""",
    ),
    "rdstation_refresh_attempts": (
        30 * DAY_S,
        """(claim_no, account_id, authorization_id, reason, claimed_by)
           SELECT n, 'default', gen_random_uuid(), 'due', 'a worker'""",
    ),
    "rdstation_workers": (DAY_S, "(worker) SELECT 'worker ' || n"),
    "rdstation_oauth_states": (
        10 * MINUTE_S,
        f"(state_hash, operator_id, account_id) SELECT sha256(n::text::bytea), '{OPERATOR}', 'default'",
    ),
    "rdstation_waiting_pairs": (
        HOUR_S,
        f"(pair_id, operator_id, session_hash, account_id) SELECT n::text, '{OPERATOR}', 'session', 'default'",
    ),
    "rdstation_rate_limits": (
        2 * HOUR_S,
        "(budget, class, used_in_hour) SELECT 'account ' || n, 'account', rd_now()",
    ),
    "rdservice_sessions": (
        12 * HOUR_S,
        f"(token_hash, operator_id) SELECT sha256(n::text::bytea), '{OPERATOR}'",
    ),
    "rdservice_access_failures": (
        15 * MINUTE_S,
        "(subject, failures, window_ends_at) SELECT sha256(n::text::bytea), 1, rd_now() + interval '15 min'",
    ),
    "rdservice_audit": (
        400 * DAY_S,
        "(action, actor_kind, origin) SELECT 'logged_in', 'operator', 'POST /login'",
    ),
    "rdservice_incidents": (
        90 * DAY_S,
        """(kind, account_id, closed_at, ending)
           SELECT 'expiring', 'account ' || n, rd_now(), 'recovered'""",
    ),
    "rdservice_notifications": (90 * DAY_S, "(kind, created_at) SELECT 'test', rd_now()"),
    "rdservice_metric_hours": (
        2 * DAY_S,
        "(hour, key, value, taken_at) SELECT rd_now(), 'series ' || n, 1, rd_now()",
    ),
    "rdservice_metric_processes": (7 * DAY_S, "(process, sequence) SELECT gen_random_uuid(), 1"),
}
"""For each table with a rule: the limit in seconds, and how to insert rows of now, numbered n."""

each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.table)


def count(conn: Conn, table: str) -> int:
    row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    assert row is not None
    return int(row[0])


def fill(conn: Conn, table: str, rows: int = MANY, first: int = 1) -> None:
    insert = f"INSERT INTO {table} {OLD_ROWS[table][1]} FROM generate_series({first}, {first + rows - 1}) n"
    conn.execute(insert.encode())


@pytest.fixture(autouse=True)
def _what_rows_refer_to(services: Services, conn: Conn) -> None:
    connect_account(services)
    conn.execute(SETUP, [OPERATOR])


def test_every_table_has_a_rule_or_a_reason_why_it_needs_none(conn: Conn) -> None:
    tables = {
        name
        for (name,) in conn.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace ="
            " 'public'::regnamespace"
        )
    }
    ruled = [rule.table for rule in RULES]
    assert sorted([*ruled, *WITHOUT_LIMIT]) == sorted(tables)
    assert all(
        len(reason) > 10 for reason in [*WITHOUT_LIMIT.values(), *(rule.kept + " " * 9 for rule in RULES)]
    )
    assert OLD_ROWS.keys() == set(ruled)


@each_rule
def test_rows_are_kept_up_to_their_limit_and_then_go_in_batches(
    services: Services, conn: Conn, clock: Clock, rule: Rule
) -> None:
    limit_s, _ = OLD_ROWS[rule.table]
    fill(conn, rule.table)
    clock.advance(limit_s - MINUTE_S)
    retention.enforce(services.pool)
    assert count(conn, rule.table) == MANY
    clock.advance(2 * MINUTE_S)
    young = 7
    fill(conn, rule.table, young, first=MANY + 1)
    left = []
    for _ in range(4):
        retention.enforce(services.pool)
        left.append(count(conn, rule.table) - young)
    assert left == [max(0, MANY - rule.batch * number) for number in (1, 2, 3, 4)]


@each_rule
def test_rows_that_somebody_holds_are_left_for_later_and_nobody_waits(
    services: Services, conn: Conn, clock: Clock, rule: Rule
) -> None:
    fill(conn, rule.table, 3)
    clock.advance(OLD_ROWS[rule.table][0] + MINUTE_S)
    with pool.transaction(services.pool) as holder:
        held = sql.SQL("SELECT 1 FROM {} LIMIT 1 FOR UPDATE").format(sql.Identifier(rule.table))
        assert holder.execute(held).fetchone() == (1,)
        retention.enforce(services.pool)
        assert count(conn, rule.table) == 1
    retention.enforce(services.pool)
    assert count(conn, rule.table) == 0


@each_rule
def test_a_batch_is_a_batch_whatever_the_planner_believes_of_the_table(
    conn: Conn, clock: Clock, rule: Rule
) -> None:
    """As a semi-join the inner query would be run once for each row, and lock another batch each time."""
    for method in ("hashjoin", "mergejoin", "hashagg", "material", "sort"):
        conn.execute(f"SET enable_{method} = off".encode())
    fill(conn, rule.table, 50)
    clock.advance(OLD_ROWS[rule.table][0] + MINUTE_S)
    assert [rule.prune(conn, batch=20) for _ in range(4)] == [20, 20, 10, 0]


def test_a_session_in_use_ends_after_seven_days(services: Services, conn: Conn, clock: Clock) -> None:
    fill(conn, "rdservice_sessions", 2)
    clock.advance(7 * DAY_S - MINUTE_S)
    conn.execute("UPDATE rdservice_sessions SET last_seen_at = rd_now()")
    retention.enforce(services.pool)
    assert count(conn, "rdservice_sessions") == 2
    clock.advance(2 * MINUTE_S)
    retention.enforce(services.pool)
    assert count(conn, "rdservice_sessions") == 0


def test_a_rule_that_fails_stops_neither_the_others_nor_the_heartbeat_nor_the_loop(
    services: Services, conn: Conn, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    first, last = RULES[0].table, RULES[-1].table
    for table in (first, last):
        fill(conn, table, 1)
    clock.advance(8 * DAY_S)
    conn.execute(f"CREATE RULE broken AS ON DELETE TO {first} DO INSTEAD SELECT 1 / 0".encode())
    loop = _Loop(services.refresher, Bell(), None, 0, retention.enforce)  # type: ignore[arg-type]
    try:
        with caplog.at_level(logging.ERROR):
            loop._beat()
    finally:
        conn.execute(f"DROP RULE broken ON {first}".encode())
    assert (count(conn, first), count(conn, last), count(conn, "rdstation_workers")) == (1, 0, 1)
    assert [record.getMessage() for record in caplog.records] == [f"old rows of {first} were not deleted"]


def test_without_a_database_the_rules_wait_together(
    services: Services, conn: Conn, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def no_connection(*_: Any, **__: Any) -> Any:
        tries.append(1)
        raise PoolTimeout("no connection")

    monkeypatch.setattr(retention, "transaction", no_connection)
    retention.enforce(services.pool)
    assert len(tries) == 1
    assert "old rows wait for the database (PoolTimeout)" in caplog.text
