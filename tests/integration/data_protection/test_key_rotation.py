"""Re-encryption under the first key: nothing but ciphertexts changes, nobody waits, nothing newer is overwritten."""

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from rdservice.cache.entries import Content
from rdservice.data_protection import key_inventory, key_rotation
from rdservice.database.pool import transaction
from rdservice.encryption import KeyRing
from rdservice.services import Services
from rdservice.tokens import leases
from tests.support.accounts import BY, connect_account, lease_one, row, stored_pair
from tests.support.deliveries import add, event, open_address
from tests.support.key_changes import (
    COLUMNS,
    Keys,
    all_but_values,
    connect_accounts,
    key_ids_in,
    rows_of,
    upload,
    values_in,
)
from tests.support.pairs import park

Conn = psycopg.Connection[Any]
TOKENS, REPLACED, WAITING, EVENTS, CACHE = COLUMNS
BODY = b'{"contacts": [{"email": "ana@example.com"}]}'


@pytest.fixture(autouse=True)
def _small_batches_and_short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_inventory, "PAGE_ROWS", 3)
    monkeypatch.setattr(key_rotation, "PAUSE_S", 0.01)


def reencrypt(services: Services, keys: KeyRing | None = None) -> int:
    progress = key_rotation.Progress()
    key_rotation.run(services.pool, keys or services.keys, progress, by=BY)
    return progress.reencrypted_rows


def cached(services: Services, account_id: str) -> str:
    """Get a list of leads through the cache; return where it came from."""

    def fetch(deadline: float) -> Content:
        return Content.of(BODY, [("pagination-page", "1")])

    served = services.cache.get(account_id, "contacts_list", ("1",), fetch)
    assert served.content.body == BODY
    return served.state


class ChangingRing(KeyRing):
    """Lets something happen between the reading of a value and its replacement."""

    def __init__(self, services: Services, happens: Callable[[str, str], None]) -> None:
        super().__init__(services.settings.encryption_keys)
        self._happens = happens

    def encrypt(self, column: str, account_id: str, value: str) -> str:
        self._happens(column, account_id)
        return super().encrypt(column, account_id, value)


def test_every_value_of_every_table_is_put_under_the_first_key_and_nothing_else_changes(
    change: Keys, conn: Conn
) -> None:
    accounts = [f"account-{number}" for number in range(8)]
    connect_accounts(change.before, *accounts)
    upload(change.before, "account-3")
    park(change.before, "account-3")
    assert [cached(change.before, account) for account in accounts[:4]] == ["miss"] * 4
    secret = open_address(change.before, "account-5")
    assert add(change.before, secret, event(), event(identifier="e-book")).stored == 2
    claims_before = lease_one(change.before)
    before = {table: all_but_values(conn, table) for table in COLUMNS}
    plain = {account: stored_pair(change.before, conn, account) for account in accounts}

    assert reencrypt(change.both) == 8 + 1 + 1 + 4 + 2
    assert {table: key_ids_in(conn, table) for table in COLUMNS} == {
        table: {change.new_id} for table in COLUMNS
    }
    assert {table: all_but_values(conn, table) for table in COLUMNS} == before
    assert {account: stored_pair(change.after, conn, account) for account in accounts} == plain
    assert [cached(change.after, account) for account in accounts[:4]] == ["hit"] * 4
    assert claims_before.account_id == "account-3"
    assert reencrypt(change.both) == 0


def test_the_kept_pair_comes_back_readable(change: Keys, conn: Conn) -> None:
    connect_accounts(change.before, "default")
    upload(change.before, "default")
    reencrypt(change.both)
    lease = lease_one(change.after)
    with transaction(change.after.pool) as inside:
        refusal = leases.refuse(inside, lease, "invalid_grant", doubtful=False)
    assert refusal is not None
    assert refusal.brought_back
    assert stored_pair(change.after, conn) == ("access-of-default", "refresh-of-default")


def test_an_exchange_under_way_stores_its_answer(change: Keys, conn: Conn) -> None:
    connect_account(change.before)
    lease = lease_one(change.before)
    reencrypt(change.both)
    with transaction(change.both.pool) as inside:
        assert leases.store(
            inside,
            lease,
            change.both.keys,
            access_token="newer-access",
            refresh_token=None,
            expires_at=row(conn)["expires_at"],
        )
    assert stored_pair(change.after, conn) == ("newer-access", "refresh-of-default")


def test_a_locked_row_is_not_waited_for_and_is_done_once_it_is_free(
    change: Keys, conn: Conn, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_accounts(change.before, "a", "b", "c", "d")
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM rdstation_tokens WHERE account_id = 'b' FOR UPDATE")
        left: list[set[str | None]] = []

        def pause(seconds: float) -> None:
            left.append(key_ids_in(conn, TOKENS))
            if len(left) == 2:
                other.rollback()

        # Not time.sleep itself, which other threads use too.
        monkeypatch.setattr(key_rotation, "time", SimpleNamespace(sleep=pause, monotonic=time.monotonic))
        assert reencrypt(change.both) == 4
    assert left == [{change.old_id, change.new_id}] * 2 + [{change.new_id}]


def test_a_row_that_stays_locked_does_not_keep_it_for_ever(
    change: Keys, conn: Conn, database_url: str
) -> None:
    connect_accounts(change.before, "a", "b")
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM rdstation_tokens WHERE account_id = 'b' FOR UPDATE")
        assert reencrypt(change.both) == 1
        assert key_ids_in(conn, TOKENS) == {change.old_id, change.new_id}
    assert reencrypt(change.both) == 1


def test_no_lock_is_held_while_values_are_encrypted(change: Keys, conn: Conn) -> None:
    connect_accounts(change.before, "a", "b")

    def look(column: str, account_id: str) -> None:
        found = conn.execute("SELECT account_id FROM rdstation_tokens FOR UPDATE NOWAIT").fetchall()
        assert len(found) == 2

    assert reencrypt(change.both, ChangingRing(change.both, look)) == 2


@pytest.mark.parametrize("changed", ["access_token", "refresh_token"])
def test_a_newer_value_is_never_overwritten(change: Keys, conn: Conn, changed: str) -> None:
    connect_accounts(change.before, "default")
    others = {"access_token": "newer-access", "refresh_token": "newer-refresh"}
    written: list[str] = []

    def renew(column: str, account_id: str) -> None:
        if not written:
            written.append(change.before.keys.encrypt(changed, account_id, others[changed]))
            conn.execute(
                sql.SQL("UPDATE rdstation_tokens SET {} = %s").format(sql.Identifier(changed)), written
            )

    assert reencrypt(change.both, ChangingRing(change.both, renew)) == 1
    expected = {"access_token": "access-of-default", "refresh_token": "refresh-of-default"}
    assert stored_pair(change.after, conn) == tuple((expected | {changed: others[changed]}).values())
    assert written[0] not in values_in(conn, TOKENS)


def test_a_row_that_is_deleted_meanwhile_stays_deleted(change: Keys, conn: Conn) -> None:
    connect_accounts(change.before, "a", "b")

    def remove(column: str, account_id: str) -> None:
        conn.execute("DELETE FROM rdstation_tokens WHERE account_id = 'a'")

    assert reencrypt(change.both, ChangingRing(change.both, remove)) == 1
    assert [found["account_id"] for found in rows_of(conn, TOKENS)] == ["b"]


def test_a_pair_that_moves_from_one_table_to_the_other_meanwhile_is_not_missed(
    change: Keys, conn: Conn
) -> None:
    connect_accounts(change.before, "a", "b")
    upload(change.before, "a")
    moved: list[int] = []

    def bring_back(rows: int) -> None:
        if not moved:
            moved.append(rows)
            conn.execute(
                "UPDATE rdstation_tokens t SET access_token = r.access_token, refresh_token = r.refresh_token"
                " FROM rdstation_replaced_tokens r WHERE r.account_id = t.account_id"
            )
            conn.execute("DELETE FROM rdstation_replaced_tokens")

    key_rotation.run(change.both.pool, change.both.keys, key_rotation.Progress(), by=BY, on_rows=bring_back)
    assert moved == [2]
    assert key_ids_in(conn, TOKENS) == {change.new_id}
    assert stored_pair(change.after, conn, "a") == ("access-of-a", "refresh-of-a")


def test_two_at_once_re_encrypt_each_row_once(change: Keys, conn: Conn) -> None:
    accounts = [f"account-{number:02}" for number in range(40)]
    connect_accounts(change.before, *accounts)
    together = threading.Barrier(2)
    counts: list[int] = []

    def run() -> None:
        together.wait(20)
        counts.append(reencrypt(change.both))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(counts) == 2
    assert sum(counts) == 40
    for account in accounts:
        assert stored_pair(change.after, conn, account) == (f"access-of-{account}", f"refresh-of-{account}")


def test_what_was_done_before_an_interruption_stays_done(change: Keys, conn: Conn) -> None:
    connect_accounts(change.before, *"abcdefgh")

    def interrupt(column: str, account_id: str) -> None:
        if account_id == "e":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reencrypt(change.both, ChangingRing(change.both, interrupt))
    under_new = [
        found["account_id"]
        for found in rows_of(conn, TOKENS)
        if found["access_token"].startswith(change.new_id)
    ]
    assert under_new == ["a", "b", "c"]
    assert reencrypt(change.both) == 5
    assert key_ids_in(conn, TOKENS) == {change.new_id}


def test_what_cannot_be_read_is_left_as_it_is(change: Keys, conn: Conn) -> None:
    connect_accounts(change.before, "damaged", "good")
    connect_accounts(change.after, "key-missing")
    conn.execute(
        "UPDATE rdstation_tokens SET refresh_token = left(refresh_token, -8) WHERE account_id = 'damaged'"
    )
    conn.execute("UPDATE rdstation_tokens SET access_token = 'plain' WHERE account_id = 'key-missing'")
    before = {found["account_id"]: found for found in rows_of(conn, TOKENS)}
    other = Services.start(change.before.settings, name="test")
    try:
        assert reencrypt(other) == 0
    finally:
        other.close()
    assert {found["account_id"]: found for found in rows_of(conn, TOKENS)} == before
    assert reencrypt(change.both) == 2
    after = {found["account_id"]: found for found in rows_of(conn, TOKENS)}
    assert after["damaged"]["refresh_token"] == before["damaged"]["refresh_token"]
    assert after["damaged"]["access_token"].startswith(change.new_id)
    assert after["key-missing"] == before["key-missing"]
    assert stored_pair(change.after, conn, "good") == ("access-of-good", "refresh-of-good")


def test_a_damaged_cached_answer_is_deleted_and_fetched_anew(change: Keys, conn: Conn) -> None:
    connect_accounts(change.before, "default")
    cached(change.before, "default")
    conn.execute("UPDATE rdstation_cache SET value = left(value, -8)")
    reencrypt(change.both)
    assert values_in(conn, CACHE) == []
    assert cached(change.after, "default") == "miss"


def test_the_planner_keeps_no_samples_of_encrypted_values(change: Keys, conn: Conn) -> None:
    connect_accounts(change.before, "a", "b")
    upload(change.before, "a")
    park(change.before, "a")
    cached(change.before, "b")
    assert add(change.before, open_address(change.before, "a"), event()).stored == 1
    for table, columns in COLUMNS.items():
        conn.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(table)))
        sampled = {
            name
            for (name,) in conn.execute(
                "SELECT attname FROM pg_stats WHERE tablename = %s", [table]
            ).fetchall()
        }
        assert "account_id" in sampled
        assert not sampled & set(columns)
