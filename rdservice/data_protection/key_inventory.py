"""Which encryption keys the stored values need, and which values cannot be decrypted."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from rdservice.accounts.waiting_pairs import WAITING
from rdservice.cache.table import CACHE
from rdservice.database.pool import transaction
from rdservice.database.progress import OnRows, ignore
from rdservice.encryption import EncryptedRow, EncryptedTable, KeyMissing, KeyRing, ValueDamaged, key_id_of
from rdservice.events.encrypted import EVENTS
from rdservice.tokens.encrypted import REPLACED, TOKENS

TABLES: tuple[EncryptedTable, ...] = (TOKENS, REPLACED, WAITING, EVENTS, CACHE)
PAGE_ROWS = 200
MOST_NAMED = 20

Pool = ConnectionPool[psycopg.Connection[Any]]


@dataclass
class Names:
    """A count of problem rows, with the names of the first MOST_NAMED."""

    total: int = 0
    some: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.total += 1
        if len(self.some) < MOST_NAMED:
            self.some.append(name)


@dataclass(kw_only=True)
class Findings:
    """The result of an inventory. Cached leads are counted but not named: the service fetches them again."""

    key_ids: list[str]
    """The key ids of this process, the encrypting one first."""
    counts: dict[str, Counter[str | None]]
    """Number of values per table and key id; key id None counts values that are not encrypted."""
    missing: dict[str, Names] = field(default_factory=dict)
    """By id of a key that this process lacks: accounts whose values need it."""
    damaged: Names = field(default_factory=Names)
    """Columns of accounts that cannot be decrypted although this process has their key."""
    not_encrypted: Names = field(default_factory=Names)

    def under(self, key_id: str | None) -> dict[str, int]:
        """Return the number of values per table that are encrypted with this key, without tables that have none."""
        return {table: counts[key_id] for table, counts in self.counts.items() if counts[key_id]}

    @property
    def seen_key_ids(self) -> list[str]:
        """The key ids of this process, then, sorted, those that only stored values name."""
        named = {key_id for counts in self.counts.values() for key_id in counts if key_id is not None}
        return self.key_ids + sorted(named - set(self.key_ids))

    @property
    def first_key_is_enough(self) -> bool:
        """Whether the first key decrypts every value, so that all other keys may be removed."""
        under_others = any(self.under(key_id) for key_id in self.key_ids[1:])
        return not (under_others or self.missing or self.damaged.total or self.not_encrypted.total)


def pages(pool: Pool, table: EncryptedTable, *, leave_out: str | None = None) -> Iterator[list[EncryptedRow]]:
    """Yield all rows of a table page by page, each page read in its own short transaction."""
    after = None
    while True:
        with transaction(pool) as conn:
            rows = table.page(conn, after=after, limit=PAGE_ROWS, leave_out=leave_out)
        if rows:
            yield rows
            after = rows[-1].place
        if len(rows) < PAGE_ROWS:
            return


def look_through(
    pool: Pool, keys: KeyRing, *, trusted: str | None = None, on_rows: OnRows = ignore
) -> Findings:
    """Decrypt every stored value, except those under the key id `trusted`, and return the findings.

    `on_rows` receives the size of each page.
    """
    findings = Findings(key_ids=keys.key_ids, counts={table.name: Counter() for table in TABLES})
    for table in TABLES:
        for rows in pages(pool, table, leave_out=trusted):
            for row in rows:
                findings.counts[table.name][trusted] += row.left_out
                _look_at(row, keys, table, findings)
            on_rows(len(rows))
    return findings


def _look_at(row: EncryptedRow, keys: KeyRing, table: EncryptedTable, findings: Findings) -> None:
    missing: set[str] = set()
    for column, value in row.values.items():
        key_id = key_id_of(value)
        findings.counts[table.name][key_id] += 1
        try:
            keys.decrypt(column, row.account_id, value)
        except KeyMissing:
            missing.add(str(key_id))
        except ValueDamaged:
            if not table.disposable:
                kind = findings.not_encrypted if key_id is None else findings.damaged
                kind.add(f"{table.name}.{column} of {row.account_id}")
    if not table.disposable:
        for key_id in sorted(missing):
            findings.missing.setdefault(key_id, Names()).add(row.account_id)
