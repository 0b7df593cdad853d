"""Erasing one person from everything that this service keeps of leads, and looking afterwards whether it is so.

Cached answers are encrypted under keyed hashes: which of them hold a person can only be told by decrypting all, and
what is being fetched cannot be looked into at all. So an erasure ends the cached answers of all accounts: it raises
each account's epoch, after which no process serves or stores what was fetched before. RD Station is asked again.
Lead events cannot be had again: each is decrypted, and those with the person in them are deleted.
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
"""Accounts whose rows are locked at once; their tokens cannot be stored meanwhile, which takes milliseconds."""
PATIENCE_S = 10.0
STILL_AT_RD_STATION = (
    "RD Station still has the person unless the lead was deleted there; until then the next request for it brings it"
    " back."
)
LOOK_LONG = "SET LOCAL statement_timeout = '60s'"

MENTIONS = """
SELECT count(*) FROM {} t
 WHERE EXISTS (SELECT FROM jsonb_each_text(to_jsonb(t)) AS c WHERE position(%(address)s IN lower(c.value)) > 0)
"""


@dataclass(frozen=True, kw_only=True)
class Erased:
    """What an erasure did, and what a search of all tables found after it.

    `removed`: deleted rows by store. `found`: the search through decrypted values. `mentions`: rows by table in which
    the address stands in plain text because operators named something by it; they are left.
    `entry`: the number of the audit's entry.
    """

    accounts: int
    removed: dict[str, int]
    found: Found
    mentions: dict[str, int]
    entry: int

    @property
    def proven(self) -> bool:
        """Whether nothing of before is left, and all values could be read to tell."""
        return self.found.left == 0 and self.found.unreadable == 0


def rows_to_search(conn: psycopg.Connection[Any]) -> int:
    """Return how many rows `erase` tells of: every event, once to erase and once as proof."""
    return 2 * EVENTS.count(conn)


def erase(services: Services, email: object, *, by: Author, on_rows: OnRows = ignore) -> Erased:
    """Erase the person with this e-mail address, however it is spelled. Safe to repeat and to interrupt.

    `on_rows` is told of the events that were decrypted, which is what takes long.
    When it returns no process serves what was fetched before.
    Raises InvalidField, or the database's errors; then it is to be repeated.
    """
    person = Person.of(check_email(email))
    with transaction(services.pool) as conn:
        audit.record(conn, by, "erasure_begun")
        since = _now(conn)
    accounts, removed = _erase_from_stores(services, person, on_rows)
    # Processes remember an account's row, and with it what they may serve, for so long.
    services.refresher.must_end.wait(REMEMBER_S)
    found = cache_search.search(services.pool, services.keys, person, since=since)
    found += event_search.search(services.pool, services.keys, person, since=since, on_rows=on_rows)
    mentions = _mentions(services, person)
    with transaction(services.pool) as conn:
        count = sum(removed.values())
        entry = audit.record(conn, by, "person_erased", accounts=accounts, removed=count, left=found.left)
    if found.left or found.unreadable:
        log.error(
            "an erasure left %d cached answers and events, and could not read %d",
            found.left,
            found.unreadable,
        )
    return Erased(accounts=accounts, removed=removed, found=found, mentions=mentions, entry=entry)


def _now(conn: psycopg.Connection[Any]) -> datetime:
    row = conn.execute("SELECT rd_now()").fetchone()
    if row is None:
        raise RuntimeError("SELECT without FROM returned no row")
    moment: datetime = row[0]
    return moment


def _erase_from_stores(services: Services, person: Person, on_rows: OnRows) -> tuple[int, dict[str, int]]:
    """Empty every store that may hold the person; return the number of accounts and of deleted rows by store.

    The order is that in which data flows: a store that others fill themselves from comes before them. Whoever adds a
    store of personal data erases from it here and searches it in `erase`.
    """
    accounts = responses = 0
    after: str | None = ""
    while after is not None:
        of_batch, deleted, after = write_for_sure(
            services.pool,
            partial(_end_responses, after=after),
            give_up=services.refresher.must_end,
            timeout_s=PATIENCE_S,
        )
        accounts += of_batch
        responses += deleted
    # Whoever was inserting an event held its account's row, and has committed by now.
    events = event_search.erase(services.pool, services.keys, person, on_rows=on_rows)
    return accounts, {"cached_answers": responses, "events": events}


def _end_responses(conn: psycopg.Connection[Any], *, after: str) -> tuple[int, int, str | None]:
    """End the cached answers of the next accounts after one; return how many, rows deleted, and the last account."""
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
    """Return an erasure as programs and operators are told of it. It does not repeat the address."""
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
        notes.append("It has come back already. Delete the lead at RD Station, then erase once more.")
    if not erased.proven:
        notes.append(
            "This is not proven: repeat it, and make sure that TOKEN_ENCRYPTION_KEYS is the same in all processes."
        )
    if "rdservice_operators" in erased.mentions:
        notes.append(
            "An operator of this service has the address. That is no lead and stays; 'flask operators remove' ends it."
        )
    if erased.mentions.keys() - {"rdservice_operators"}:
        notes.append(
            "The tables under mentions name the address because an operator, an account or a key is called so. They"
            " hold no lead, and are left."
        )
    return notes
