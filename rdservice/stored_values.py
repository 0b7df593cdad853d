"""Which keys the stored values need, and which of them cannot be read: all of it, or briefly at the start."""

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from rdservice import database
from rdservice.cache.table import CACHE
from rdservice.encryption import EncryptedRow, EncryptedTable, KeyMissing, KeyRing, ValueDamaged, key_id_of
from rdservice.events.encrypted import EVENTS, EventTable
from rdservice.progress import OnRows, ignore
from rdservice.tokens.encrypted import REPLACED, TOKENS, TokenTable

log = logging.getLogger(__name__)

TABLES: tuple[EncryptedTable, ...] = (TOKENS, REPLACED, EVENTS, CACHE)
PAGE_ROWS = 200
MOST_NAMED = 20
NAMED_IN_LOG = 5
OPENED_AT_START = 500
"""Rows of each table whose values are decrypted at the start: some 0.1 s."""

Pool = ConnectionPool[psycopg.Connection[Any]]


@dataclass
class Names:
    """Rows in trouble: all counted, the first of them by name."""

    total: int = 0
    some: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.total += 1
        if len(self.some) < MOST_NAMED:
            self.some.append(name)


@dataclass(kw_only=True)
class Findings:
    """What was found. Rows are named where nobody but a person can bring their values back: cached leads are not."""

    key_ids: list[str]
    """Of this process, the encrypting one first."""
    counts: dict[str, Counter[str | None]]
    """Numbers of values by table and key id; None for what is not encrypted."""
    missing: dict[str, Names] = field(default_factory=dict)
    """Accounts whose tokens need a key that is not there, by its id."""
    damaged: Names = field(default_factory=Names)
    """Columns of accounts that cannot be decrypted although their key is there."""
    not_encrypted: Names = field(default_factory=Names)

    def under(self, key_id: str | None) -> dict[str, int]:
        """Return how many values of each table are under a key, tables without any left out."""
        return {table: counts[key_id] for table, counts in self.counts.items() if counts[key_id]}

    @property
    def seen_key_ids(self) -> list[str]:
        """The ids of this process's keys, then those of keys that only stored values name."""
        named = {key_id for counts in self.counts.values() for key_id in counts if key_id is not None}
        return self.key_ids + sorted(named - set(self.key_ids))

    @property
    def first_key_is_enough(self) -> bool:
        """Whether every value can be read with the first key, so that all others may be dropped."""
        under_others = any(self.under(key_id) for key_id in self.key_ids[1:])
        return not (under_others or self.missing or self.damaged.total or self.not_encrypted.total)


def pages(pool: Pool, table: EncryptedTable, *, leave_out: str | None = None) -> Iterator[list[EncryptedRow]]:
    """Yield all rows of a table, a page at a time, each read in a short transaction of its own."""
    after = None
    while True:
        with database.transaction(pool) as conn:
            rows = table.page(conn, after=after, limit=PAGE_ROWS, leave_out=leave_out)
        if rows:
            yield rows
            after = rows[-1].place
        if len(rows) < PAGE_ROWS:
            return


def look_through(
    pool: Pool, keys: KeyRing, *, trusted: str | None = None, on_rows: OnRows = ignore
) -> Findings:
    """Look through all stored values and decrypt each, except those under the key id `trusted`."""
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


def check_in_background(pool: Pool, keys: KeyRing) -> threading.Thread:
    """Log, in a thread of its own, what a starting process cannot read: no start waits for this."""
    thread = threading.Thread(target=_check, args=(pool, keys), name="stored values", daemon=True)
    thread.start()
    return thread


def _check(pool: Pool, keys: KeyRing) -> None:
    try:
        for table in (TOKENS, REPLACED, EVENTS):
            _check_keys(pool, keys, table)
            _check_some_values(pool, keys, table)
    except (psycopg.Error, PoolTimeout) as error:
        log.warning(
            "whether all stored tokens can be read was not found out (%s); 'flask encryption status' tells",
            type(error).__name__,
        )


def _check_keys(pool: Pool, keys: KeyRing, table: TokenTable | EventTable) -> None:
    """Name the keys that are missing and who needs them, from the ids alone: nothing is decrypted."""
    with database.transaction(pool) as conn:
        counts = table.count_by_key(conn)
        strange = {
            key_id: table.accounts_under(conn, key_id, limit=NAMED_IN_LOG + 1)
            for key_id in counts
            if key_id not in keys.key_ids
        }
    for key_id, accounts in strange.items():
        if key_id is None:
            log.error(
                "%d values of %s are not encrypted (accounts %s): run 'flask release'",
                counts[key_id],
                table.name,
                _listed(accounts),
            )
        else:
            log.critical(
                "%d values of %s need the key %s, which TOKEN_ENCRYPTION_KEYS lacks (accounts %s): put the key back and"
                " restart; nothing is lost",
                counts[key_id],
                table.name,
                key_id,
                _listed(accounts),
            )
    if counts and not strange:
        log.info("all %d values of %s are under keys of this process", sum(counts.values()), table.name)


def _check_some_values(pool: Pool, keys: KeyRing, table: TokenTable | EventTable) -> None:
    """Name the damaged values of the first accounts; the others show when they are used."""
    with database.transaction(pool) as conn:
        rows = table.page(conn, after=None, limit=OPENED_AT_START, leave_out=None)
    for row in rows:
        for column, value in row.values.items():
            try:
                keys.decrypt(column, row.account_id, value)
            except KeyMissing:
                continue
            except ValueDamaged as error:
                if key_id_of(value) is not None:
                    # Without the traceback of what is no mistake of ours.
                    log.error("%s (%s): restore it from a backup or connect again", error, table.name)  # noqa: TRY400


def _listed(accounts: list[str]) -> str:
    more = " and more" if len(accounts) > NAMED_IN_LOG else ""
    return ", ".join(accounts[:NAMED_IN_LOG]) + more
