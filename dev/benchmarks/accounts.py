"""Inserts thousands of connected accounts directly into the table."""

from typing import Any, LiteralString
from urllib.parse import parse_qs, urlsplit

import psycopg
import requests

from dev.benchmarks.stage import Stage
from rdservice.encryption import KeyRing

# One statement with the same pair of values for all rows: a million rows in seconds. Due times are spread as in a real
# table.
FILL: LiteralString = """
INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, issued_at, expires_at, refresh_after)
SELECT 'account-' || n, %(access_token)s, %(refresh_token)s, rd_now(), rd_now() + interval '24 h',
       rd_now() + interval '24 h' * (0.05 + 0.6 * random())
  FROM generate_series(1, %(count)s) n
"""
CONNECT: LiteralString = """
INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, issued_at, expires_at, refresh_after)
VALUES (%s, %s, %s, rd_now(), rd_now() + interval '24 h', rd_now() + interval '15 h')
"""


def fill(conn: psycopg.Connection[Any], keys: KeyRing, count: int) -> None:
    """Insert `count` accounts into an empty table, none due within the hour. Their tokens cannot be decrypted."""
    values = {
        "access_token": keys.encrypt("access_token", "account", "a" * 500),
        "refresh_token": keys.encrypt("refresh_token", "account", "r" * 43),
        "count": count,
    }
    conn.execute(FILL, values)
    # Or they come in the middle of measuring.
    conn.execute("VACUUM ANALYZE rdstation_tokens")
    conn.execute("CHECKPOINT")


def connect(stage: Stage, *account_ids: str) -> None:
    """Connect accounts with one shared authorization of the sandbox, which does not rotate refresh tokens."""
    pair = _authorize(stage)
    rows = [
        (
            account_id,
            stage.keys.encrypt("access_token", account_id, pair["access_token"]),
            stage.keys.encrypt("refresh_token", account_id, pair["refresh_token"]),
        )
        for account_id in account_ids
    ]
    with stage.conn.transaction(), stage.conn.cursor() as cursor:
        cursor.executemany(CONNECT, rows)
    stage.conn.execute("VACUUM ANALYZE rdstation_tokens")


def _authorize(stage: Stage) -> dict[str, Any]:
    """Give consent in the sandbox and exchange the code."""
    app = stage.settings
    with requests.Session() as session:
        session.trust_env = False
        form = {"client_id": app.client_id, "redirect_uri": app.redirect_uri, "account": "default"}
        response = session.post(f"{app.api_url}/auth/dialog", data=form, allow_redirects=False, timeout=10)
        code = parse_qs(urlsplit(response.headers["Location"]).query)["code"][0]
        body = {"client_id": app.client_id, "client_secret": app.client_secrets[0], "code": code}
        response = session.post(f"{app.api_url}/auth/token", json=body, timeout=10)
        response.raise_for_status()
        pair: dict[str, Any] = response.json()
        return pair
