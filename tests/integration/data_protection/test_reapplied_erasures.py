"""Erasing again, after a backup was restored, the people whom an exported audit tells of."""

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from rdservice.access import audit
from rdservice.config.settings import Settings
from rdservice.data_protection import erased_people, erasure
from rdservice.data_protection.erased_people import Erasure, NoExport
from rdservice.events import reading
from rdservice.services import Services
from tests.conftest import Clock
from tests.support.accounts import BY, connect_account
from tests.support.backup import Backup
from tests.support.command_line import app_with_commands
from tests.support.deliveries import ANA, BIA, add, event, open_address
from tests.support.key_changes import Keys, make_keys

Conn = psycopg.Connection[Any]

EMAIL, LATER = "ana@example.com", "ana.souza@example.com"


def at(minute: int) -> str:
    return f"2026-03-13T14:{minute:02}:00Z"


def stored(services: Services) -> list[int]:
    page = reading.read(services, "default", after=0, limit=100, event_type=None)
    return [found.row.number for found in page.events]


@pytest.fixture
def secret(services: Services) -> str:
    connect_account(services, due=False)
    return open_address(services)


def export(services: Services) -> str:
    """Return what `flask audit list --json` prints."""
    runner = app_with_commands(services).test_cli_runner()
    return str(runner.invoke(args=["audit", "list", "--json"]).stdout)


def reapply(services: Services, exported: str) -> erasure.Erased:
    return erasure.reapply(services, erased_people.read_export(exported), by=BY)


def test_a_restored_backup_loses_erased_people_again_and_nobody_else(
    services: Services, secret: str, conn: Conn
) -> None:
    add(
        services,
        secret,
        event(at=at(1)),
        event(at=at(2), email=LATER),
        event(at=at(3), uuid=BIA, email="bia@example.com"),
        event(at=at(4), uuid=BIA, email="bia@example.com", bio=f"friend of {EMAIL}"),
        event(at=at(5), uuid=BIA, email="mariana@example.com"),
    )
    backup = Backup(conn)
    assert erasure.erase(services, EMAIL, by=BY).removed["events"] == 3
    exported = export(services)
    backup.restore()
    assert stored(services) == [1, 2, 3, 4, 5]
    erased = reapply(services, exported)
    assert (erased.removed["events"], erased.proven) == (3, True)
    assert stored(services) == [3, 5]


def test_a_person_erased_by_uuid_is_erased_again(services: Services, secret: str, conn: Conn) -> None:
    add(services, secret, event(at=at(1)), event(at=at(2), uuid=BIA, email="bia@example.com"))
    backup = Backup(conn)
    erasure.erase(services, uuid=ANA, by=BY)
    exported = export(services)
    backup.restore()
    reapply(services, exported)
    assert stored(services) == [2]


def test_what_a_person_left_after_the_erasure_stays(
    services: Services, secret: str, conn: Conn, clock: Clock
) -> None:
    add(services, secret, event(at=at(1)))
    erasure.erase(services, EMAIL, by=BY)
    clock.advance(86_400)
    add(services, secret, event(at=at(2)))
    backup = Backup(conn)
    exported = export(services)
    backup.restore()
    assert reapply(services, exported).removed["events"] == 0
    assert stored(services) == [2]


def test_the_restored_audit_gets_the_erasures_that_it_lacks_with_their_times(
    services: Services, secret: str, conn: Conn, clock: Clock
) -> None:
    add(services, secret, event(at=at(1)))
    backup = Backup(conn)
    erasure.erase(services, EMAIL, by=BY)
    exported = export(services)
    [first] = erased_people.read_export(exported)
    backup.restore()
    clock.advance(3_600)
    reapply(services, exported)
    reapply(services, exported)
    [recorded] = erased_people.read_export(export(services))
    assert (recorded.hashes, recorded.erased_at) == (first.hashes, first.erased_at)
    backup.restore()
    assert reapply(services, json.dumps(json.loads(export(services)))).removed["events"] == 0
    assert reapply(services, exported).removed["events"] == 1


@pytest.fixture
def change(make_services: Callable[[Settings], Services], variables: dict[str, str]) -> Keys:
    return make_keys(make_services, variables)


def test_a_change_of_the_key_leaves_the_hashes_comparable_while_the_old_key_is_there(
    change: Keys, conn: Conn
) -> None:
    connect_account(change.before, due=False)
    secret = open_address(change.before)
    add(change.before, secret, event(at=at(1)))
    backup = Backup(conn)
    for erased_with, restored_with in (
        (change.before, change.both),
        (change.both, change.before),
        (change.both, change.after),
    ):
        erasure.erase(erased_with, EMAIL, by=BY)
        exported = export(change.both)
        erasures = erased_people.read_export(exported)
        assert all(erased_people.can_be_matched(restored_with.keys, one) for one in erasures[:1])
        backup.restore()
        done = reapply(restored_with, exported)
        # With the new key alone the events of the backup cannot be read, so nothing is called proven.
        assert (done.removed["events"], done.proven) == (
            (1, True) if restored_with is not change.after else (0, False)
        )
        backup.restore()


def test_the_hash_names_nobody_and_depends_on_the_key(change: Keys, conn: Conn) -> None:
    for services in (change.before, change.after):
        erasure.erase(services, EMAIL, by=BY)
    hashes = [
        entry.details["person"] for entry in audit.newest(conn, limit=9) if entry.action == "person_erased"
    ]
    assert [[one.partition(".")[0] for one in some] for some in hashes] == [[change.new_id], [change.old_id]]
    assert len({one.partition(".")[2] for some in hashes for one in some}) == 2
    everything = str(conn.execute("SELECT a::text FROM rdservice_audit a").fetchall())
    assert "ana@" not in everything


def test_both_forms_of_an_export_are_read_and_anything_else_is_refused() -> None:
    def entry(number: int, action: str = "person_erased", **details: Any) -> dict[str, Any]:
        return {
            "entry": number,
            "happened_at": "2026-03-13T14:00:00+00:00",
            "action": action,
            "details": details,
        }

    entries = [
        entry(5, person=["k.1"]),
        entry(4, "key_created", name="x"),
        entry(3, reapplied=2),
        entry(2, "erasure_reapplied", person=["k.2"], erased_at="2026-01-01T00:00:00+00:00"),
        entry(1),
    ]
    lines = "\n".join(json.dumps(one) for one in entries) + "\n\n"
    for text in (json.dumps(entries, indent=2), lines):
        found = erased_people.read_export(text)
        assert [(one.entry, one.hashes) for one in found] == [(5, ("k.1",)), (2, ("k.2",)), (1, ())]
        assert found[1].erased_at.isoformat() == "2026-01-01T00:00:00+00:00"
    assert erased_people.read_export("[]") == []
    broken: list[tuple[str, int | None]] = [
        ("", None),
        ("7", None),
        ("{}", None),
        ("email\nana@example.com", 1),
        (lines + "{", 7),
        (json.dumps([entry(1, person=[7])]), None),
        (json.dumps([entry(1, person="k.1")]), None),
        (json.dumps([entry(1) | {"happened_at": "2026-03-13T14:00:00"}]), None),
        ("[" * 100_000, 1),
    ]
    for text, line in broken:
        with pytest.raises(NoExport) as refused:
            erased_people.read_export(text)
        assert refused.value.line == line, text[:40]


def test_an_erasure_of_an_earlier_version_or_another_key_is_not_called_repeated(services: Services) -> None:
    moment = erased_people.read_export(
        '{"entry": 1, "happened_at": "2026-03-13T14:00:00+00:00", "action": "person_erased", "details": {}}'
    )[0].erased_at
    without = Erasure(entry=1, erased_at=moment, hashes=())
    other = Erasure(entry=2, erased_at=moment, hashes=("01234567.abc",))
    assert not erased_people.can_be_matched(services.keys, without)
    assert not erased_people.can_be_matched(services.keys, other)
    notes = erased_people.notes([without, other])
    assert "01234567" in notes[0]
    assert "by hand" in notes[1]
