"""A pair that an upload replaced: it and the uploaded one change places until one works. Used tokens are known."""

from typing import Any

import psycopg

from rdservice.database.pool import transaction
from rdservice.services import Services
from rdservice.tokens import store
from tests.support.accounts import connect_account, lease_due, lease_one, row, stored_pair
from tests.support.pairs import authorize, kept, put, refuse, upload

Conn = psycopg.Connection[Any]


def test_a_refused_upload_and_the_kept_pair_change_places_until_one_works(
    services: Services, conn: Conn
) -> None:
    connect_account(services)
    upload(services, "uploaded")
    assert refuse(services, lease_one(services)) is not None
    assert [stored_pair(services, conn)[1], *kept(services, conn)] == ["refresh-of-default", "uploaded"]
    refusal = refuse(services, lease_one(services))
    assert refusal is not None
    assert refusal.final
    assert [stored_pair(services, conn)[1], *kept(services, conn)] == ["uploaded", "refresh-of-default"]
    assert row(conn)["status"] == "reauthorization_required"


def test_the_pair_that_works_ends_the_other(services: Services, conn: Conn) -> None:
    connect_account(services)
    upload(services, "uploaded")
    refuse(services, lease_one(services))
    lease = lease_one(services)
    with transaction(services.pool) as inside:
        put(services, inside, lease, "rotated")
    assert stored_pair(services, conn)[1] == "rotated"
    assert kept(services, conn) == []


def test_a_refused_pair_that_an_upload_replaces_is_kept_until_the_upload_works(
    services: Services, conn: Conn
) -> None:
    connect_account(services)
    refuse(services, lease_one(services))
    upload(services, "uploaded")
    assert [stored_pair(services, conn)[1], *kept(services, conn)] == ["uploaded", "refresh-of-default"]
    refusal = refuse(services, lease_one(services))
    assert refusal is not None
    assert refusal.final, "RD Station has refused both"


def test_a_pair_comes_back_with_the_reason_of_its_own_refusal(services: Services, conn: Conn) -> None:
    connect_account(services)
    refuse(services, lease_one(services))
    conn.execute("UPDATE rdstation_tokens SET last_error = 'answer_lost'")
    upload(services, "uploaded")
    refuse(services, lease_one(services))
    found = row(conn)
    assert (found["status"], found["last_error"]) == ("reauthorization_required", "answer_lost")
    assert conn.execute("SELECT refusal FROM rdstation_replaced_tokens").fetchone() == ("revoked",)


# Used tokens


def test_the_token_with_which_an_authorization_began_is_not_stored_again(
    services: Services, conn: Conn
) -> None:
    upload(services, "began")
    lease = lease_one(services)
    with transaction(services.pool) as inside:
        put(services, inside, lease, "rotated")
    before = row(conn)
    upload(services, "began")
    after = row(conn)
    assert {**after, "now": None} == {**before, "now": None}
    with transaction(services.pool) as inside:
        assert store.holds_pair(inside, services.keys, "default", "access-with-began", "began")
        assert not store.holds_pair(inside, services.keys, "default", "access-with-began", "other")
    assert lease_due(services) == []


def test_a_used_token_of_the_kept_pair_is_not_stored_again(services: Services, conn: Conn) -> None:
    upload(services, "began")
    lease = lease_one(services)
    with transaction(services.pool) as inside:
        put(services, inside, lease, "rotated")
    upload(services, "uploaded")
    upload(services, "began")
    assert [stored_pair(services, conn)[1], *kept(services, conn)] == ["uploaded", "rotated"]


def test_a_callback_with_the_token_of_an_earlier_authorization_is_stored(
    services: Services, conn: Conn
) -> None:
    """RD Station itself gave it out just now."""
    upload(services, "began")
    lease = lease_one(services)
    with transaction(services.pool) as inside:
        put(services, inside, lease, "rotated")
        authorize(services, inside, "began", proven=True)
    assert stored_pair(services, conn)[1] == "began"
