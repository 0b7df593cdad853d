"""Erases people from all lead data that the service stores, then verifies the result.

A person is a lead, or several: all leads that have the e-mail address, now or in a stored event, or the one with the
UUID. Cached responses are encrypted and their keys are hashes, and a response that is being fetched cannot be searched
at all. Therefore an erasure drops the cached responses of all accounts: it raises each account's cache epoch, after
which no process serves or stores what was fetched before. Later requests fetch from RD Station again. Lead events
cannot be fetched again, so each event is decrypted, and only those of and about the person are deleted.
"""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from rdservice.access import audit
from rdservice.access.audit import Author
from rdservice.cache import search as cache_search
from rdservice.cache import table as cache_table
from rdservice.cache.person import Person
from rdservice.cache.search import Found
from rdservice.data_protection import erased_people, rdstation_leads, retention
from rdservice.data_protection.erased_people import ErasedPeople, Erasure
from rdservice.data_protection.rdstation_leads import Deletion
from rdservice.database.pool import transaction, write_for_sure
from rdservice.database.progress import OnRows, ignore
from rdservice.events import search as event_search
from rdservice.events.encrypted import EVENTS
from rdservice.leads.parameters import check_email, check_uuid, raise_invalid
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
LEAD_TABLES = {"rdstation_cache", "rdservice_events"}
LOOK_LONG = "SET LOCAL statement_timeout = '45s'"

TEXTS = """
SELECT texts FROM (
    SELECT ARRAY(SELECT c.value FROM jsonb_each_text(to_jsonb(t)) AS c WHERE c.value ILIKE ANY (%(patterns)s)) AS texts
      FROM {} t) AS found
 WHERE cardinality(texts) > 0
"""


@dataclass(frozen=True, kw_only=True)
class Erased:
    """What an erasure deleted, and what the search of all tables found afterwards.

    `accounts`: number of accounts whose cached responses were dropped. `removed`: deleted rows per store.
    `found`: result of the search in decrypted values. `at_rd_station`: None if RD Station was not asked to delete.
    `mentions`: rows per table that contain the address or the UUID and are kept: in plain text, because an operator, an
    account or a key is named after it, or about another lead, received since. `entry`: number of the audit entry.
    """

    accounts: int
    removed: dict[str, int]
    found: Found
    at_rd_station: Deletion | None = None
    mentions: dict[str, int]
    entry: int

    @property
    def proven(self) -> bool:
        """Whether all values could be decrypted, none from before contains the person, and RD Station did as asked."""
        failed = self.at_rd_station is not None and bool(self.at_rd_station.failed)
        return self.found.left == 0 and self.found.unreadable == 0 and not failed


def rows_to_search(conn: psycopg.Connection[Any]) -> int:
    """Return how many rows `erase` reports to `on_rows`: each event once to find, to delete, and to search again."""
    return 3 * EVENTS.count(conn)


def erase(
    services: Services,
    email: object = None,
    *,
    uuid: object = None,
    at_rd_station: bool = False,
    by: Author,
    on_rows: OnRows = ignore,
    deadline: float = math.inf,
) -> Erased:
    """Erase the person with this e-mail address, in any spelling, or UUID. Safe to repeat and to interrupt.

    After it returns, no process serves lead data that was fetched before the call. `at_rd_station`: delete the person's
    leads at RD Station first, in all accounts; no call is made after the monotonic time `deadline`. `on_rows` receives
    the number of events decrypted, the slow part. Raises InvalidField unless exactly one of `email` and `uuid` is valid
    and the other None, and the database's errors; repeat the erasure after those.
    """
    if (email is None) == (uuid is None):
        raise_invalid("email" if uuid is None else "uuid", "Send either email or uuid.")
    person = Person.of(check_email(email)) if uuid is None else Person.of_uuid(check_uuid(uuid))
    since = _begin(services, by)
    person = _known(services, person, on_rows)
    deletion: Deletion | None = None
    details: dict[str, Any] = {}
    if at_rd_station:
        deletion, known = rdstation_leads.delete(services, person, deadline=deadline)
        details = {"deleted_at_rd_station": deletion.leads, "failed_at_rd_station": len(deletion.failed)}
        if known != person:
            person = event_search.known_by(services.pool, services.keys, known)
    done = _remove(services, person, since, on_rows)
    with transaction(services.pool) as conn:
        hashes = erased_people.hashes(services.keys, person)
        entry = audit.record(conn, by, "person_erased", **_details(done), **details, person=hashes)
    return Erased(**done._asdict(), at_rd_station=deletion, entry=entry)


def reapply(
    services: Services, erasures: Sequence[Erasure], *, by: Author, on_rows: OnRows = ignore
) -> Erased:
    """Repeat erasures on a restored backup: erase what their people had here until they were erased.

    The audit gets those erasures that the backup's audit lacks, so that its next export has them too. Safe to repeat
    and to interrupt. `on_rows` receives one count of the events more than `rows_to_search` tells.
    """
    since = _begin(services, by)
    people = ErasedPeople.of(services.keys, erasures)
    person = event_search.named(services.pool, services.keys, people.erased_at, on_rows=on_rows)
    person = _known(services, person, on_rows)
    done = _remove(services, person, since, on_rows)
    recorded = {
        tuple(entry.details.get("person", ()))
        for entry in audit.every(services.pool)
        if entry.action in erased_people.ACTIONS
    }
    with transaction(services.pool) as conn:
        for erasure in erasures:
            if erasure.hashes and erasure.hashes not in recorded:
                moment, hashes = erasure.erased_at.isoformat(), list(erasure.hashes)
                audit.record(conn, by, "erasure_reapplied", erased_at=moment, person=hashes)
        entry = audit.record(conn, by, "person_erased", **_details(done), reapplied=len(erasures))
    return Erased(**done._asdict(), at_rd_station=None, entry=entry)


def _begin(services: Services, by: Author) -> datetime:
    with transaction(services.pool) as conn:
        audit.record(conn, by, "erasure_begun")
        return _now(conn)


def _known(services: Services, person: Person, on_rows: OnRows) -> Person:
    """Return the person with all identifiers of the leads that have one of the person's addresses here."""
    person = cache_search.known_by(services.pool, services.keys, person)
    return event_search.known_by(services.pool, services.keys, person, on_rows=on_rows)


class _Done(NamedTuple):
    """Members of `Erased`."""

    accounts: int
    removed: dict[str, int]
    found: Found
    mentions: dict[str, int]


def _remove(services: Services, person: Person, since: datetime, on_rows: OnRows) -> _Done:
    """Erase the person from every store, then search them all."""
    accounts, removed = _erase_from_stores(services, person, on_rows)
    # Each process caches account rows, and with them the cache epoch, for this long.
    services.refresher.must_end.wait(REMEMBER_S)
    cached = cache_search.search(services.pool, services.keys, person, since=since)
    events = event_search.search(services.pool, services.keys, person, since=since, on_rows=on_rows)
    found = cached + events
    if found.left or found.unreadable:
        log.error(
            "an erasure left %d cached responses and events, and could not read %d",
            found.left,
            found.unreadable,
        )
    mentions = Counter(_mentions(services, person))
    mentions.update({"rdstation_cache": cached.mentioned, "rdservice_events": events.mentioned})
    return _Done(accounts, removed, found, {table: count for table, count in mentions.items() if count})


def _details(done: _Done) -> dict[str, Any]:
    return {"accounts": done.accounts, "removed": sum(done.removed.values()), "left": done.found.left}


def _now(conn: psycopg.Connection[Any]) -> datetime:
    row = conn.execute("SELECT rd_now()").fetchone()
    if row is None:
        raise RuntimeError("SELECT without FROM returned no row")
    now: datetime = row[0]
    return now


def _erase_from_stores(services: Services, person: Person, on_rows: OnRows) -> tuple[int, dict[str, int]]:
    """Empty every store that may contain the person; return the number of accounts, and deleted rows per store.

    Stores are emptied in the order in which data flows, so that none is refilled from a store not yet emptied. If you
    add a store of personal data, erase from it here and search it in `_remove`.
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
    """Return how many rows of each table mention the person in plain text."""
    patterns = ["%@%", r"%\%40%", *(f"%{uuid}%" for uuid in person.uuids)]
    mentions = {}
    for table in retention.TABLES:
        with transaction(services.pool) as conn:
            conn.execute(LOOK_LONG)
            with conn.cursor(name="texts") as rows:
                query = sql.SQL(TEXTS).format(sql.Identifier(table))
                rows.execute(query, {"patterns": patterns})
                mentions[table] = sum(person.is_mentioned(texts) for (texts,) in rows)
    return mentions


def report(erased: Erased) -> dict[str, Any]:
    """Return the erasure's report for programs and operators, a JSON object. It does not name the person."""
    deletion = erased.at_rd_station
    return {
        "accounts": erased.accounts,
        "removed": erased.removed,
        "left": erased.found.left,
        "unreadable": erased.found.unreadable,
        "fetched_again": erased.found.fetched_again,
        "at_rd_station": None if deletion is None else asdict(deletion),
        "mentions": erased.mentions,
        "audit_entry": erased.entry,
        "notes": _notes(erased),
    }


def _notes(erased: Erased) -> list[str]:
    deletion = erased.at_rd_station
    notes = [STILL_AT_RD_STATION] if deletion is None else []
    if deletion is not None and deletion.failed:
        notes.append(
            "RD Station may still have this person's data in the accounts under at_rd_station.failed. Repeat the"
            " erasure once they can be called, or delete the lead there."
        )
    if erased.found.fetched_again:
        notes.append(
            "The data has come back already. Delete the lead at RD Station, then repeat the erasure."
        )
    if erased.found.left or erased.found.unreadable:
        notes.append(
            "The erasure could not be verified. Repeat it, and make sure that TOKEN_ENCRYPTION_KEYS is the same in all"
            " processes."
        )
    if "rdservice_operators" in erased.mentions:
        notes.append(
            "An operator of this service has the address. It is not lead data and is kept; to remove it, use"
            " 'flask operators remove'."
        )
    if erased.mentions.keys() & LEAD_TABLES:
        notes.append(
            "RD Station has sent data of other leads that names this person. Do not delete those leads: find the"
            " address in their fields at RD Station and remove it there, then repeat the erasure."
        )
    if erased.mentions.keys() - LEAD_TABLES - {"rdservice_operators"}:
        notes.append(
            "The tables under mentions contain the address because an operator, an account or a key is named after it."
            " These rows hold no lead data and are kept."
        )
    return notes
