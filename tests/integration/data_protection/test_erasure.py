"""Erasing a person: what goes, what is looked at afterwards, and what fetches under way do meanwhile."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet

from rdservice import errors
from rdservice.access import audit
from rdservice.cache import search, table
from rdservice.cache.entries import Content
from rdservice.cache.person import Person
from rdservice.cache.search import Found
from rdservice.config.settings import Settings
from rdservice.data_protection import erasure
from rdservice.database.pool import transaction
from rdservice.encryption import KeyRing
from rdservice.leads.parameters import Listing
from rdservice.leads.queries import lead_by_email, lead_by_uuid, list_leads
from rdservice.services import Services
from rdservice.tokens import store
from tests.support.accounts import BY, connect_account
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

Conn = psycopg.Connection[Any]
Json = dict[str, Any]

FIRST_PAGE = Listing(page=1, page_size=25, order=None)
NOBODY = "nobody@example.com"
ACCOUNTS = ("default", "second", "third")


@pytest.fixture
def lead(connected: Services, sandbox: SandboxProcess) -> Json:
    """A lead of three accounts that is cached in all ways in which it can be."""
    for account_id in ACCOUNTS:
        connect_account(connected, sandbox, account_id, due=False)
    listed = json.loads(list_leads(connected, "default", "1", FIRST_PAGE).content.body)["contacts"]
    found: Json = listed[3]
    cache_in_all_ways(connected, found)
    return found


def cache_in_all_ways(services: Services, lead: Json) -> None:
    for account_id in ACCOUNTS:
        list_leads(services, account_id, "1", FIRST_PAGE)
        lead_by_uuid(services, account_id, lead["uuid"])
        lead_by_email(services, account_id, lead["email"])


def stored(conn: Conn) -> int:
    row = conn.execute("SELECT count(*) FROM rdstation_cache WHERE value IS NOT NULL").fetchone()
    assert row is not None
    return int(row[0])


def search_for(services: Services, conn: Conn, email: str) -> Found:
    row = conn.execute("SELECT rd_now()").fetchone()
    assert row is not None
    return search.search(services.pool, services.keys, Person.of(email), since=row[0])


def test_the_person_goes_from_every_account_and_the_answer_says_what_went(
    connected: Services, lead: Json, conn: Conn
) -> None:
    before = stored(conn)
    assert before == 3 * len(ACCOUNTS)
    assert search_for(connected, conn, lead["email"]).left == before
    erased = erasure.erase(connected, lead["email"], by=BY)
    assert (erased.accounts, erased.removed) == (len(ACCOUNTS), {"cached_answers": before, "events": 0})
    assert (erased.found, erased.mentions) == (Found(left=0, fetched_again=0, unreadable=0), {})
    assert erased.proven
    assert stored(conn) == 0
    assert erased.entry == audit.newest(conn, limit=1)[0].entry_id


@pytest.mark.parametrize("respelled", [str.upper, str.title, str.swapcase])
def test_any_spelling_of_the_address_erases_and_finds_the_person(
    connected: Services, lead: Json, conn: Conn, respelled: Callable[[str], str]
) -> None:
    email = respelled(lead["email"])
    assert email != lead["email"]
    assert search_for(connected, conn, email).left == stored(conn)
    assert erasure.erase(connected, email, by=BY).removed["cached_answers"] == 3 * len(ACCOUNTS)
    assert search_for(connected, conn, lead["email"]).left == 0


def test_a_process_that_has_the_person_in_its_memory_asks_anew_as_soon_as_the_erasure_has_ended(
    connected: Services,
    make_services: Callable[[Settings], Services],
    lead: Json,
    sandbox: SandboxProcess,
) -> None:
    other = make_services(connected.settings)
    for services in (connected, other):
        assert lead_by_uuid(services, "second", lead["uuid"]).state == "hit"
        assert lead_by_uuid(services, "second", lead["uuid"]).state == "hit"
    sandbox.patch(faults=[{"operation": "*", "kind": "status", "status": 503}])
    erasure.erase(connected, lead["email"], by=BY)
    for services in (connected, other):
        with pytest.raises(errors.RdStationFailed):
            lead_by_uuid(services, "second", lead["uuid"])


def test_a_fetch_that_began_before_is_stored_nowhere_and_its_caller_gets_a_new_one(
    connected: Services, make_services: Callable[[Settings], Services], lead: Json, conn: Conn
) -> None:
    other = make_services(connected.settings)
    begun, go_on = threading.Event(), threading.Event()
    bodies = [f'{{"email": "{lead["email"]}"}}'.encode(), b'{"email": null}']

    def fetch(_: float) -> Content:
        body = bodies.pop(0)
        begun.set()
        assert go_on.wait(20)
        return Content.of(body, ())

    with ThreadPoolExecutor(1) as caller:
        asked = caller.submit(connected.cache.get, "default", "contact_get", ("slow",), fetch)
        assert begun.wait(20)
        assert erasure.erase(other, lead["email"], by=BY).proven
        go_on.set()
        assert asked.result(20).content.body == b'{"email": null}'
    assert search_for(connected, conn, lead["email"]) == Found(left=0, fetched_again=0, unreadable=0)
    assert stored(conn) == 1


def test_a_claim_at_the_moment_of_the_erasure_leaves_no_row_that_can_be_filled(
    services: Services, conn: Conn
) -> None:
    connect_account(services, due=False)
    with transaction(services.pool) as reading:
        token = store.read_token(reading, services.keys, "default")
    assert token is not None
    claims: list[table.Lease | None] = []

    def lease() -> None:
        with transaction(services.pool) as claiming:
            claims.append(table.lease(claiming, b"key", token, max_age_s=900))

    with transaction(services.pool) as erasing:
        assert store.lock_next(erasing, after="", limit=10) == ["default"]
        claimant = threading.Thread(target=lease)
        claimant.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: conn.execute(waits).fetchone() == (1,), "the claim waits for the erasure")
        assert table.delete_all_of(erasing, ["default"]) == 0
        store.raise_cache_epochs(erasing, ["default"])
    claimant.join(20)
    [late] = claims
    assert late is not None
    with transaction(services.pool) as storing:
        assert not table.store(storing, late, "what was fetched before")
    assert stored(conn) == 0


def test_all_accounts_are_reached_in_batches(
    services: Services, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "BATCH", 3)
    for number in range(7):
        connect_account(services, account_id=f"account-{number}", due=False)
    conn.execute(
        "INSERT INTO rdstation_cache (key, account_id, connection_id, epoch, value, fetched_at, expires_at)"
        " SELECT sha256(n::text::bytea || account_id::bytea), account_id, connection_id, cache_epoch, 'x', rd_now(),"
        " rd_now() + interval '1 day' FROM rdstation_tokens, generate_series(1, 11) n"
    )
    erased = erasure.erase(services, NOBODY, by=BY)
    assert (erased.accounts, erased.removed) == (7, {"cached_answers": 77, "events": 0})
    assert conn.execute("SELECT DISTINCT cache_epoch FROM rdstation_tokens").fetchall() == [(1,)]


def test_an_erasure_may_be_repeated_and_works_without_any_account(
    connected: Services, lead: Json, conn: Conn
) -> None:
    erasure.erase(connected, lead["email"], by=BY)
    again = erasure.erase(connected, lead["email"], by=BY)
    assert (again.removed, again.proven) == ({"cached_answers": 0, "events": 0}, True)
    conn.execute("DELETE FROM rdstation_tokens")
    assert erasure.erase(connected, lead["email"], by=BY).accounts == 0


def test_what_rd_station_gives_again_is_told_from_what_was_left(
    connected: Services, lead: Json, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_search = search.search

    def fetch_first(*args: Any, **kwargs: Any) -> Found:
        lead_by_uuid(connected, "default", lead["uuid"])
        return really_search(*args, **kwargs)

    monkeypatch.setattr(search, "search", fetch_first)
    erased = erasure.erase(connected, lead["email"], by=BY)
    assert erased.found == Found(left=0, fetched_again=1, unreadable=0)
    assert "come back already" in erasure.report(erased)["notes"][1]


def test_the_search_can_fail(
    connected: Services, lead: Json, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an eraser missed is found, whether by its moment or by its epoch."""
    monkeypatch.setattr(table, "delete_all_of", lambda *_: 0)
    conn.execute("ALTER TABLE rdstation_tokens DISABLE TRIGGER rdstation_cache_forget")
    try:
        erased = erasure.erase(connected, lead["email"], by=BY)
        monkeypatch.setattr(store, "raise_cache_epochs", lambda *_: None)
        conn.execute("UPDATE rdstation_tokens SET cache_epoch = 0")
        same_epoch = erasure.erase(connected, lead["email"], by=BY)
    finally:
        conn.execute("ALTER TABLE rdstation_tokens ENABLE TRIGGER rdstation_cache_forget")
    for missed in (erased, same_epoch):
        assert (missed.found.left, missed.proven) == (3 * len(ACCOUNTS), False)
    assert audit.newest(conn, limit=1)[0].details["left"] == 3 * len(ACCOUNTS)


def test_values_of_another_key_are_told_as_unreadable(
    connected: Services, lead: Json, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = KeyRing([Fernet.generate_key()])
    row = conn.execute("SELECT rd_now()").fetchone()
    assert row is not None
    found = search.search(connected.pool, stranger, Person.of(lead["email"]), since=row[0])
    assert found == Found(left=0, fetched_again=0, unreadable=3 * len(ACCOUNTS))
    monkeypatch.setattr(search, "search", lambda *_, **__: found)
    erased = erasure.erase(connected, lead["email"], by=BY)
    assert not erased.proven
    assert "could not be verified" in " ".join(erasure.report(erased)["notes"])


def test_operators_accounts_and_keys_with_the_address_stay_and_are_told(
    services: Services, conn: Conn
) -> None:
    conn.execute("INSERT INTO rdservice_operators (email, password_hash) VALUES ('ana@example.com', '')")
    conn.execute("INSERT INTO rdservice_operators (email, password_hash) VALUES ('other@example.com', '')")
    connect_account(services, account_id="ANA@example.com", due=False)
    audit.record(conn, BY, "key_created", name="for ana@example.com")
    erased = erasure.erase(services, "Ana@Example.com", by=BY)
    assert erased.mentions == {"rdservice_operators": 1, "rdstation_tokens": 1, "rdservice_audit": 1}
    notes = " ".join(erasure.report(erased)["notes"])
    assert "An operator of this service has the address" in notes
    assert "hold no lead" in notes
    assert conn.execute("SELECT count(*) FROM rdservice_operators").fetchone() == (2,)


def test_the_audit_tells_of_the_erasure_but_not_of_whom(connected: Services, lead: Json, conn: Conn) -> None:
    erasure.erase(connected, lead["email"], by=BY)
    done, begun = audit.newest(conn, limit=2)
    assert (begun.action, begun.details) == ("erasure_begun", {})
    assert done.action == "person_erased"
    hashes = done.details.pop("person")
    assert done.details == {"accounts": 3, "removed": 9, "left": 0}
    assert hashes
    everything = str(conn.execute("SELECT a::text FROM rdservice_audit a").fetchall())
    assert not [value for value in (lead["email"], lead["name"], lead["uuid"]) if value in everything]


def test_an_erasure_that_breaks_off_has_left_its_entry(
    connected: Services, lead: Json, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise psycopg.OperationalError("the server closed the connection")

    monkeypatch.setattr(store, "raise_cache_epochs", fail)
    monkeypatch.setattr(erasure, "WRITE_TIMEOUT_S", 0.0)
    with pytest.raises(psycopg.OperationalError):
        erasure.erase(connected, lead["email"], by=BY)
    assert [entry.action for entry in audit.newest(conn, limit=5)] == ["erasure_begun"]
    monkeypatch.undo()
    assert erasure.erase(connected, lead["email"], by=BY).removed == {
        "cached_answers": 3 * len(ACCOUNTS),
        "events": 0,
    }


@pytest.mark.parametrize("email", [None, "", 7, "nobody", "@", "a b@example.com", "x" * 250 + "@example.com"])
def test_what_is_no_address_erases_nothing(services: Services, conn: Conn, email: object) -> None:
    with pytest.raises(errors.InvalidField) as raised:
        erasure.erase(services, email, by=BY)
    assert raised.value.extra == {"field": "email"}
    assert audit.newest(conn, limit=5) == []
