"""Erases one person from all lead data that the service stores, then verifies the result.

Cached responses are encrypted and their keys are hashes, so finding a person would mean decrypting all of them, and a
response that is being fetched cannot be searched at all. Therefore an erasure drops the cached responses of all
accounts: it raises each account's cache epoch, after which no process serves or stores what was fetched before. Later
requests fetch from RD Station again. Lead events cannot be fetched again, so each event is decrypted, and only those
that contain the person are deleted.
"""

import logging
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import psycopg
from psycopg import sql

from rdservice.access import audit
from rdservice.access.audit import Author
from rdservice.cache import search as cache_search
from rdservice.cache import table as cache_table
from rdservice.cache.search import Found, Person
from rdservice.data_protection import retention
from rdservice.database.pool import transaction, write_for_sure
from rdservice.database.progress import OnRows, ignore
from rdservice.events import search as event_search
from rdservice.events.encrypted import EVENTS
from rdservice.leads.parameters import check_email
from rdservice.services import Services
from rdservice.tokens import store
from rdservice.tokens.memory import REMEMBER_S

log = logging.getLogger(__name__)

BATCH = 200
"""Accounts locked per transaction. It takes milliseconds, in which their tokens cannot be stored."""
WRITE_TIMEOUT_S = 10.0
"""How long each of these transactions is retried while the database is unavailable."""
STILL_AT_RD_STATION = (
    "RD Station still has this person's data unless the lead was deleted there. Until it is, the next request for the"
    " lead brings the data back."
)
LOOK_LONG = "SET LOCAL statement_timeout = '60s'"

MENTIONS = """
SELECT count(*) FROM {} t
 WHERE EXISTS (SELECT FROM jsonb_each_text(to_jsonb(t)) AS c WHERE position(%(address)s IN lower(c.value)) > 0)
"""


@dataclass(frozen=True, kw_only=True)
class Erased:
    """What an erasure deleted, and what the search of all tables found afterwards.

    `accounts`: number of accounts whose cached responses were dropped. `removed`: deleted rows per store.
    `found`: result of the search in decrypted values. `mentions`: rows per table that contain the address in plain
    text, because an operator, an account or a key is named after it; they are kept. `entry`: number of the audit entry.
    """

    accounts: int
    removed: dict[str, int]
    found: Found
    mentions: dict[str, int]
    entry: int

    @property
    def proven(self) -> bool:
        """Whether all values could be decrypted and none from before the erasure contains the person."""
        return self.found.left == 0 and self.found.unreadable == 0


def rows_to_search(conn: psycopg.Connection[Any]) -> int:
    """Return how many rows `erase` reports to `on_rows`: each event twice, for the erasure and for the search."""
    return 2 * EVENTS.count(conn)


def erase(services: Services, email: object, *, by: Author, on_rows: OnRows = ignore) -> Erased:
    """Erase the person with this e-mail address, in any spelling. Safe to repeat and to interrupt.

    After it returns, no process serves lead data that was fetched before the call. `on_rows` receives the number of
    events decrypted, the slow part. Raises InvalidField for an invalid address, and the database's errors; repeat the
    erasure after those.
    """
    person = Person.of(check_email(email))
    with transaction(services.pool) as conn:
        audit.record(conn, by, "erasure_begun")
        since = _now(conn)
    accounts, removed = _erase_from_stores(services, person, on_rows)
    # Each process caches account rows, and with them the cache epoch, for this long.
    services.refresher.must_end.wait(REMEMBER_S)
    found = cache_search.search(services.pool, services.keys, person, since=since)
    found += event_search.search(services.pool, services.keys, person, since=since, on_rows=on_rows)
    mentions = _mentions(services, person)
    with transaction(services.pool) as conn:
        count = sum(removed.values())
        entry = audit.record(conn, by, "person_erased", accounts=accounts, removed=count, left=found.left)
    if found.left or found.unreadable:
        log.error(
            "an erasure left %d cached responses and events, and could not read %d",
            found.left,
            found.unreadable,
        )
    return Erased(accounts=accounts, removed=removed, found=found, mentions=mentions, entry=entry)


def _now(conn: psycopg.Connection[Any]) -> datetime:
    row = conn.execute("SELECT rd_now()").fetchone()
    if row is None:
        raise RuntimeError("SELECT without FROM returned no row")
    now: datetime = row[0]
    return now


def _erase_from_stores(services: Services, person: Person, on_rows: OnRows) -> tuple[int, dict[str, int]]:
    """Empty every store that may contain the person; return the number of accounts, and deleted rows per store.

    Stores are emptied in the order in which data flows, so that none is refilled from a store not yet emptied. If you
    add a store of personal data, erase from it here and search it in `erase`.
    """
    accounts = responses = 0
    after: str | None = ""
    while after is not None:
        of_batch, deleted, after = write_for_sure(
            services.pool,
            partial(_end_responses, after=after),
            give_up=services.refresher.must_end,
            timeout_s=WRITE_TIMEOUT_S,
        )
        accounts += of_batch
        responses += deleted
    # Inserting an event locks its account's row, so inserts from before the epochs were raised have committed by now.
    events = event_search.erase(services.pool, services.keys, person, on_rows=on_rows)
    return accounts, {"cached_answers": responses, "events": events}


def _end_responses(conn: psycopg.Connection[Any], *, after: str) -> tuple[int, int, str | None]:
    """Drop the cached responses of the next BATCH accounts after `after`.

    Returns how many accounts, how many deleted rows, and the last account's id, None after the last batch.
    """
    accounts = store.lock_next(conn, after=after, limit=BATCH)
    deleted = cache_table.delete_all_of(conn, accounts)
    store.raise_cache_epochs(conn, accounts)
    return len(accounts), deleted, accounts[-1] if accounts else None


def _mentions(services: Services, person: Person) -> dict[str, int]:
    found = {}
    for table in retention.TABLES:
        with transaction(services.pool) as conn:
            conn.execute(LOOK_LONG)
            query = sql.SQL(MENTIONS).format(sql.Identifier(table))
            row = conn.execute(query, {"address": person.address}).fetchone()
        if row is not None and row[0]:
            found[table] = int(row[0])
    return found


def report(erased: Erased) -> dict[str, Any]:
    """Return the erasure's report for programs and operators, a JSON object. It does not contain the address."""
    return {
        "accounts": erased.accounts,
        "removed": erased.removed,
        "left": erased.found.left,
        "unreadable": erased.found.unreadable,
        "fetched_again": erased.found.fetched_again,
        "mentions": erased.mentions,
        "audit_entry": erased.entry,
        "notes": _notes(erased),
    }


def _notes(erased: Erased) -> list[str]:
    notes = [STILL_AT_RD_STATION]
    if erased.found.fetched_again:
        notes.append(
            "The data has come back already. Delete the lead at RD Station, then repeat the erasure."
        )
    if not erased.proven:
        notes.append(
            "The erasure could not be verified. Repeat it, and make sure that TOKEN_ENCRYPTION_KEYS is the same in all"
            " processes."
        )
    if "rdservice_operators" in erased.mentions:
        notes.append(
            "An operator of this service has the address. It is not lead data and is kept; to remove it, use"
            " 'flask operators remove'."
        )
    if erased.mentions.keys() - {"rdservice_operators"}:
        notes.append(
            "The tables under mentions contain the address because an operator, an account or a key is named after it."
            " These rows hold no lead data and are kept."
        )
    return notes
