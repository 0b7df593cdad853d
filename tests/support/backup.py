"""A backup of what an erasure changes, which a test restores."""

from typing import Any

import psycopg
from psycopg import sql

TABLES = ("rdservice_events", "rdservice_audit")


class Backup:
    """Copies of the tables, made now; `restore` puts them back."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        for table in TABLES:
            conn.execute(sql.SQL("CREATE TEMP TABLE {} AS TABLE {}").format(*self._names(table)))

    def restore(self) -> None:
        for table in TABLES:
            copy, name = self._names(table)
            for statement in (
                "ALTER TABLE {name} DISABLE TRIGGER USER",
                "DELETE FROM {name}",
                "INSERT INTO {name} OVERRIDING SYSTEM VALUE SELECT * FROM {copy}",
                "ALTER TABLE {name} ENABLE TRIGGER USER",
            ):
                self._conn.execute(sql.SQL(statement).format(name=name, copy=copy))

    @staticmethod
    def _names(table: str) -> tuple[sql.Identifier, sql.Identifier]:
        return sql.Identifier(f"copy_of_{table}"), sql.Identifier("public", table)
