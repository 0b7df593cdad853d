"""The audit's table: what it takes, what it refuses, and that deeds and entries are one."""

import os
import pwd
import threading
from typing import Any, LiteralString

import psycopg
import pytest

from rdservice.access import audit
from rdservice.access.audit import Author
from rdservice.accounts import upload
from rdservice.accounts.disconnect import disconnect
from rdservice.database.pool import transaction
from rdservice.services import Services
from tests.conftest import Clock
from tests.support.accounts import BY, connect_account
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
DAY_S = 86_400
KEPT_DAYS = 400


def actions(conn: Conn) -> list[str]:
    return [entry.action for entry in audit.newest(conn, limit=1000)]


def test_an_entry_says_who_did_what_when_and_from_where(conn: Conn) -> None:
    by = Author(
        kind="key", id="abcdefgh", name="shop", origin="POST /rd/tokens", request_id="0123456789abcdef"
    )
    number = audit.record(
        conn, by, "tokens_uploaded", account_id="branch", verified=True, warnings=["a", "b"]
    )
    audit.record(conn, BY, "operator_removed", subject="ana@example.com")
    newer, older = audit.newest(conn, limit=10)
    now = conn.execute("SELECT rd_now()").fetchone()
    assert now is not None
    assert (older.entry_id, older.action, older.account_id, older.subject) == (
        number,
        "tokens_uploaded",
        "branch",
        None,
    )
    assert (older.actor_kind, older.actor_id, older.actor_name) == ("key", "abcdefgh", "shop")
    assert (older.origin, older.request_id) == ("POST /rd/tokens", "0123456789abcdef")
    assert older.details == {"verified": True, "warnings": ["a", "b"]}
    assert 0 <= (now[0] - older.happened_at).total_seconds() < 10
    assert (newer.subject, newer.details, newer.entry_id > number) == ("ana@example.com", {}, True)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rdservice_audit SET action = 'nothing'",
        "UPDATE rdservice_audit SET happened_at = happened_at - interval '500 days'",
        "DELETE FROM rdservice_audit",
        "TRUNCATE rdservice_audit",
        """INSERT INTO rdservice_audit (entry_id, action, actor_kind, origin) OVERRIDING SYSTEM VALUE
           SELECT entry_id, 'nothing', 'command', '-' FROM rdservice_audit
               ON CONFLICT (entry_id) DO UPDATE SET action = 'nothing'""",
        "MERGE INTO rdservice_audit a USING (SELECT 1) AS s ON true WHEN MATCHED THEN DELETE",
    ],
)
def test_the_owner_of_the_table_can_neither_change_nor_remove_what_is_young(
    conn: Conn, clock: Clock, statement: LiteralString
) -> None:
    audit.record(conn, BY, "logged_in")
    clock.advance((KEPT_DAYS - 1) * DAY_S)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="only be appended to"):
        conn.execute(statement)
    clock.reset()
    assert actions(conn) == ["logged_in"]


def test_the_rule_holds_for_a_role_that_owns_the_table_and_is_no_superuser(
    conn: Conn, database_url: str
) -> None:
    conn.execute("CREATE ROLE plain_owner")
    try:
        with psycopg.connect(database_url) as owner:
            # As on Heroku: one role that has made all tables. Nothing of this stays.
            owner.execute("ALTER TABLE rdservice_audit OWNER TO plain_owner")
            owner.execute("SET LOCAL ROLE plain_owner")
            audit.record(owner, BY, "logged_in")
            for statement in ("DELETE FROM rdservice_audit", "TRUNCATE rdservice_audit"):
                with (
                    pytest.raises(psycopg.errors.InsufficientPrivilege, match="appended"),
                    owner.transaction(),
                ):
                    owner.execute(statement)
            assert actions(owner) == ["logged_in"]
            owner.rollback()
    finally:
        conn.execute("DROP ROLE plain_owner")


def test_entries_cannot_be_written_of_another_time(conn: Conn) -> None:
    conn.execute(
        "INSERT INTO rdservice_audit (happened_at, action, actor_kind, origin)"
        " VALUES ('2020-01-01', 'logged_in', 'command', '-'), ('2099-01-01', 'logged_in', 'command', '-')"
    )
    ages = conn.execute("SELECT abs(EXTRACT(epoch FROM rd_now() - happened_at)) < 60 FROM rdservice_audit")
    assert ages.fetchall() == [(True,), (True,)]


def test_what_is_400_days_old_goes_in_batches_and_nothing_else(conn: Conn, clock: Clock) -> None:
    clock.advance(-(KEPT_DAYS * DAY_S + 60))
    for _ in range(5):
        audit.record(conn, BY, "logged_in")
    clock.advance(120)
    audit.record(conn, BY, "key_created")
    clock.reset()
    audit.record(conn, BY, "key_revoked")
    assert (audit.prune(conn, batch=3), audit.prune(conn, batch=3), audit.prune(conn, batch=3)) == (3, 2, 0)
    assert actions(conn) == ["key_revoked", "key_created"]


def test_a_deed_whose_entry_cannot_be_written_does_not_happen(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    broken = Author(kind="command", origin="a null byte: \0")
    with pytest.raises(psycopg.DataError):
        disconnect(connected, "default", by=broken)
    with pytest.raises(psycopg.DataError):
        connected.access_tokens.refresh_now("default", by=broken)
    given = upload.parse_upload(sandbox.pair("account-2") | {"account_id": "second"})
    with pytest.raises(psycopg.DataError):
        upload.upload(connected, given, by=broken)
    assert conn.execute("SELECT account_id, leased_until FROM rdstation_tokens").fetchall() == [
        ("default", None)
    ]
    assert "token_refresh" not in {name for name, calls in sandbox.calls().items() if calls}
    assert actions(conn) == []


def keys_made_and_entered(conn: Conn) -> None:
    audit.record(conn, BY, "key_created")
    conn.execute("INSERT INTO rdservice_api_keys (name) VALUES ('the deed fails')")


def test_an_entry_goes_with_a_deed_that_was_rolled_back(services: Services, conn: Conn) -> None:
    with pytest.raises(psycopg.errors.NotNullViolation), transaction(services.pool) as inside:
        keys_made_and_entered(inside)
    assert actions(conn) == []


def test_failed_logins_make_one_entry_in_a_quarter_of_an_hour_however_many_there_are(
    conn: Conn, clock: Clock
) -> None:
    unknown = Author(kind="unknown", origin="POST /login")
    for _ in range(20):
        audit.record_failed_login(conn, unknown, "ana@example.com")
        audit.record_failed_login(conn, unknown, None)
    audit.record_failed_login(conn, unknown, "bia@example.com")
    clock.advance(15 * 60 + 1)
    audit.record_failed_login(conn, unknown, "ana@example.com")
    subjects = [entry.subject for entry in audit.newest(conn, limit=100)]
    assert subjects == ["ana@example.com", "bia@example.com", None, "ana@example.com"]


def test_all_entries_are_read_in_pages_newest_first(
    services: Services, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "PAGE", 3)
    numbers = [audit.record(conn, BY, "logged_in") for _ in range(9)]
    assert [entry.entry_id for entry in audit.every(services.pool)] == numbers[::-1]


def test_entries_at_the_same_moment_do_not_wait_for_each_other(services: Services, conn: Conn) -> None:
    with transaction(services.pool) as one, transaction(services.pool) as other:
        audit.record(one, BY, "key_created")
        done = threading.Thread(target=lambda: audit.record(other, BY, "key_revoked"))
        done.start()
        done.join(5)
        assert not done.is_alive()
    assert sorted(actions(conn)) == ["key_created", "key_revoked"]


def test_the_command_line_is_known_by_the_user_that_the_operating_system_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOGNAME", "somebody-else")
    assert audit.command_line("flask release") == Author(
        kind="command", name=pwd.getpwuid(os.geteuid()).pw_name, origin="flask release"
    )
    monkeypatch.setattr(os, "geteuid", lambda: 54_321)
    assert audit.command_line("flask release").name == "54321"
