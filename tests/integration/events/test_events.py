"""Lead events: what is recognized as one, their order, and how long and how many are kept."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from rdservice.cache.person import Person
from rdservice.config.settings import Settings
from rdservice.data_protection import key_inventory, key_rotation
from rdservice.database.pool import transaction
from rdservice.errors import InvalidField, TooManyRequests
from rdservice.events import payloads, reading, search, store
from rdservice.events.payloads import EventType
from rdservice.events.reading import Page
from rdservice.events.store import Hashes
from rdservice.events.subscriptions import store as subscriptions
from rdservice.services import Services
from tests.conftest import Clock
from tests.support.accounts import BY, connect_account
from tests.support.deliveries import ANA, BIA, add, event, old_lead, open_address
from tests.support.key_changes import Keys, key_ids_in
from tests.support.outside_data import deep

Conn = psycopg.Connection[Any]

HOUR_S, DAY_S = 3_600, 86_400


@pytest.fixture
def secret(services: Services) -> str:
    connect_account(services)
    return open_address(services)


def read(
    services: Services,
    after: int = 0,
    *,
    limit: int = 100,
    event_type: EventType | None = None,
    account_id: str = "default",
) -> Page:
    return reading.read(services, account_id, after=after, limit=limit, event_type=event_type)


def numbers(page: Page) -> list[int]:
    return [found.row.number for found in page.events]


def at(minute: int) -> str:
    return f"2026-03-13T14:{minute:02}:00Z"


def test_a_documented_event_is_read_with_all_its_parts() -> None:
    (found,) = payloads.read(event(uuid=ANA.upper())).events
    assert (found.event_type, found.identifier, found.form) == ("WEBHOOK.CONVERTED", "newsletter", "contact")
    assert (found.uuid, found.email) == (ANA, "ana@example.com")
    assert found.happened_at is not None
    assert found.happened_at.isoformat() == "2026-03-13T17:07:04.254000+00:00"


def test_older_forms_are_read_as_events() -> None:
    marked = old_lead(uuid=BIA, opportunity="true")
    found = payloads.read({"leads": [old_lead(), marked]})
    assert [(e.event_type, e.identifier, e.uuid, e.form) for e in found.events] == [
        ("WEBHOOK.CONVERTED", "webinar-abc", ANA, "lead"),
        ("WEBHOOK.MARKED_OPPORTUNITY", "webinar-abc", BIA, "lead"),
    ]
    assert str(found.events[0].happened_at) == "2026-03-13 17:07:04+00:00"
    for array in ([event(), old_lead()], {"events": [event(), old_lead()]}):
        assert [e.form for e in payloads.read(array).events] == ["contact", "lead"]


RUBBISH: dict[str, Any] = {
    "null": None,
    "a number": 7,
    "a text": "WEBHOOK.CONVERTED",
    "nothing": {},
    "an empty array": [],
    "an array of arrays": [[event()]],
    "leads that are no array": {"leads": "x"},
    "an unknown event": event(event_type="WEBHOOK.DELETED"),
    "a type that is no text": event() | {"event_type": ["WEBHOOK.CONVERTED"]},
    "another entity": event() | {"entity_type": "DEAL"},
    "no contact": {"event_type": "WEBHOOK.CONVERTED"},
    "a contact that is none": event() | {"contact": "ana"},
    "a contact without uuid and e-mail": event() | {"contact": {"name": "Ana"}},
    "a wrong uuid and a wrong e-mail": event(uuid="x", email="y"),
    "an e-mail with NUL": event(uuid="x", email="a\0@example.com"),
    "half a surrogate pair": event(uuid="x", email="\ud800@example.com"),
    "a time that is none": event(at="yesterday"),
    "a time of another age": event(at="9999-12-31T23:59:59-14:00"),
    "a time that is a number": event() | {"event_timestamp": 10**400},
    "an identifier that is none": event() | {"event_identifier": {"a": 1}},
    "an endless identifier": event(identifier="x" * 1_001),
    "a contact that is too large": event(bio="x" * 65_536),
    "a contact that is too deep": event(cf_x=deep(25)),
    "an infinite number": event(cf_x=float("inf")),
}


@pytest.mark.parametrize("body", RUBBISH.values(), ids=RUBBISH)
def test_rubbish_is_no_event_and_the_refusal_does_not_repeat_it(body: Any) -> None:
    with pytest.raises(InvalidField) as refused:
        payloads.read(body)
    assert refused.value.extra == {"field": "body"}
    assert "ana" not in refused.value.detail.lower()
    good = payloads.read([body, event(), body])
    assert (len(good.events), good.refused) == (1, 2)


def test_what_is_unusual_but_harmless_is_kept_as_it_came(services: Services, secret: str) -> None:
    odd = {"cf_nul": "a\0b", "cf_half": "\ud800", "cf_huge": 10**300, "cf_deep": deep(15), "": [None, True]}
    assert add(services, secret, event(**odd)).stored == 1
    (found,) = read(services).events
    assert found.told is not None
    assert odd.items() <= found.told["contact"].items()


def test_too_many_entries_are_refused() -> None:
    with pytest.raises(InvalidField, match="500 events at most"):
        payloads.read([event()] * 501)


def test_the_same_event_again_is_known_also_when_it_was_sent_later(services: Services, secret: str) -> None:
    assert add(services, secret, event()).stored == 1
    again = event() | {"timestamp": "2026-03-13T14:19:00.000-03:00"}
    # The same moment, in another time zone.
    again["event_timestamp"] = "2026-03-13T17:07:04.254Z"
    added = add(services, secret, again, again)
    assert (added.stored, added.late, added.duplicates) == (0, 0, 2)
    for other in (
        event(identifier="e-book"),
        event(event_type="WEBHOOK.MARKED_OPPORTUNITY"),
        event(uuid=BIA),
        event(at="2026-03-13T14:07:04.255-03:00"),
    ):
        assert add(services, secret, other).stored == 1
    assert numbers(read(services)) == [1, 2, 3, 4, 5]


def test_events_without_a_time_are_the_same_only_with_the_same_content(
    services: Services, secret: str
) -> None:
    timeless = {"event_type": "WEBHOOK.CONVERTED", "contact": {"email": "ana@example.com"}}
    richer = {"event_type": "WEBHOOK.CONVERTED", "contact": {"email": "ana@example.com", "name": "Ana"}}
    added = add(services, secret, timeless, richer, timeless)
    assert (added.stored, added.duplicates) == (2, 1)


def test_an_event_that_is_older_than_the_newest_of_its_lead_is_late(services: Services, secret: str) -> None:
    first = add(services, secret, event(at=at(10)), event(at=at(5), uuid=BIA))
    assert (first.stored, first.late) == (2, 0)
    second = add(services, secret, event(at=at(9)), event(at=at(6), uuid=BIA))
    assert (second.stored, second.late, [found.uuid for found in second.new]) == (1, 1, [ANA, BIA])
    in_one = add(services, secret, event(at=at(20)), event(at=at(19)), event(at=at(21)))
    assert (in_one.stored, in_one.late) == (2, 1)
    assert [found.row.late for found in read(services).events] == [
        False,
        False,
        True,
        False,
        False,
        True,
        False,
    ]


def test_an_event_of_the_future_makes_no_later_one_late(services: Services, secret: str) -> None:
    add(services, secret, event(at="2150-01-01T00:00:00Z"))
    assert add(services, secret, event(at="2149-01-01T00:00:00Z")).stored == 1


def test_events_are_read_on_from_a_number_in_pages(services: Services, secret: str) -> None:
    add(services, secret, *(event(at=at(minute)) for minute in range(5)))
    first = read(services, limit=2)
    assert (numbers(first), first.next_after, first.more, first.missed) == ([1, 2], 2, True, 0)
    second = read(services, first.next_after, limit=2)
    assert (numbers(second), second.next_after, second.more) == ([3, 4], 4, True)
    third = read(services, second.next_after, limit=2)
    assert (numbers(third), third.next_after, third.more) == ([5], 5, False)
    assert read(services, 5) == Page(events=[], next_after=5, missed=0, more=False)


def test_one_type_is_read_without_losing_the_place(services: Services, secret: str) -> None:
    marked: EventType = "WEBHOOK.MARKED_OPPORTUNITY"
    add(services, secret, event(at=at(1)), event(at=at(2), event_type=marked), event(at=at(3)))
    page = read(services, event_type=marked)
    assert (numbers(page), page.next_after, page.missed) == ([2], 3, 0)


def test_a_page_ends_where_it_has_bytes_enough_but_has_one_event_at_least(
    services: Services, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(services, secret, *(event(at=at(minute)) for minute in range(4)))
    monkeypatch.setattr(reading, "PAGE_BYTES", 1)
    page = read(services)
    # The first has nothing before it, the second one event.
    assert (numbers(page), page.next_after, page.more) == ([1], 1, True)
    assert numbers(read(services, 3)) == [4]


def test_a_number_that_no_event_has_had_is_told_to_the_reader(services: Services, secret: str) -> None:
    add(services, secret, event())
    with pytest.raises(InvalidField) as refused:
        read(services, 2)
    assert refused.value.extra == {"field": "after", "last_number": 1}


def test_two_insert_at_once_and_no_reader_skips_either(
    make_services: Callable[[Settings], Services], services: Services, secret: str, conn: Conn
) -> None:
    """The second waits for the first: a reader who sees number 2 sees number 1."""
    stream_found = threading.Event()
    reader = make_services(services.settings)

    def insert_second() -> store.Added:
        stream_found.wait(10)
        return add(services, secret, event(uuid=BIA))

    with ThreadPoolExecutor(1) as other:
        second = other.submit(insert_second)
        with transaction(services.pool) as first:
            stream = subscriptions.find(first, secret)
            assert stream is not None
            hashes = Hashes(services.settings.secret_key)
            store.add(first, services.keys, hashes, stream, payloads.read(event()).events)
            stream_found.set()
            while not waits_for_a_lock(conn):
                assert not second.done()
            # Neither is there, and nobody is told that the numbers were passed.
            assert read(reader) == Page(events=[], next_after=0, missed=0, more=False)
        assert second.result(10).stored == 1
    page = read(services)
    assert [(found.row.number, found.told and found.told["contact"]["uuid"]) for found in page.events] == [
        (1, ANA),
        (2, BIA),
    ]


def waits_for_a_lock(conn: Conn) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    row = conn.execute(query).fetchone()
    return row is not None and row[0] > 0


def test_many_writers_and_a_reader_agree_on_one_order(services: Services, secret: str) -> None:
    total, seen, after = 60, [], 0
    with ThreadPoolExecutor(4) as writers:
        under_way = [
            writers.submit(add, services, secret, event(identifier=f"form {number}"))
            for number in range(total)
        ]
        while after < total:
            page = read(services, after, limit=7)
            seen += numbers(page)
            assert page.missed == 0
            after = page.next_after
        assert sum(added.result().stored + added.result().late for added in under_way) == total
    assert seen == list(range(1, total + 1))


def test_an_insert_that_is_rolled_back_uses_up_no_number(services: Services, secret: str) -> None:
    with transaction(services.pool) as conn:
        stream = subscriptions.find(conn, secret)
        assert stream is not None
        hashes = Hashes(services.settings.secret_key)
        store.add(conn, services.keys, hashes, stream, payloads.read(event()).events)
        conn.rollback()
    add(services, secret, event())
    assert numbers(read(services)) == [1]


def test_repetitions_write_nothing(services: Services, secret: str, conn: Conn) -> None:
    add(services, secret, event())
    before = conn.execute("SELECT xmin FROM rdservice_event_streams").fetchall()
    for _ in range(3):
        assert add(services, secret, event()).duplicates == 1
    assert conn.execute("SELECT xmin FROM rdservice_event_streams").fetchall() == before


def test_a_flood_is_refused_until_the_minute_is_over(
    services: Services, secret: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_A_MINUTE", 3)
    add(services, secret, event(at=at(1)), event(at=at(2)))
    with pytest.raises(TooManyRequests) as refused:
        add(services, secret, event(at=at(3)), event(at=at(4)))
    assert refused.value.retry_after_s is not None
    assert 1 <= refused.value.retry_after_s <= 60
    assert add(services, secret, event(at=at(3)), event(at=at(1))).stored == 1
    clock.advance(61)
    assert add(services, secret, event(at=at(4)), event(at=at(5))).stored == 2
    assert numbers(read(services)) == [1, 2, 3, 4, 5]


def test_the_oldest_go_when_there_are_too_many_bytes_and_the_reader_is_told(
    services: Services, secret: str, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(services, secret, event(at=at(1)))
    row = conn.execute("SELECT total_bytes FROM rdservice_event_streams").fetchone()
    assert row is not None
    monkeypatch.setattr(store, "MOST_BYTES", int(row[0] * 3.5))
    for minute in range(2, 10):
        add(services, secret, event(at=at(minute)))
    page = read(services, 1)
    # What lies in the last 3.5 of their size, if only in part.
    assert numbers(page) == [6, 7, 8, 9]
    assert (page.missed, page.next_after) == (4, 9)


def test_old_events_are_missed_by_a_reader_who_comes_late(
    services: Services, secret: str, clock: Clock
) -> None:
    add(services, secret, event(at=at(1)), event(at=at(2)))
    clock.advance(31 * DAY_S)
    with transaction(services.pool) as conn:
        assert store.prune(conn) == 2
    page = read(services)
    assert (numbers(page), page.missed, page.next_after) == ([], 2, 2)


def test_numbers_go_on_when_an_account_is_connected_anew(services: Services, secret: str, conn: Conn) -> None:
    add(services, secret, event(at=at(1)))
    conn.execute("DELETE FROM rdstation_tokens")
    assert conn.execute("SELECT count(*) FROM rdservice_events").fetchone() == (0,)
    connect_account(services)
    services.memory.forget("default")
    add(services, open_address(services), event(at=at(1)))
    page = read(services)
    assert (numbers(page), page.missed) == ([2], 1)


def test_events_of_another_connection_are_not_shown(services: Services, secret: str, conn: Conn) -> None:
    add(services, secret, event(at=at(1)))
    conn.execute("UPDATE rdstation_tokens SET connection_id = gen_random_uuid()")
    with transaction(services.pool) as own:
        assert subscriptions.find(own, secret) is None
    page = read(services)
    assert (numbers(page), page.missed, page.next_after) == ([], 1, 1)


def test_a_person_is_erased_and_everyone_else_stays(services: Services, secret: str, conn: Conn) -> None:
    add(
        services,
        secret,
        event(at=at(1)),
        event(at=at(2), uuid=BIA, email="bia@example.com", name="friend of ANA@example.com"),
        event(at=at(3), uuid=BIA, email="bia@example.com"),
    )
    ana = Person.of("Ana@Example.com")
    row = conn.execute("SELECT now() + interval '1 second'").fetchone()
    assert row is not None
    assert search.search(services.pool, services.keys, ana, since=row[0]).left == 2
    assert search.erase(services.pool, services.keys, ana) == 2
    found = search.search(services.pool, services.keys, ana, since=row[0])
    assert (found.left, found.fetched_again, found.unreadable) == (0, 0, 0)
    page = read(services)
    assert (numbers(page), page.missed) == ([3], 2)


def test_a_damaged_event_is_shown_without_content_and_goes_with_an_erasure(
    services: Services, secret: str, conn: Conn
) -> None:
    add(services, secret, event(at=at(1)), event(at=at(2)))
    conn.execute("UPDATE rdservice_events SET payload = left(payload, -8) WHERE number = 1")
    assert [found.told is None for found in read(services).events] == [True, False]
    assert search.erase(services.pool, services.keys, Person.of("nobody@example.com")) == 1


def test_a_payload_belongs_to_its_row(services: Services, secret: str, conn: Conn) -> None:
    add(services, secret, event(at=at(1)), event(at=at(2)))
    conn.execute(
        "UPDATE rdservice_events SET payload = (SELECT payload FROM rdservice_events WHERE number = 2)"
    )
    assert [found.told is None for found in read(services).events] == [True, False]


def test_events_are_encrypted_anew_with_everything_else(change: Keys, conn: Conn) -> None:
    connect_account(change.before)
    secret = open_address(change.before)
    add(change.before, secret, event())
    missing = key_inventory.look_through(change.after.pool, change.after.keys)
    assert missing.missing[change.old_id].some == ["default", "default"]
    key_rotation.run(change.both.pool, change.both.keys, key_rotation.Progress(), by=BY)
    assert numbers(read(change.after)) == [1]
    assert key_ids_in(conn, "rdservice_events") == {change.new_id}


def test_nothing_in_the_table_tells_about_whom_an_event_is(
    services: Services, secret: str, conn: Conn
) -> None:
    add(services, secret, event())
    plain = str(conn.execute("SELECT e::text FROM rdservice_events e").fetchall())
    assert not [word for word in (ANA, "ana@example.com", "Ana", "newsletter") if word in plain]
    assert secret not in str(conn.execute("SELECT s::text FROM rdservice_subscriptions s").fetchall())
