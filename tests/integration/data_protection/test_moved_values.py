"""A ciphertext in another row or column than its own is refused: it is neither given out nor sent to RD Station."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

from rdservice import errors
from rdservice.accounts.disconnect import disconnect
from rdservice.config.settings import Settings
from rdservice.database import migrate
from rdservice.database.pool import transaction
from rdservice.leads.parameters import parse_listing
from rdservice.leads.queries import list_leads
from rdservice.services import Services
from rdservice.tokens import leases
from tests.support.accounts import BY, connect_account, lease_due, row
from tests.support.key_changes import upload
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]


def move(conn: Conn, column: str, *, of: str, to: str, into: str | None = None) -> None:
    """Copy a stored value as it is."""
    conn.execute(
        sql.SQL(
            "UPDATE rdstation_tokens SET {} = (SELECT {} FROM rdstation_tokens WHERE account_id = %s)"
            " WHERE account_id = %s"
        ).format(sql.Identifier(into or column), sql.Identifier(column)),
        [of, to],
    )


@pytest.mark.parametrize(
    ("column", "into", "of"),
    [("access_token", "access_token", "victim"), ("refresh_token", "access_token", "attacker")],
    ids=["of another account", "of another column"],
)
def test_a_moved_access_token_is_not_given_out(
    connected: Services, sandbox: SandboxProcess, conn: Conn, column: str, into: str, of: str
) -> None:
    for account in ("victim", "attacker"):
        connect_account(connected, sandbox, account, due=False)
    move(conn, column, of=of, into=into, to="attacker")
    with pytest.raises(errors.TokenUnreadable, match="belongs to another row or column"):
        connected.access_tokens.usable("attacker")
    assert connected.access_tokens.usable("victim").access_token


@pytest.mark.parametrize(
    ("column", "of"),
    [("refresh_token", "victim"), ("access_token", "attacker")],
    ids=["of another account", "of another column"],
)
def test_a_moved_refresh_token_is_never_sent(
    connected: Services, sandbox: SandboxProcess, conn: Conn, column: str, of: str
) -> None:
    connect_account(connected, sandbox, "victim", due=False)
    connect_account(connected, sandbox, "attacker")
    move(conn, column, of=of, into="refresh_token", to="attacker")
    (lease,) = lease_due(connected)
    assert connected.refresher.refresh(lease) == "refused"
    assert row(conn, "attacker")["last_error"] == "damaged"
    assert sandbox.calls()["token_refresh"] == {}


def test_a_kept_pair_that_was_moved_to_another_account_is_refused_when_it_comes_back(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    for account in ("victim", "attacker"):
        connect_account(connected, sandbox, account, due=False)
        upload(connected, account)
    conn.execute(
        "UPDATE rdstation_replaced_tokens a SET access_token = v.access_token, refresh_token = v.refresh_token"
        "  FROM rdstation_replaced_tokens v WHERE a.account_id = 'attacker' AND v.account_id = 'victim'"
    )
    lease = next(found for found in lease_due(connected) if found.account_id == "attacker")
    with transaction(connected.pool) as inside:
        refusal = leases.refuse(inside, lease, "invalid_grant", doubtful=False)
    assert refusal is not None
    assert refusal.brought_back
    connected.memory.forget("attacker")
    with pytest.raises(errors.TokenUnreadable, match="belongs to another row or column"):
        connected.access_tokens.usable("attacker")
    (again,) = [found for found in lease_due(connected) if found.account_id == "attacker"]
    assert connected.refresher.refresh(again) == "refused"
    assert sandbox.calls()["token_refresh"] == {}


def test_a_damaged_token_moved_by_a_removal_is_not_revoked_for_the_wrong_account(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, "victim", due=False)
    connect_account(connected, None, "attacker", due=False)
    conn.execute("UPDATE rdstation_tokens SET name = account_id")
    move(conn, "access_token", of="victim", to="attacker")
    removed = disconnect(connected, "attacker", by=BY)
    assert not removed.revoked
    assert "belongs to another row" in removed.warnings[0].text
    assert sandbox.calls()["revoke"] == {}


def first_leads(services: Services) -> bytes:
    return list_leads(services, "default", None, parse_listing(None, None, None)).content.body


def test_cached_leads_of_another_database_with_the_same_keys_are_refused(
    connected: Services,
    make_services: Callable[[Settings], Services],
    sandbox: SandboxProcess,
    conn: Conn,
    variables: dict[str, str],
    empty_database_url: str,
) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as other_conn:
        migrate.migrate(other_conn)
        elsewhere = variables | {"DATABASE_URL": empty_database_url, "RDSTATION_API_URL": sandbox.url}
        other = make_services(Settings.from_mapping(elsewhere))
        connect_account(connected, sandbox, rd_account="default", due=False)
        connect_account(other, sandbox, rd_account="account-2", due=False)
        ours, theirs = first_leads(connected), first_leads(other)
        assert ours != theirs
        # Each value under the key of the other database's row for the same question.
        query = "SELECT key, value FROM rdstation_cache WHERE value IS NOT NULL ORDER BY length(value)"
        pairs = zip(conn.execute(query).fetchall(), other_conn.execute(query).fetchall(), strict=True)
        for (key, _), (_, value) in pairs:
            conn.execute("UPDATE rdstation_cache SET value = %s WHERE key = %s", [value, key])
        fresh = make_services(connected.settings)
        before = sandbox.calls()["contacts_list"]["200"]
        assert first_leads(fresh) == ours
        assert sandbox.calls()["contacts_list"]["200"] == before + 1
        # Whole rows, keys included: nobody asks for them, since connections have random ids.
        for key, value in other_conn.execute(query).fetchall():
            conn.execute(
                "INSERT INTO rdstation_cache (key, account_id, connection_id, epoch, value, fetched_at, expires_at)"
                " SELECT %s, account_id, connection_id, 0, %s, rd_now(), rd_now() + interval '1 day'"
                "   FROM rdstation_tokens",
                [key, value],
            )
        assert first_leads(make_services(connected.settings)) == ours
