"""Puts every stored value under the first key, while all other processes go on.

No lock is waited for and none is held while values are encrypted. A value that has changed meanwhile is left as it is:
whoever wrote it used a key of its own choice, and the next pass looks at it.
"""

import time
from dataclasses import dataclass

from rdservice.access import audit
from rdservice.access.audit import Author
from rdservice.data_protection.key_inventory import TABLES, Pool, pages
from rdservice.database.pool import transaction
from rdservice.database.progress import OnRows, ignore
from rdservice.encryption import EncryptedRow, EncryptedTable, KeyMissing, KeyRing, Replacement, ValueDamaged

MOST_PASSES = 10
PAUSE_S = 0.5
"""Between two passes: rows are locked for milliseconds."""


@dataclass
class Progress:
    """What was done so far, for whoever is interrupted as well."""

    reencrypted_rows: int = 0


def run(pool: Pool, keys: KeyRing, progress: Progress, *, by: Author, on_rows: OnRows = ignore) -> None:
    """Re-encrypt for `by` what is under other keys than the first, in batches of their own transactions.

    Values that cannot be decrypted are left as they are, except cached leads that are damaged, which are deleted.
    Safe to repeat, to run twice at once and to interrupt. `on_rows` is told of the first pass.
    """
    for number in range(MOST_PASSES):
        if number:
            time.sleep(PAUSE_S)
        told = on_rows if number == 0 else ignore
        done = [_pass(pool, keys, table, progress, by, told) for table in TABLES]
        # A pair may have moved from one table to the other behind the pass: only a pass with nothing to do is the last.
        if not any(done):
            return


def _pass(
    pool: Pool, keys: KeyRing, table: EncryptedTable, progress: Progress, by: Author, on_rows: OnRows
) -> bool:
    """Go once through a table; return whether anything was to do."""
    anything = False
    for rows in pages(pool, table, leave_out=keys.key_ids[0]):
        replacements = [found for row in rows if (found := _replacement(row, keys, table)) is not None]
        if replacements:
            anything = True
            with transaction(pool) as conn:
                replaced = table.replace(conn, replacements)
                if replaced and not progress.reencrypted_rows:
                    # Once a run, with its first batch: an entry for each would hide all others.
                    audit.record(conn, by, "values_encrypted", key_id=keys.key_ids[0])
            progress.reencrypted_rows += replaced
        on_rows(len(rows))
    return anything


def _replacement(row: EncryptedRow, keys: KeyRing, table: EncryptedTable) -> Replacement | None:
    """Return the row's values under the first key, None when it has none to replace."""
    values: dict[str, str | None] = {}
    for column, stored in row.values.items():
        try:
            values[column] = keys.encrypt(
                column, row.account_id, keys.decrypt(column, row.account_id, stored)
            )
        except KeyMissing:
            continue
        except ValueDamaged:
            if table.disposable:
                values[column] = None
    return Replacement(row=row, values=values) if values else None
