"""Reads facts from the database. It changes nothing and contacts nothing else."""

import re
from typing import Any

import psycopg

from rdservice.diagnosis.facts.fingerprints import fingerprint as fingerprint_of
from rdservice.diagnosis.facts.types import Account, DatabaseFacts, StoredValue, TokenClaims
from rdservice.encryption import ENCRYPTED, KeyMissing, KeyRing, ValueDamaged
from rdservice.notifications import deliveries, refused_together
from rdservice.tokens import credentials, inspection, jwt_claims, workers

MAX_ACCOUNTS = 100


def read(
    conn: psycopg.Connection[Any],
    *,
    keys: KeyRing | None,
    fingerprint: str | None,
    api_url: str,
    scope: str,
    first: str | None = None,
) -> DatabaseFacts:
    """Return the facts in the tables, with up to MAX_ACCOUNTS accounts, including `first` if it exists.

    `keys` and `fingerprint` (of the client credentials) are None when their settings are invalid.
    """
    rows = inspection.rows(conn, first=first, limit=MAX_ACCOUNTS + 1)
    return DatabaseFacts(
        accounts=[_account(row, keys, api_url=api_url, scope=scope) for row in rows[:MAX_ACCOUNTS]],
        more_accounts=len(rows) > MAX_ACCOUNTS,
        worker_silent_s=workers.seconds_since_last_beat(conn),
        credentials_closed_for_s=None if fingerprint is None else credentials.closed_for(conn, fingerprint),
        key_ids=None if keys is None else keys.key_ids,
        refused_together=refused_together.count(conn),
        failed_notifications=tuple(deliveries.failed(conn)),
    )


def _account(row: inspection.Row, keys: KeyRing | None, *, api_url: str, scope: str) -> Account:
    access_token, plain_text = _open(row, "access_token", row.access_token, keys)
    refresh_token, _ = _open(row, "refresh_token", row.refresh_token, keys)
    return Account(
        account_id=row.account_id,
        status=row.status,
        last_error=row.last_error,
        failures=row.failures,
        expires_at=row.expires_at,
        life_left_s=row.life_left_s,
        refresh_after=row.refresh_after,
        retry_at=row.retry_at,
        retry_in_s=row.retry_in_s,
        access_token=access_token,
        refresh_token=refresh_token,
        generation=row.stored_claim,
        leased=row.leased,
        claims=None if plain_text is None else _claims(plain_text, api_url=api_url, scope=scope),
    )


def _open(
    row: inspection.Row, column: str, stored: str, keys: KeyRing | None
) -> tuple[StoredValue, str | None]:
    """Return the description of a stored value, and the decrypted value, None when it cannot be decrypted."""
    if not re.match(ENCRYPTED, stored):
        return StoredValue(key_id=None, state="plain"), None
    key_id = stored.split(".", 1)[0]
    if keys is None:
        return StoredValue(key_id=key_id, state="unknown"), None
    try:
        value = keys.decrypt(column, row.account_id, stored)
    except KeyMissing:
        return StoredValue(key_id=key_id, state="key_missing"), None
    except ValueDamaged:
        return StoredValue(key_id=key_id, state="damaged"), None
    stored_value = StoredValue(
        key_id=key_id, state="readable", length=len(value), fingerprint=fingerprint_of(value)
    )
    return stored_value, value


def _claims(access_token: str, *, api_url: str, scope: str) -> TokenClaims | None:
    claims = jwt_claims.read(access_token)
    if claims == jwt_claims.NOTHING:
        return None
    return TokenClaims(
        aud=None if claims.audiences is None else list(claims.audiences),
        scope=None if claims.scopes is None else sorted(claims.scopes),
        exp=claims.expires_at,
        iat=claims.issued_at,
        notices=tuple(
            notice.code for notice in jwt_claims.warnings(access_token, api_url=api_url, scope=scope)
        ),
    )
