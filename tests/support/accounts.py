"""Accounts for tests of what is done with them."""

from typing import Any

import psycopg
import requests

from rdservice.access.audit import Author
from rdservice.database.pool import transaction
from rdservice.services import Services
from rdservice.tokens import leases, store
from rdservice.tokens.leases import Lease
from tests.support.sandbox_process import SandboxProcess

BY = Author(kind="command", name="tester", origin="pytest")
"""The author of what a test does."""


def connect_account(
    services: Services,
    sandbox: SandboxProcess | None = None,
    account_id: str = "default",
    *,
    rd_account: str = "default",
    due: bool = True,
    lifetime_s: int = 86_400,
) -> dict[str, Any]:
    """Store a pair for `account_id`, of the sandbox or made up, and return it; `due`: for renewal at once."""
    pair = (
        sandbox.pair(rd_account)
        if sandbox
        else {"access_token": f"access-of-{account_id}", "refresh_token": f"refresh-of-{account_id}"}
    )
    with transaction(services.pool) as conn:
        store.authorize(
            conn,
            services.keys,
            account_id,
            access_token=pair["access_token"],
            refresh_token=pair["refresh_token"],
            expires_in_s=lifetime_s,
            verified=True,
            proven=True,
        )
        if due:
            conn.execute(
                "UPDATE rdstation_tokens SET refresh_after = rd_now() WHERE account_id = %s", [account_id]
            )
    return pair


def kill_access_token(sandbox: SandboxProcess, pair: dict[str, Any]) -> None:
    """Make RD Station refuse the pair's access token although it should live."""
    sandbox.patch(replaced_access_tokens_die=True)
    body = {
        "client_id": sandbox.client_id,
        "client_secret": sandbox.client_secret,
        "refresh_token": pair["refresh_token"],
    }
    requests.post(f"{sandbox.url}/auth/token", json=body, timeout=10).raise_for_status()


def lease_due(services: Services, *, slots: int = 10, backlog: bool = False) -> list[Lease]:
    """Claim what is due, as the worker does; `backlog`: as after a claim that filled its slots."""
    with transaction(services.pool) as conn:
        return leases.lease_due(
            conn,
            started=services.refresher.monotonic(),
            fingerprint=services.refresher.fingerprint,
            slots=slots,
            claimed_by="test",
            backlog=backlog,
        )


def lease_one(services: Services) -> Lease:
    """Claim the one account that is due."""
    (lease,) = lease_due(services)
    return lease


def row(conn: psycopg.Connection[Any], account_id: str = "default") -> dict[str, Any]:
    """Return the account's row as it stands."""
    with conn.cursor(row_factory=psycopg.rows.dict_row) as cur:
        found = cur.execute(
            "SELECT t.*, rd_now() AS now FROM rdstation_tokens t WHERE account_id = %s", [account_id]
        ).fetchone()
    assert found is not None
    return found


def stored_pair(
    services: Services, conn: psycopg.Connection[Any], account_id: str = "default"
) -> tuple[str, str]:
    """Return the decrypted access and refresh token of a row."""
    found = row(conn, account_id)
    return (
        services.keys.decrypt("access_token", account_id, found["access_token"]),
        services.keys.decrypt("refresh_token", account_id, found["refresh_token"]),
    )


def attempts_of(
    conn: psycopg.Connection[Any], account_id: str = "default"
) -> list[tuple[str | None, str | None]]:
    """Return outcome and error of each attempt, oldest first."""
    return conn.execute(
        "SELECT outcome, error FROM rdstation_refresh_attempts WHERE account_id = %s ORDER BY claim_no",
        [account_id],
    ).fetchall()


def assert_sandbox_accepts(sandbox: SandboxProcess, access_token: str, refresh_token: str) -> None:
    """Use both tokens; afterwards, where refresh tokens rotate, the refresh token is spent."""
    headers = {"Authorization": f"Bearer {access_token}"}
    assert (
        requests.get(f"{sandbox.url}/marketing/account_info", headers=headers, timeout=10).status_code == 200
    )
    body = {
        "client_id": sandbox.client_id,
        "client_secret": sandbox.client_secret,
        "refresh_token": refresh_token,
    }
    assert requests.post(f"{sandbox.url}/auth/token", json=body, timeout=10).status_code == 200
