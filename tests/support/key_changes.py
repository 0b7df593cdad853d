"""Processes before, during and after a change of the encryption key, and what the tables hold."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from cryptography.fernet import Fernet
from psycopg import sql
from psycopg.rows import dict_row

from rdservice.config.settings import Settings
from rdservice.database.pool import transaction
from rdservice.encryption import key_id, key_id_of
from rdservice.services import Services
from rdservice.tokens import store
from tests.support.accounts import connect_account

Conn = psycopg.Connection[Any]

COLUMNS = {
    "rdstation_tokens": ("access_token", "refresh_token"),
    "rdstation_replaced_tokens": ("access_token", "refresh_token"),
    "rdstation_waiting_pairs": ("access_token", "refresh_token"),
    "rdservice_events": ("payload",),
    "rdstation_cache": ("value",),
}


@dataclass(frozen=True)
class Keys:
    """An old and a new key, and processes that have the one, both, or the other."""

    old: bytes
    new: bytes
    before: Services
    both: Services
    after: Services

    @property
    def old_id(self) -> str:
        return key_id(self.old)

    @property
    def new_id(self) -> str:
        return key_id(self.new)


def make_keys(make_services: Callable[[Settings], Services], variables: dict[str, str]) -> Keys:
    old, new = Fernet.generate_key(), Fernet.generate_key()

    def process(*keys: bytes) -> Services:
        listed = b",".join(keys).decode()
        return make_services(Settings.from_mapping(variables | {"TOKEN_ENCRYPTION_KEYS": listed}))

    return Keys(old, new, before=process(old), both=process(new, old), after=process(new))


def upload(services: Services, account_id: str) -> None:
    """Store a second pair for the account as an upload does, so that the first one is kept."""
    with transaction(services.pool) as conn:
        store.authorize(
            conn,
            services.keys,
            account_id,
            access_token=f"uploaded-access-of-{account_id}",
            refresh_token=f"uploaded-refresh-of-{account_id}",
            expires_in_s=86_400,
            verified=True,
            proven=False,
        )


def connect_accounts(services: Services, *account_ids: str) -> None:
    for account_id in account_ids:
        connect_account(services, account_id=account_id, due=False)


def key_ids_in(conn: Conn, table: str) -> set[str | None]:
    """Return the ids of the keys that the table's values are under."""
    return {key_id_of(value) for value in values_in(conn, table)}


def values_in(conn: Conn, table: str) -> list[str]:
    """Return all encrypted values of a table."""
    return [row[column] for row in rows_of(conn, table) for column in COLUMNS[table] if row[column]]


def all_but_values(conn: Conn, table: str) -> list[dict[str, Any]]:
    """Return the rows of a table without their encrypted values."""
    rows = rows_of(conn, table)
    return [{name: row[name] for name in row if name not in COLUMNS[table]} for row in rows]


def rows_of(conn: Conn, table: str) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cur:
        return cur.execute(sql.SQL("SELECT * FROM {} ORDER BY 1, 2").format(sql.Identifier(table))).fetchall()
