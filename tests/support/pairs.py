"""Pairs of the account `default` for tests: uploaded, exchanged, refused and kept.

A refresh token `x` comes with the access token `access-with-x`.
"""

from datetime import timedelta
from typing import Any

import psycopg

from rdservice.access import operators
from rdservice.accounts import waiting_pairs
from rdservice.accounts.waiting_pairs import Owner
from rdservice.database.pool import transaction
from rdservice.services import Services
from rdservice.tokens import leases, store
from rdservice.tokens.leases import Lease

Conn = psycopg.Connection[Any]


def authorize(services: Services, conn: Conn, refresh_token: str, *, proven: bool) -> None:
    store.authorize(
        conn,
        services.keys,
        "default",
        access_token=f"access-with-{refresh_token}",
        refresh_token=refresh_token,
        expires_in_s=86_400,
        verified=True,
        proven=proven,
    )


def upload(services: Services, refresh_token: str) -> None:
    with transaction(services.pool) as conn:
        authorize(services, conn, refresh_token, proven=False)


def put(services: Services, conn: Conn, lease: Lease, refresh_token: str) -> None:
    leases.store(
        conn,
        lease,
        services.keys,
        access_token=f"access-with-{refresh_token}",
        refresh_token=refresh_token,
        expires_at=lease.claimed_at + timedelta(days=1),
    )


def refuse(services: Services, lease: Lease) -> leases.Refusal | None:
    with transaction(services.pool) as conn:
        return leases.refuse(conn, lease, "revoked", doubtful=False)


def kept(services: Services, conn: Conn) -> list[str]:
    """Return the decrypted refresh token of the kept pair, if there is one."""
    return [
        services.keys.decrypt("refresh_token", "default", value)
        for (value,) in conn.execute("SELECT refresh_token FROM rdstation_replaced_tokens")
    ]


def park(services: Services, account_id: str) -> None:
    """Leave a pair as a callback does that waits for a decision, and another whose code is still exchanged."""
    with transaction(services.pool) as conn:
        created = operators.create(conn, "ana@example.com", "no hash")
        assert created is not None
        owner = Owner(operator_id=created.operator_id, session_id="session")
        for pair_id in ("parked", "exchanged"):
            waiting_pairs.begin(conn, owner, pair_id, account_id)
        waiting_pairs.park(
            conn,
            services.keys,
            "parked",
            account_id,
            access_token="parked-access",
            refresh_token="parked-refresh",
            expires_in_s=86_400,
            age_s=0,
        )
