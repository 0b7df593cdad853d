"""Re-encrypts every stored value with the first key, while all other processes keep running.

The rotation waits for no lock and holds none while it encrypts. It skips a value that another process has changed in
the meantime; the next pass looks at it again.
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
"""Between two passes. Other processes lock rows for milliseconds only."""


@dataclass
class Progress:
    """What a rotation has done so far. The caller keeps it, so it also reports an interrupted rotation."""

    reencrypted_rows: int = 0


def run(pool: Pool, keys: KeyRing, progress: Progress, *, by: Author, on_rows: OnRows = ignore) -> None:
    """Re-encrypt all values that are not under the first key, each batch in its own transaction.

    Values that cannot be decrypted stay unchanged, except damaged cached leads, which are deleted. Safe to repeat, to
    run concurrently and to interrupt. `on_rows` receives the page sizes of the first pass. `by` is the author of the
    audit entry.
    """
    for number in range(MOST_PASSES):
        if number:
            time.sleep(PAUSE_S)
        report = on_rows if number == 0 else ignore
        done = [_pass(pool, keys, table, progress, by, report) for table in TABLES]
        # A pair may move to a table that the pass has already read, so only a pass that finds nothing is the last.
        if not any(done):
            return


def _pass(
    pool: Pool, keys: KeyRing, table: EncryptedTable, progress: Progress, by: Author, on_rows: OnRows
) -> bool:
    """Re-encrypt one table; return whether there was anything to re-encrypt."""
    anything = False
    for rows in pages(pool, table, leave_out=keys.key_ids[0]):
        replacements = [found for row in rows if (found := _replacement(row, keys, table)) is not None]
        if replacements:
            anything = True
            with transaction(pool) as conn:
                replaced = table.replace(conn, replacements)
                if replaced and not progress.reencrypted_rows:
                    # One audit entry per run, with its first batch: one per batch would bury all others.
                    audit.record(conn, by, "values_encrypted", key_id=keys.key_ids[0])
            progress.reencrypted_rows += replaced
        on_rows(len(rows))
    return anything


def _replacement(row: EncryptedRow, keys: KeyRing, table: EncryptedTable) -> Replacement | None:
    """Return the row's values encrypted with the first key; None when there is none to replace."""
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
