"""Counts, lists and replaces the encrypted values of tables of tokens, for the inventory and rotation of keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from rdservice.encryption import EncryptedRow, Place, Replacement

COLUMNS = ("access_token", "refresh_token")

COUNT = "SELECT count(*) FROM {table} WHERE access_token IS NOT NULL"
PAGE = """
SELECT {place}, account_id,
       CASE WHEN left(access_token, 9) IS DISTINCT FROM %(leave_out)s::text || '.' THEN access_token END,
       CASE WHEN left(refresh_token, 9) IS DISTINCT FROM %(leave_out)s::text || '.' THEN refresh_token END
  FROM {table} WHERE {place} > %(after)s AND access_token IS NOT NULL ORDER BY {place} LIMIT %(limit)s
"""
UNCHANGED = """
       t.{place} = given.place
   AND t.access_token = COALESCE(given.old_access, t.access_token)
   AND t.refresh_token = COALESCE(given.old_refresh, t.refresh_token)
"""
# The UPDATE compares once more, with the row as it is once locked.
REPLACE = f"""
WITH given AS (
    SELECT * FROM unnest(%(places)s::text[], %(old_access)s::text[], %(old_refresh)s::text[],
                         %(new_access)s::text[], %(new_refresh)s::text[])
        AS g (place, old_access, old_refresh, new_access, new_refresh)),
free AS (
    SELECT t.{{place}} AS place FROM {{table}} t, given WHERE {UNCHANGED}
       FOR NO KEY UPDATE OF t SKIP LOCKED)
UPDATE {{table}} t
   SET access_token = COALESCE(given.new_access, t.access_token),
       refresh_token = COALESCE(given.new_refresh, t.refresh_token)
  FROM given JOIN free USING (place)
 WHERE {UNCHANGED}
"""  # noqa: S608 - only texts of this module


@dataclass(frozen=True, slots=True)
class TokenTable:
    """A table with pairs of tokens. All bind values in the same way, so a pair can move between them as it is.

    `place`: the primary key, a column of type text.
    """

    name: str
    place: str = "account_id"
    disposable: bool = False

    def count(self, conn: psycopg.Connection[Any]) -> int:
        """See EncryptedTable."""
        row = conn.execute(self._sql(COUNT)).fetchone()
        return 0 if row is None else int(row[0])

    def page(
        self, conn: psycopg.Connection[Any], *, after: Place | None, limit: int, leave_out: str | None
    ) -> list[EncryptedRow]:
        """See EncryptedTable."""
        values = {"after": after or "", "limit": limit, "leave_out": leave_out}
        return [_row(*found) for found in conn.execute(self._sql(PAGE), values)]

    def replace(self, conn: psycopg.Connection[Any], replacements: Sequence[Replacement]) -> int:
        """See EncryptedTable."""
        values = {
            "places": [given.row.place for given in replacements],
            "old_access": [_old(given, "access_token") for given in replacements],
            "old_refresh": [_old(given, "refresh_token") for given in replacements],
            "new_access": [given.values.get("access_token") for given in replacements],
            "new_refresh": [given.values.get("refresh_token") for given in replacements],
        }
        return conn.execute(self._sql(REPLACE), values).rowcount

    def _sql(self, statement: str) -> bytes:
        return statement.format(table=self.name, place=self.place).encode()


TOKENS = TokenTable("rdstation_tokens")
REPLACED = TokenTable("rdstation_replaced_tokens")


def _row(place: str, account_id: str, *stored: str | None) -> EncryptedRow:
    values = {column: value for column, value in zip(COLUMNS, stored, strict=True) if value is not None}
    return EncryptedRow(
        place=place, account_id=account_id, values=values, left_out=len(COLUMNS) - len(values)
    )


def _old(given: Replacement, column: str) -> str | None:
    """Return the ciphertext that the column must still have, or None for a column that stays as it is."""
    return given.row.values[column] if column in given.values else None
