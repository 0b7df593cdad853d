"""Rows of accounts: authorizing, replacing, listing, removing."""

from datetime import timedelta
from typing import Any

import jwt
import psycopg
import pytest
from cryptography.fernet import Fernet

from rdservice.database.pool import transaction
from rdservice.encryption import KeyMissing, KeyRing, ValueDamaged
from rdservice.services import Services
from rdservice.tokens import leases, store
from rdservice.tokens.refresh import Result
from rdservice.tokens.store import AccountState, StoredToken
from tests.conftest import Clock
from tests.support.accounts import connect_account, lease_one, row, stored_pair
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]


def authorize(services: Services, *, access: str = "access", refresh: str = "refresh", **more: Any) -> None:
    values: dict[str, Any] = {"expires_in_s": 86_400, "verified": True, "proven": True} | more
    with transaction(services.pool) as conn:
        store.authorize(
            conn,
            services.keys,
            values.pop("account_id", "default"),
            access_token=access,
            refresh_token=refresh,
            **values,
        )


def read(services: Services, account_id: str = "default") -> StoredToken | None:
    with transaction(services.pool) as conn:
        return store.read_token(conn, services.keys, account_id)


def state(services: Services, account_id: str = "default") -> AccountState:
    with transaction(services.pool) as conn:
        found = store.account_state(conn, account_id)
    assert found is not None
    return found


def replaced(conn: Conn) -> list[Any]:
    return conn.execute(
        "SELECT account_id, access_token, refresh_token FROM rdstation_replaced_tokens"
    ).fetchall()


def test_an_authorized_pair_is_stored_encrypted_and_read_again(services: Services, conn: Conn) -> None:
    authorize(services, access="the-access", refresh="the-refresh")
    token = read(services)
    assert token is not None
    assert (token.account_id, token.access_token, token.status) == ("default", "the-access", "connected")
    assert 86_390 < token.life_left_s <= 86_400
    assert token.lifetime_s == 86_400
    assert (token.retry_in_s, token.leased) == (0, False)
    assert stored_pair(services, conn) == ("the-access", "the-refresh")
    text = conn.execute("SELECT t::text FROM rdstation_tokens t").fetchone()
    assert "the-access" not in str(text)
    assert "the-refresh" not in str(text)
    assert "the-access" not in repr(token)


def test_no_row_is_none(services: Services) -> None:
    assert read(services) is None
    with transaction(services.pool) as conn:
        assert store.account_state(conn, "default") is None
        assert store.remove(conn, "default") is None
        assert store.list_accounts(conn) == []


def test_a_value_moved_from_another_row_or_column_is_not_read(services: Services, conn: Conn) -> None:
    authorize(services, account_id="one")
    authorize(services, account_id="two")
    conn.execute(
        "UPDATE rdstation_tokens SET access_token = (SELECT access_token FROM rdstation_tokens"
        " WHERE account_id = 'two') WHERE account_id = 'one'"
    )
    conn.execute("UPDATE rdstation_tokens SET access_token = refresh_token WHERE account_id = 'two'")
    for account in ("one", "two"):
        with pytest.raises(ValueDamaged):
            read(services, account)


def test_a_missing_key_is_told_apart_from_damage(services: Services) -> None:
    authorize(services)
    with transaction(services.pool) as conn, pytest.raises(KeyMissing):
        store.read_token(conn, KeyRing([Fernet.generate_key()]), "default")


def test_a_proven_pair_is_due_at_60_to_65_percent_of_its_life(services: Services, conn: Conn) -> None:
    for number in range(20):
        authorize(services, account_id=f"account-{number}", age_s=100)
    shares = conn.execute(
        "SELECT EXTRACT(epoch FROM refresh_after - issued_at) / EXTRACT(epoch FROM expires_at - issued_at)"
        "  FROM rdstation_tokens"
    ).fetchall()
    assert all(0.60 <= share <= 0.65 for (share,) in shares)
    assert len(set(shares)) > 1


def test_an_unproven_pair_is_due_at_once(services: Services, conn: Conn) -> None:
    authorize(services, proven=False)
    found = row(conn)
    assert found["due_at"] <= found["now"]
    assert found["refreshed_at"] is None


def test_the_life_counts_from_when_the_token_was_issued(services: Services, conn: Conn) -> None:
    authorize(services, expires_in_s=3600, age_s=600)
    found = row(conn)
    assert found["expires_at"] - found["issued_at"] == timedelta(hours=1)
    assert timedelta(minutes=49) < found["expires_at"] - found["now"] <= timedelta(minutes=50)


def test_an_earlier_exp_of_the_token_itself_counts(services: Services, conn: Conn) -> None:
    exp = row_time(conn) + timedelta(hours=6)
    token = jwt.encode({"exp": exp}, "a key of RD Station that nobody here knows", algorithm="HS256")
    authorize(services, access=token)
    assert row(conn)["expires_at"] == exp.replace(microsecond=0)


def row_time(conn: Conn) -> Any:
    found = conn.execute("SELECT rd_now()").fetchone()
    assert found is not None
    return found[0]


@pytest.mark.parametrize("verified", [True, False])
def test_an_access_token_that_nobody_checked_is_unverified(services: Services, verified: bool) -> None:
    authorize(services, verified=verified)
    token = read(services)
    assert token is not None
    assert token.status == ("connected" if verified else "unverified")


def test_each_authorization_is_a_new_one_and_clears_what_the_old_one_suffered(
    services: Services, conn: Conn
) -> None:
    authorize(services)
    conn.execute(
        "UPDATE rdstation_tokens SET status = 'reauthorization_required', failures = 7, refusals = 3,"
        " refused_since = now(), last_error = 'revoked', retry_at = now() + interval '1 hour',"
        " holder = gen_random_uuid(), leased_until = now() + interval '1 minute'"
    )
    before = row(conn)
    authorize(services, access="new")
    after = row(conn)
    assert after["authorization_id"] != before["authorization_id"]
    cleared = ("failures", "refusals", "refused_since", "last_error", "retry_at", "holder", "leased_until")
    assert [after[name] for name in cleared] == [0, 0, None, None, None, None, None]
    assert after["status"] == "connected"
    assert after["created_at"] == before["created_at"]


@pytest.mark.parametrize(
    ("before", "after"), [("Acme", "Acme"), ("Acme", "Other"), (None, "Acme"), ("Acme", None), (None, None)]
)
def test_the_connection_is_as_old_as_the_row_and_a_known_name_stays(
    services: Services, conn: Conn, before: str | None, after: str | None
) -> None:
    authorize(services, name=before)
    old = row(conn)
    authorize(services, name=after, access="new")
    new = row(conn)
    assert new["connection_id"] == old["connection_id"]
    assert new["name"] == (after or before)
    assert new["cache_epoch"] == old["cache_epoch"] + 1


def test_a_deleted_and_connected_account_is_another_connection(services: Services, conn: Conn) -> None:
    authorize(services, name="Acme")
    old = row(conn)
    conn.execute("DELETE FROM rdstation_tokens WHERE account_id = 'default'")
    authorize(services, name="Acme")
    assert row(conn)["connection_id"] != old["connection_id"]


# The pair that an upload replaces


def test_what_an_unproven_pair_replaces_is_kept_encrypted(services: Services, conn: Conn) -> None:
    authorize(services, access="old-access", refresh="old-refresh")
    authorize(services, access="new-access", refresh="new-refresh", proven=False)
    ((account, access, refresh),) = replaced(conn)
    assert services.keys.decrypt("access_token", account, access) == "old-access"
    assert services.keys.decrypt("refresh_token", account, refresh) == "old-refresh"
    assert state(services).has_replaced


def test_the_kept_pair_is_not_displaced_by_one_that_was_never_proven(services: Services, conn: Conn) -> None:
    authorize(services, refresh="proven")
    authorize(services, refresh="unproven", proven=False)
    authorize(services, refresh="unproven-too", proven=False)
    ((account, _, refresh),) = replaced(conn)
    assert services.keys.decrypt("refresh_token", account, refresh) == "proven"


@pytest.mark.parametrize("error", ["damaged", "no_refresh_token"])
def test_a_pair_that_can_never_work_is_not_kept(services: Services, conn: Conn, error: str) -> None:
    authorize(services)
    conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required', last_error = %s", [error])
    authorize(services, access="uploaded", refresh="uploaded", proven=False)
    assert replaced(conn) == []


def test_an_upload_after_a_refused_one_keeps_the_pair_that_came_back(services: Services, conn: Conn) -> None:
    authorize(services, refresh="proven")
    authorize(services, refresh="refused", proven=False)
    with transaction(services.pool) as inside:
        leases.refuse(inside, lease_one(services), "revoked", doubtful=False)
    authorize(services, refresh="uploaded", proven=False)
    ((account, _, refresh),) = replaced(conn)
    assert services.keys.decrypt("refresh_token", account, refresh) == "proven"


def test_a_first_upload_replaces_nothing(services: Services, conn: Conn) -> None:
    authorize(services, proven=False)
    assert replaced(conn) == []
    assert not state(services).has_replaced


def test_a_proven_pair_drops_what_was_kept(services: Services, conn: Conn) -> None:
    authorize(services)
    authorize(services, access="uploaded", proven=False)
    authorize(services, access="from the dialog")
    assert replaced(conn) == []


def test_the_kept_pair_goes_once_the_new_refresh_token_has_worked(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    connect_account(connected, sandbox, due=False)
    pair = sandbox.pair()
    authorize(connected, access=pair["access_token"], refresh=pair["refresh_token"], proven=False)
    assert len(replaced(conn)) == 1
    assert connected.refresher.refresh(lease_one(connected)) is Result.STORED
    assert replaced(conn) == []
    assert row(conn)["status"] == "connected"


def test_the_kept_pair_comes_back_when_the_new_refresh_token_is_refused(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    old = connect_account(connected, sandbox, due=False)
    before = row(conn)
    authorize(connected, access="uploaded", refresh="never-given", proven=False, name="Other")
    assert connected.refresher.refresh(lease_one(connected)) is Result.REFUSED
    assert stored_pair(connected, conn) == (old["access_token"], old["refresh_token"])
    after = row(conn)
    ((account, _, refresh),) = replaced(conn)
    assert connected.keys.decrypt("refresh_token", account, refresh) == "never-given"
    for name in ("connection_id", "authorization_id", "stored_claim", "name", "expires_at", "issued_at"):
        assert after[name] == before[name], name
    assert (after["status"], after["last_error"], after["failures"]) == ("connected", "upload_refused", 0)
    # And it is proven at once, by the ordinary way.
    assert connected.refresher.refresh(lease_one(connected)) is Result.STORED
    assert row(conn)["last_error"] is None
    assert replaced(conn) == [], "the pair that works ends the other"


def test_removing_an_account_removes_the_kept_pair(services: Services, conn: Conn) -> None:
    authorize(services)
    authorize(services, proven=False)
    conn.execute("DELETE FROM rdstation_tokens WHERE account_id = 'default'")
    assert replaced(conn) == []


# States


@pytest.mark.parametrize(
    ("stored", "ahead_s", "shown"),
    [
        ("connected", 0, "connected"),
        ("connected", 90_000, "expired"),
        ("unverified", 90_000, "unverified"),
        ("credentials_refused", 0, "credentials_refused"),
        ("credentials_refused", 90_000, "credentials_refused"),
        ("reauthorization_required", 0, "reauthorization_required"),
        ("reauthorization_required", 90_000, "reauthorization_required"),
    ],
)
def test_expired_is_computed_and_the_other_states_are_stored(
    services: Services, conn: Conn, clock: Clock, stored: str, ahead_s: int, shown: str
) -> None:
    authorize(services)
    conn.execute("UPDATE rdstation_tokens SET status = %s", [stored])
    if ahead_s:
        clock.advance(ahead_s)
    assert state(services).status == shown
    assert row(conn)["status"] == stored


def test_expired_cannot_be_stored(services: Services, conn: Conn) -> None:
    authorize(services)
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("UPDATE rdstation_tokens SET status = 'expired'")


def test_accounts_are_listed_by_name_up_to_a_limit(services: Services) -> None:
    for account in ("b", "a", "c"):
        authorize(services, account_id=account)
    with transaction(services.pool) as conn:
        assert [account.account_id for account in store.list_accounts(conn)] == ["a", "b", "c"]
        assert [account.account_id for account in store.list_accounts(conn, limit=2)] == ["a", "b"]


def test_a_state_tells_of_back_off_and_failures_but_no_token(services: Services, conn: Conn) -> None:
    authorize(services, access="the-access", refresh="the-refresh", name="Acme")
    conn.execute(
        "UPDATE rdstation_tokens SET failures = 2, last_error = 'timeout', retry_at = now() + interval '5 hours',"
        " attempted_at = now(), refresh_after = now()"
    )
    found = state(services)
    assert (found.name, found.failures, found.last_error) == ("Acme", 2, "timeout")
    assert found.due_at == found.retry_at
    assert found.attempted_at is not None
    assert found.now < found.due_at
    assert "the-" not in repr(found)
    assert not any(isinstance(value, str) and "gAAAA" in value for value in vars_of(found))


def vars_of(found: AccountState) -> list[Any]:
    return [getattr(found, name) for name in found.__dataclass_fields__]


# Removal


@pytest.mark.parametrize(
    ("names", "used_by", "maybe_used_by"),
    [
        (("Acme", "Acme"), ["second"], []),
        (("Acme", "Other"), [], []),
        ((None, "Other"), [], ["second"]),
        (("Acme", None), [], ["second"]),
        ((None, None), [], ["second"]),
    ],
)
def test_a_removed_account_tells_whether_another_uses_the_same_rd_station_account(
    services: Services, names: tuple[str | None, str | None], used_by: list[str], maybe_used_by: list[str]
) -> None:
    authorize(services, access="the-access", name=names[0])
    authorize(services, account_id="second", name=names[1])
    with transaction(services.pool) as conn:
        removed = store.remove(conn, "default")
    assert removed is not None
    assert (removed.used_by, removed.maybe_used_by) == (used_by, maybe_used_by)
    assert services.keys.decrypt("access_token", "default", removed.access_token) == "the-access"
    assert removed.access_token not in repr(removed)
    assert read(services) is None
    assert read(services, "second") is not None


def test_exactly_the_same_pair_is_known_again(services: Services) -> None:
    authorize(services, access="a", refresh="r")
    with transaction(services.pool) as conn:

        def holds(account_id: str, access: str, refresh: str) -> bool:
            return store.holds_pair(conn, services.keys, account_id, access, refresh)

        assert holds("default", "a", "r")
        assert not holds("default", "a", "other")
        assert not holds("default", "other", "r")
        assert not holds("default", "r", "a")
        assert not holds("nobody", "a", "r")
        assert not store.holds_pair(conn, KeyRing([Fernet.generate_key()]), "default", "a", "r")
