"""A person is a lead: which events and responses are the person's, and the deletion at RD Station."""

import json
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from rdservice import errors
from rdservice.cache.person import Person
from rdservice.cache.search import Found
from rdservice.data_protection import erasure
from rdservice.events import reading, search
from rdservice.leads.parameters import Listing
from rdservice.leads.queries import lead_by_uuid, list_leads
from rdservice.services import Services
from tests.support.accounts import BY, connect_account
from tests.support.deliveries import ANA, BIA, add, event, old_lead, open_address
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
Json = dict[str, Any]

OLD, NEW = "old@example.com", "new@example.com"
FIRST_PAGE = Listing(page=1, page_size=25, order=None)


@pytest.fixture
def secret(connected: Services, sandbox: SandboxProcess) -> str:
    connect_account(connected, sandbox, due=False)
    return open_address(connected)


def at(minute: int) -> str:
    return f"2026-03-13T14:{minute:02}:00Z"


def without(member: str, delivery: Json) -> Json:
    del delivery["contact"][member]
    return delivery


def stored(services: Services) -> list[int]:
    """Return the numbers of the stored events."""
    page = reading.read(services, "default", after=0, limit=100, event_type=None)
    return [found.row.number for found in page.events]


Erase = Callable[[Services], erasure.Erased]

BY_EACH_IDENTIFIER: dict[str, Erase] = {
    "the old address": lambda services: erasure.erase(services, OLD, by=BY),
    "the new address": lambda services: erasure.erase(services, NEW.upper(), by=BY),
    "the UUID": lambda services: erasure.erase(services, uuid=ANA.upper(), by=BY),
}


@pytest.mark.parametrize("erase", BY_EACH_IDENTIFIER.values(), ids=BY_EACH_IDENTIFIER)
def test_all_events_of_a_lead_go_whatever_address_they_bear(
    connected: Services, secret: str, erase: Erase
) -> None:
    add(
        connected,
        secret,
        event(at=at(1), email=OLD),
        without("email", event(at=at(2))),
        event(at=at(3), email=NEW),
        old_lead(at=at(4), email=OLD),
        without("uuid", event(at=at(5), email=NEW)),
        event(at=at(6), uuid=BIA, email="bia@example.com"),
    )
    erased = erase(connected)
    assert (erased.removed["events"], erased.proven) == (5, True)
    assert stored(connected) == [6]


def test_another_lead_that_took_over_a_former_address_stays(connected: Services, secret: str) -> None:
    add(
        connected,
        secret,
        event(at=at(1), email="contact@example.com"),
        event(at=at(2), email=NEW),
        event(at=at(3), uuid=BIA, email="contact@example.com"),
    )
    assert erasure.erase(connected, NEW, by=BY).removed["events"] == 2
    assert stored(connected) == [3]


def test_who_only_mentions_a_person_loses_that_event_alone(connected: Services, secret: str) -> None:
    bia = {"uuid": BIA, "email": "bia@example.com"}
    url = "https://example.org/?friend=old%40example.com"
    add(connected, secret, event(at=at(1), **bia, website=url), event(at=at(2), **bia), event(at=at(3)))
    assert erasure.erase(connected, OLD, by=BY).removed["events"] == 1
    assert stored(connected) == [2, 3]


@pytest.mark.parametrize(
    ("erased", "others"),
    [
        ("joao@empresa.com", ["joao@empresa.com.br", "maria.joao@empresa.com", "joao+x@empresa.com"]),
        ("ana@example.com", ["mariana@example.com", "LUANA@EXAMPLE.COM", "ana@example.com.ar"]),
        ("paula@example.com", ["ana.paula@example.com", "ana-paula@example.com", "Ana_Paula@example.com"]),
    ],
)
def test_no_event_goes_for_a_part_of_its_address(
    connected: Services, secret: str, erased: str, others: list[str]
) -> None:
    deliveries = [without("uuid", event(email=email, website=f"https://x.y/?e={email}")) for email in others]
    add(connected, secret, *deliveries)
    done = erasure.erase(connected, erased, by=BY)
    assert (done.removed["events"], done.found, done.mentions) == (0, Found(), {})
    assert stored(connected) == [1, 2, 3]


def test_a_cached_lead_tells_which_events_bear_its_former_address(connected: Services, secret: str) -> None:
    lead = json.loads(list_leads(connected, "default", "1", FIRST_PAGE).content.body)["contacts"][0]
    add(connected, secret, event(uuid=lead["uuid"], email=OLD), event(uuid=BIA, email="bia@example.com"))
    assert erasure.erase(connected, lead["email"], by=BY).removed["events"] == 1
    assert stored(connected) == [2]


def test_a_living_lead_with_a_longer_address_is_no_reason_to_delete_it(
    connected: Services, secret: str, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = list_leads(connected, "default", "1", FIRST_PAGE).content.body
    email = json.loads(page)["contacts"][0]["email"]
    part = email.partition(".")[2]
    really_erase = search.erase

    def fetch_and_deliver(*args: Any, **kwargs: Any) -> int:
        deleted = really_erase(*args, **kwargs)
        list_leads(connected, "default", "1", FIRST_PAGE)
        add(connected, secret, event(at=at(minute), uuid=BIA, email=f"x.{part}", bio=bio))
        return deleted

    monkeypatch.setattr(search, "erase", fetch_and_deliver)
    minute, bio = 1, "nobody"
    erased = erasure.erase(connected, part, by=BY)
    assert (erased.found, erased.mentions) == (Found(), {})
    assert erasure.report(erased)["notes"] == [erasure.STILL_AT_RD_STATION]
    minute, bio = 2, f"friend of {part}"
    erased = erasure.erase(connected, part, by=BY)
    assert (erased.found, erased.mentions) == (Found(mentioned=1), {"rdservice_events": 1})
    assert "Do not delete those leads" in erasure.report(erased)["notes"][-1]
    assert "come back" not in str(erasure.report(erased)["notes"])


def test_tables_in_plain_text_are_searched_for_whole_addresses(services: Services, conn: Conn) -> None:
    for email in ("joao@empresa.com", "joao@empresa.com.br", "maria.joao@empresa.com"):
        conn.execute("INSERT INTO rdservice_operators (email, password_hash) VALUES (%s, '')", [email])
    assert erasure.erase(services, "joao@empresa.com", by=BY).mentions == {"rdservice_operators": 1}


def test_values_of_a_lead_are_found_by_its_uuid_after_an_erasure(
    connected: Services, secret: str, conn: Conn
) -> None:
    add(connected, secret, without("email", event(at=at(1))))
    row = conn.execute("SELECT now() + interval '1 second'").fetchone()
    assert row is not None
    found = search.search(connected.pool, connected.keys, Person.of_uuid(ANA), since=row[0])
    assert found == Found(left=1)


def living(services: Services) -> Json:
    """Return a lead of the sandbox as RD Station lists it."""
    listed: Json = json.loads(list_leads(services, "default", "1", FIRST_PAGE).content.body)["contacts"][2]
    return listed


def test_rd_station_deletes_the_lead_in_every_account_when_asked(
    connected: Services, secret: str, sandbox: SandboxProcess
) -> None:
    connect_account(connected, sandbox, "second", rd_account="account-2", due=False)
    lead = living(connected)
    add(connected, secret, event(uuid=lead["uuid"], email=OLD), event(uuid=BIA, email="bia@example.com"))
    erased = erasure.erase(connected, lead["email"], at_rd_station=True, by=BY)
    assert erased.at_rd_station is not None
    assert (erased.at_rd_station.leads, erased.at_rd_station.accounts) == (1, 2)
    assert (erased.at_rd_station.failed, erased.proven) == ((), True)
    assert erasure.report(erased)["notes"] == []
    assert stored(connected) == [2]
    with pytest.raises(errors.NotFound):
        lead_by_uuid(connected, "default", lead["uuid"])
    assert lead["uuid"] not in list_leads(connected, "default", "1", FIRST_PAGE).content.body.decode()
    again = erasure.erase(connected, uuid=lead["uuid"], at_rd_station=True, by=BY)
    assert again.at_rd_station is not None
    assert (again.at_rd_station.leads, again.at_rd_station.failed, again.proven) == (0, (), True)


def test_a_lead_that_rd_station_alone_knows_tells_its_uuid(connected: Services, secret: str) -> None:
    lead = living(connected)
    erasure.erase(connected, "nobody@example.com", by=BY)
    add(connected, secret, event(uuid=lead["uuid"], email=OLD), without("uuid", event(email=OLD)))
    assert erasure.erase(connected, lead["email"], by=BY).removed["events"] == 0
    erased = erasure.erase(connected, lead["email"], at_rd_station=True, by=BY)
    assert erased.removed["events"] == 2


def test_what_fails_at_rd_station_is_told_and_the_rest_is_erased(
    connected: Services, secret: str, sandbox: SandboxProcess
) -> None:
    lead = living(connected)
    connect_account(connected, None, "broken", due=False)
    erased = erasure.erase(connected, lead["email"], at_rd_station=True, by=BY)
    assert erased.at_rd_station is not None
    assert [failure.account_id for failure in erased.at_rd_station.failed] == ["broken"]
    assert (erased.at_rd_station.leads, erased.at_rd_station.accounts, erased.proven) == (1, 1, False)
    told = erasure.report(erased)
    assert told["at_rd_station"]["failed"][0].keys() == {"account_id", "code"}
    assert "may still have" in told["notes"][0]


@pytest.mark.parametrize("status", [403, 500, 503])
def test_a_refused_deletion_is_a_failure(
    connected: Services, secret: str, sandbox: SandboxProcess, status: int
) -> None:
    lead = living(connected)
    add(connected, secret, event(uuid=lead["uuid"], email=OLD))
    sandbox.patch(faults=[{"operation": "other", "kind": "status", "status": status}])
    erased = erasure.erase(connected, lead["email"], at_rd_station=True, by=BY)
    assert erased.at_rd_station is not None
    assert (erased.at_rd_station.leads, erased.at_rd_station.accounts) == (0, 0)
    assert [failure.code for failure in erased.at_rd_station.failed] == ["rdstation_failed"]
    assert (erased.removed["events"], erased.proven) == (1, False)


def test_accounts_that_there_was_no_time_for_are_failures(connected: Services, secret: str) -> None:
    lead = living(connected)
    deadline = time.monotonic() - 1
    erased = erasure.erase(connected, lead["email"], at_rd_station=True, by=BY, deadline=deadline)
    assert erased.at_rd_station is not None
    assert [failure.code for failure in erased.at_rd_station.failed] == ["rdstation_timeout"]
    assert lead_by_uuid(connected, "default", lead["uuid"]).content.body
