"""Uploads, responses and refusals that meet on one account: no pair is lost, and no used token stays stored.

Each test interleaves the transactions of two connections, directly and behind PgBouncer. RD Station rotates refresh
tokens: a pair that was exchanged and whose response is not stored is dead.
"""

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from rdservice.config.settings import Settings
from rdservice.database.pool import transaction
from rdservice.services import Services
from rdservice.tokens import leases
from tests.support.accounts import connect_account, lease_due, lease_one, row, stored_pair
from tests.support.pairs import authorize, kept, put, upload
from tests.support.pgbouncer import behind_pgbouncer
from tests.support.waiting import wait_until

Conn = psycopg.Connection[Any]


@pytest.fixture(params=["direct", "pgbouncer"])
def services(
    request: pytest.FixtureRequest,
    variables: dict[str, str],
    make_services: Callable[[Settings], Services],
    tmp_path: Path,
) -> Iterator[Services]:
    if request.param == "direct":
        yield make_services(Settings.from_mapping(variables))
        return
    with behind_pgbouncer(variables["DATABASE_URL"], tmp_path / "pgbouncer.log") as url:
        services = make_services(Settings.from_mapping(variables | {"DATABASE_URL": url}))
        yield services
        services.pool.close()


def interleave(
    services: Services, conn: Conn, first: Callable[[Conn], object], second: Callable[[Conn], object]
) -> None:
    """Run `first`, then `second` on another connection until it waits for a lock, then commit both in this order."""
    failed: list[BaseException] = []

    def run(pool: ConnectionPool[Conn]) -> None:
        try:
            with transaction(pool) as inside:
                second(inside)
        except BaseException as error:  # noqa: BLE001 - the test raises it
            failed.append(error)

    thread = threading.Thread(target=run, args=[services.pool])
    with transaction(services.pool) as inside:
        first(inside)
        thread.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(
            lambda: conn.execute(waiting).fetchone() != (0,) or not thread.is_alive(), "the second waits"
        )
    thread.join(20)
    assert not failed, failed


def test_a_response_during_an_open_upload_is_in_the_kept_pair(services: Services, conn: Conn) -> None:
    connect_account(services)
    under_way = lease_one(services)
    interleave(
        services,
        conn,
        lambda inside: authorize(services, inside, "uploaded", proven=False),
        lambda inside: put(services, inside, under_way, "rotated"),
    )
    assert stored_pair(services, conn)[1] == "uploaded"
    assert kept(services, conn) == ["rotated"]


def test_a_response_during_a_refusal_that_brings_its_pair_back_is_in_the_row(
    services: Services, conn: Conn
) -> None:
    connect_account(services)
    under_way = lease_one(services)
    upload(services, "uploaded")
    refused = lease_one(services)
    interleave(
        services,
        conn,
        lambda inside: leases.refuse(inside, refused, "revoked", doubtful=False),
        lambda inside: put(services, inside, under_way, "rotated"),
    )
    assert stored_pair(services, conn)[1] == "rotated"
    assert row(conn)["status"] == "connected"


def test_a_refusal_during_an_open_response_of_the_kept_pair_brings_the_new_token_back(
    services: Services, conn: Conn
) -> None:
    connect_account(services)
    under_way = lease_one(services)
    upload(services, "uploaded")
    refused = lease_one(services)
    interleave(
        services,
        conn,
        lambda inside: put(services, inside, under_way, "rotated"),
        lambda inside: leases.refuse(inside, refused, "revoked", doubtful=False),
    )
    assert stored_pair(services, conn)[1] == "rotated"


def test_a_refusal_during_an_open_upload_does_not_touch_the_upload(services: Services, conn: Conn) -> None:
    connect_account(services)
    under_way = lease_one(services)
    interleave(
        services,
        conn,
        lambda inside: authorize(services, inside, "uploaded", proven=False),
        lambda inside: leases.refuse(inside, under_way, "revoked", doubtful=False),
    )
    assert stored_pair(services, conn)[1] == "uploaded"
    assert row(conn)["status"] == "connected"
    assert len(kept(services, conn)) == 1


@pytest.mark.parametrize("callback_first", [True, False])
def test_a_first_callback_and_a_first_upload_at_once_keep_the_proven_pair(
    services: Services, conn: Conn, callback_first: bool
) -> None:
    def callback(inside: Conn) -> None:
        authorize(services, inside, "proven", proven=True)

    def uploaded(inside: Conn) -> None:
        authorize(services, inside, "uploaded", proven=False)

    first, second = (callback, uploaded) if callback_first else (uploaded, callback)
    interleave(services, conn, first, second)
    tokens = [stored_pair(services, conn)[1], *kept(services, conn)]
    assert tokens == (["uploaded", "proven"] if callback_first else ["proven"])


def test_two_first_uploads_at_once_keep_both_pairs(services: Services, conn: Conn) -> None:
    interleave(
        services,
        conn,
        lambda inside: authorize(services, inside, "first", proven=False),
        lambda inside: authorize(services, inside, "second", proven=False),
    )
    assert [stored_pair(services, conn)[1], *kept(services, conn)] == ["second", "first"]


def test_an_upload_during_an_open_refusal_keeps_the_pair_that_came_back(
    services: Services, conn: Conn
) -> None:
    connect_account(services)
    upload(services, "refused")
    refused = lease_one(services)
    interleave(
        services,
        conn,
        lambda inside: leases.refuse(inside, refused, "revoked", doubtful=False),
        lambda inside: authorize(services, inside, "uploaded", proven=False),
    )
    assert [stored_pair(services, conn)[1], *kept(services, conn)] == ["uploaded", "refresh-of-default"]


def test_a_database_that_defaults_to_repeatable_read_changes_nothing(services: Services, conn: Conn) -> None:
    name = conn.info.dbname
    conn.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    try:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            [name],
        )
        wait_until(lambda: _isolation(services) is not None, "a new connection")
        assert _isolation(services) == "read committed"
    finally:
        conn.execute(f"ALTER DATABASE {name} RESET default_transaction_isolation")
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            [name],
        )


def _isolation(services: Services) -> str | None:
    try:
        with transaction(services.pool) as inside:
            found = inside.execute("SHOW transaction_isolation").fetchone()
    except psycopg.OperationalError:
        return None
    return None if found is None else str(found[0])


def test_an_upload_that_began_before_a_rotation_ends_as_a_no_op(services: Services, conn: Conn) -> None:
    upload(services, "began")
    lease = lease_one(services)
    interleave(
        services,
        conn,
        lambda inside: put(services, inside, lease, "rotated"),
        lambda inside: authorize(services, inside, "began", proven=False),
    )
    assert [stored_pair(services, conn)[1], *kept(services, conn)] == ["rotated"]


# All at once


class Rotating:
    """RD Station with rotating refresh tokens: only the newest token of an authorization is alive."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[str, int] = {}

    def give(self, grant: str) -> str:
        with self._lock:
            self._newest[grant] = self._newest.get(grant, 0) + 1
            return f"{grant}:{self._newest[grant]}"

    def exchange(self, refresh_token: str) -> str | None:
        """Return the next token, or None when this one is dead."""
        grant, _, number = refresh_token.partition(":")
        with self._lock:
            if self._newest[grant] != int(number):
                return None
            self._newest[grant] += 1
            return f"{grant}:{self._newest[grant]}"

    def lives(self, refresh_token: str) -> bool:
        grant, _, number = refresh_token.partition(":")
        return self._newest[grant] == int(number)


def test_no_used_token_is_stored_after_uploads_responses_and_false_refusals_at_random(
    services: Services, conn: Conn
) -> None:
    rdstation = Rotating()
    upload(services, rdstation.give("first"))
    ends_at = time.monotonic() + 2
    uploads = itertools.count()

    def refresh(chance: random.Random) -> None:
        conn.execute(
            "UPDATE rdstation_tokens SET refresh_after = rd_now(), retry_at = NULL, leased_until = NULL"
        )
        for lease in lease_due(services):
            token = services.keys.decrypt("refresh_token", "default", lease.refresh_token)
            following = None if chance.random() < 0.3 else rdstation.exchange(token)
            time.sleep(chance.random() * 0.01)
            with transaction(services.pool) as inside:
                if following is None:
                    leases.refuse(inside, lease, "revoked", doubtful=False)
                    time.sleep(chance.random() * 0.02)
                else:
                    put(services, inside, lease, following)

    def work(seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - no secret depends on it
        while time.monotonic() < ends_at:
            if chance.random() < 0.2:
                with transaction(services.pool) as inside:
                    authorize(services, inside, rdstation.give(f"upload-{next(uploads)}"), proven=False)
                    time.sleep(chance.random() * 0.02)
            else:
                refresh(chance)

    with ThreadPoolExecutor(4) as executor:
        for ended in [executor.submit(work, seed) for seed in range(4)]:
            ended.result()
    tokens = [stored_pair(services, conn)[1], *kept(services, conn)]
    assert [token for token in tokens if not rdstation.lives(token)] == []
