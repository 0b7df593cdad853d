"""The accounts in the pictures, with a month of history: refreshes, calls and leads."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
from psycopg import sql

from dev.benchmarks.stage import Stage
from rdservice.metrics import store as metric_totals
from rdservice.metrics.definitions import Series
from rdservice.tokens import store
from scripts.local.sandbox_consent import obtain_tokens

OWN = "default"
OWN_NAME = "Padaria Moreira"
BRANCHES = {
    "aurora": "Livraria Aurora",
    "campinas": "Clínica Campinas",
    "dois-irmaos": "Oficina Dois Irmãos",
    "esperanca": "Escola Esperança",
    "horizonte": "Construtora Horizonte",
    "ipe": "Agência Ipê Amarelo",
    "litoral": "Cafeteria do Litoral",
}
DAY_S = 86_400
HOUR_S = 3_600
RENEWAL_S = 15 * HOUR_S
BUSY_HOURS = (2, 1, 0, 0, 1, 4, 9, 18, 31, 44, 52, 47, 39, 45, 58, 61, 50, 36, 24, 17, 12, 9, 6, 4)
"""Requests for leads per hour of the day that miss the cache; six times as many hit it."""

RENEWED: LiteralString = (
    "UPDATE rdstation_tokens SET attempted_at = rd_now(), refreshed_at = rd_now() WHERE account_id = %s"
)
ATTEMPT: LiteralString = """
INSERT INTO rdstation_refresh_attempts
       (claim_no, account_id, authorization_id, reason, claimed_by, started_at, finished_at, outcome, http_status,
        duration_ms, error)
VALUES (nextval('rdstation_claims'), %(account_id)s, %(authorization_id)s, 'due', 'worker', rd_now(), rd_now(),
        %(outcome)s, %(status)s, 240, %(error)s)
"""


def connect(stage: Stage, account_id: str, name: str, *, age_s: float) -> None:
    """Connect an account with tokens of the sandbox, refreshed `age_s` seconds ago."""
    app = stage.settings
    pair = obtain_tokens(
        app.api_url,
        client_id=app.client_id,
        client_secret=app.client_secrets[0],
        redirect_uri=app.redirect_uri,
    )
    with clock_at(stage.conn, -age_s), stage.conn.transaction():
        store.authorize(
            stage.conn,
            stage.keys,
            account_id,
            access_token=pair.access_token,
            refresh_token=pair.refresh_token,
            expires_in_s=pair.expires_in,
            name=name,
            verified=True,
            proven=True,
        )
        stage.conn.execute(RENEWED, [account_id])


def renewals_of_a_month(conn: psycopg.Connection[Any], account_id: str, *, last_age_s: float) -> None:
    """Record a refresh every 15 hours for 29 days, the last one `last_age_s` seconds ago, with an outage in between."""
    authorization_id = uuid4()
    age_s = 29.0 * DAY_S
    while age_s > last_age_s + RENEWAL_S:
        outage = 12 * DAY_S < age_s < 12 * DAY_S + RENEWAL_S
        if outage:
            _attempt(
                conn,
                account_id,
                authorization_id,
                age_s,
                outcome="transient",
                status=503,
                error="server_error",
            )
        _attempt(conn, account_id, authorization_id, age_s - 600)
        age_s -= RENEWAL_S
    _attempt(conn, account_id, authorization_id, last_age_s)


def refuse(conn: psycopg.Connection[Any], account_id: str) -> None:
    """Put the account in the state after RD Station refused it some minutes ago, as after the removal of the app."""
    _attempt(conn, account_id, uuid4(), 240, outcome="refused", status=401, error="revoked")
    conn.execute(
        "UPDATE rdstation_tokens SET status = 'reauthorization_required', last_error = 'revoked',"
        " attempted_at = rd_now() - interval '4 minutes' WHERE account_id = %s",
        [account_id],
    )


def fail(conn: psycopg.Connection[Any], account_id: str) -> None:
    """Put the account in the state after a failed refresh that is retried in some minutes."""
    conn.execute(
        "UPDATE rdstation_tokens SET last_error = 'timeout', failures = 2,"
        " attempted_at = rd_now() - interval '2 minutes', refresh_after = rd_now() - interval '3 minutes',"
        " retry_at = rd_now() + interval '7 minutes' WHERE account_id = %s",
        [account_id],
    )


def traffic_of_a_day(conn: psycopg.Connection[Any]) -> None:
    """Count the calls and leads of the last 24 hours as a process would have."""
    process = uuid4()
    for sequence, ago in enumerate(range(23, -1, -1), start=1):
        fresh = BUSY_HOURS[-1 - ago]
        failed = 3 if ago == 9 else 0
        with clock_at(conn, -ago * HOUR_S):
            metric_totals.add(
                conn,
                metric_totals.Batch(
                    process=process,
                    sequence=sequence,
                    deltas={
                        **_leads(hit=fresh * 6 + 5, miss=fresh, stale=2 * failed),
                        **_calls({"2xx": fresh + 1, "4xx": 1 if ago == 14 else 0, "5xx": failed}),
                    },
                ),
            )


def _leads(**numbers: int) -> dict[Series, float]:
    name = "rdstation_leads_served_total"
    return {(name, (("cache", cache),)): float(number) for cache, number in numbers.items()}


def _calls(numbers: Mapping[str, int]) -> dict[Series, float]:
    name = "rdstation_api_requests_total"
    return {
        (name, (("operation", "contacts_list"), ("status_class", status))): float(number)
        for status, number in numbers.items()
    }


def _attempt(
    conn: psycopg.Connection[Any],
    account_id: str,
    authorization_id: UUID,
    age_s: float,
    *,
    outcome: str = "stored",
    status: int = 200,
    error: str | None = None,
) -> None:
    values = {
        "account_id": account_id,
        "authorization_id": authorization_id,
        "outcome": outcome,
        "status": status,
        "error": error,
    }
    with clock_at(conn, -age_s):
        conn.execute(ATTEMPT, values)


@contextmanager
def clock_at(conn: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Advance the database's clock by `seconds` until the block ends."""
    _set_clock(conn, seconds)
    try:
        yield
    finally:
        _set_clock(conn, 0)


def _set_clock(conn: psycopg.Connection[Any], seconds: float) -> None:
    conn.execute(
        sql.SQL("CREATE OR REPLACE FUNCTION rd_now() RETURNS timestamptz LANGUAGE sql STABLE AS {}").format(
            f"SELECT now() + interval '{seconds} seconds'" if seconds else "SELECT now()"
        )
    )
