"""Who may exchange a token, and whose answer counts."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet

from rdservice import database, rdstation, refresh
from rdservice.services import Services
from rdservice.settings import Settings
from rdservice.tokens import claim_sql, claims, store
from rdservice.tokens.claims import Claim
from tests.accounts import attempts_of, claim_due, claim_one, connect_account, row, stored_pair
from tests.conftest import Clock

Conn = psycopg.Connection[Any]


def store_answer(
    services: Services, claim: Claim, access_token: str = "newer", refresh_token: str | None = "newer-refresh"
) -> bool:
    with database.transaction(services.pool) as conn:
        return claims.store(
            conn,
            claim,
            services.keys,
            access_token=access_token,
            refresh_token=refresh_token,
            expires_at=claim.claimed_at + timedelta(days=1),
        )


def refuse(services: Services, claim: Claim, *, doubtful: bool = False) -> claims.Refusal | None:
    with database.transaction(services.pool) as conn:
        return claims.refuse(conn, claim, "revoked", doubtful=doubtful)


def test_a_claimed_account_is_not_claimed_again_during_its_lease(services: Services) -> None:
    connect_account(services)
    assert len(claim_due(services)) == 1
    assert claim_due(services) == []


def test_a_claim_is_free_again_after_its_lease(services: Services, clock: Clock) -> None:
    connect_account(services)
    first = claim_one(services)
    clock.advance(claims.LEASE_S + 1)
    again = claim_one(services)
    assert again.claim_no > first.claim_no
    assert again.holder != first.holder


def test_a_claim_takes_no_more_than_the_free_slots_and_those_due_longest_first(
    services: Services, conn: Conn
) -> None:
    for number in range(5):
        connect_account(services, account_id=f"account-{number}")
        conn.execute(
            "UPDATE rdstation_tokens SET refresh_after = rd_now() - make_interval(mins => %s) WHERE account_id = %s",
            [number, f"account-{number}"],
        )
    assert [claim.account_id for claim in claim_due(services, slots=2)] == ["account-4", "account-3"]
    assert [claim.account_id for claim in claim_due(services)] == ["account-2", "account-1", "account-0"]


def test_when_renewals_are_behind_the_nearest_to_expiry_is_claimed_first(
    services: Services, conn: Conn
) -> None:
    left_h = {"half-a-day": 12, "seven": 7, "one": 1, "lapsed": -1, "two": 2}
    for account_id, hours in left_h.items():
        connect_account(services, account_id=account_id)
        conn.execute(
            "UPDATE rdstation_tokens SET expires_at = rd_now() + make_interval(hours => %s),"
            " refresh_after = rd_now() - make_interval(mins => %s) WHERE account_id = %s",
            [hours, 30 + hours, account_id],
        )
    claimed = [claim.account_id for _ in left_h for claim in claim_due(services, slots=1)]
    assert claimed == ["one", "two", "seven", "lapsed", "half-a-day"]


def test_one_claim_takes_what_is_behind_and_fills_its_slots_with_what_is_not(
    services: Services, conn: Conn
) -> None:
    for number, hours in enumerate([12, 12, 1, 2, 12]):
        connect_account(services, account_id=f"account-{number}")
        conn.execute(
            "UPDATE rdstation_tokens SET expires_at = rd_now() + make_interval(hours => %s),"
            " refresh_after = rd_now() - make_interval(mins => %s) WHERE account_id = %s",
            [hours, number, f"account-{number}"],
        )
    assert {claim.account_id for claim in claim_due(services, slots=4)} == {
        "account-2",
        "account-3",
        "account-4",
        "account-1",
    }
    assert [claim.account_id for claim in claim_due(services)] == ["account-0"]


def test_what_is_behind_but_backs_off_holds_nobody_up(services: Services, conn: Conn) -> None:
    for account_id, retry in (("backs-off", "1 hour"), ("due", "-1 hour")):
        connect_account(services, account_id=account_id)
        conn.execute(
            "UPDATE rdstation_tokens SET expires_at = rd_now() + interval '1 minute',"
            " retry_at = rd_now() + %s::interval WHERE account_id = %s",
            [retry, account_id],
        )
    assert [claim.account_id for claim in claim_due(services)] == ["due"]


def test_claims_at_the_same_moment_never_share_an_account(services: Services) -> None:
    names = {f"account-{number}" for number in range(40)}
    for name in names:
        connect_account(services, account_id=name)
    claimed: list[str] = []
    together = threading.Barrier(5)

    def take() -> None:
        together.wait()
        for _ in range(10):
            claimed.extend(claim.account_id for claim in claim_due(services, slots=3))

    threads = [threading.Thread(target=take) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(names)


def test_a_claim_does_not_wait_for_a_locked_row(services: Services, conn: Conn) -> None:
    connect_account(services)
    with conn.transaction():
        conn.execute("SELECT 1 FROM rdstation_tokens FOR UPDATE")
        assert claim_due(services) == []


def test_the_attempt_is_on_record_before_anything_is_sent(services: Services, conn: Conn) -> None:
    connect_account(services)
    claim_one(services)
    assert attempts_of(conn) == [(None, None)]


def test_an_expired_token_is_due_whatever_its_renewal_time(services: Services, conn: Conn) -> None:
    connect_account(services, due=False)
    assert claim_due(services) == []
    conn.execute("UPDATE rdstation_tokens SET expires_at = rd_now()")
    claim_one(services)


def test_a_back_off_binds_the_worker_callers_and_operators(services: Services, conn: Conn) -> None:
    connect_account(services)
    seen = services.memory.read("default")
    assert seen is not None
    conn.execute("UPDATE rdstation_tokens SET retry_at = rd_now() + interval '1 minute'")
    assert claim_due(services) == []
    for reason in claims.PICKS:
        with database.transaction(services.pool) as c:
            claimed = claims.claim_seen(
                c,
                "default",
                authorization_id=seen.authorization_id,
                stored_claim=seen.stored_claim,
                started=services.refresher.monotonic(),
                fingerprint=services.refresher.fingerprint,
                claimed_by="test",
                reason=reason,
            )
        assert claimed is None


def test_a_caller_cannot_claim_what_was_renewed_since_it_looked(services: Services) -> None:
    connect_account(services)
    seen = services.memory.read("default")
    assert seen is not None
    assert store_answer(services, claim_one(services))
    with database.transaction(services.pool) as conn:
        claimed = claims.claim_seen(
            conn,
            "default",
            authorization_id=seen.authorization_id,
            stored_claim=seen.stored_claim,
            started=services.refresher.monotonic(),
            fingerprint=services.refresher.fingerprint,
            claimed_by="test",
            reason="early",
        )
    assert claimed is None


def test_a_stored_answer_is_renewed_at_60_to_65_percent_of_its_life(services: Services, conn: Conn) -> None:
    for _ in range(20):
        connect_account(services)
        claim = claim_one(services)
        assert store_answer(services, claim)
        found = row(conn)
        share = (found["refresh_after"] - claim.claimed_at) / timedelta(days=1)
        assert 0.60 <= share <= 0.65


def test_an_answer_without_refresh_token_keeps_the_old_one(services: Services, conn: Conn) -> None:
    pair = connect_account(services)
    assert store_answer(services, claim_one(services), refresh_token=None)
    assert stored_pair(services, conn) == ("newer", pair["refresh_token"])


def test_an_answer_is_stored_after_its_lease_when_nothing_newer_is_there(
    services: Services, conn: Conn, clock: Clock
) -> None:
    connect_account(services)
    claim = claim_one(services)
    clock.advance(3600)
    assert store_answer(services, claim)
    assert stored_pair(services, conn)[0] == "newer"


def test_an_answer_is_stored_while_another_holds_the_lease_and_does_not_end_it(
    services: Services, conn: Conn, clock: Clock
) -> None:
    connect_account(services)
    late = claim_one(services)
    clock.advance(claims.LEASE_S + 1)
    current = claim_one(services)
    assert store_answer(services, late, "of-the-late-one")
    assert row(conn)["holder"] == current.holder
    assert store_answer(services, current, "of-the-current-one")
    assert stored_pair(services, conn)[0] == "of-the-current-one"


def test_an_older_answer_never_replaces_a_newer_one(services: Services, conn: Conn, clock: Clock) -> None:
    connect_account(services)
    late = claim_one(services)
    clock.advance(claims.LEASE_S + 1)
    assert store_answer(services, claim_one(services), "newest")
    assert not store_answer(services, late, "old")
    assert stored_pair(services, conn)[0] == "newest"


def test_what_needs_a_key_that_is_not_there_is_left_to_a_process_that_has_it(
    services: Services,
    variables: dict[str, str],
    make_services: Callable[[Settings], Services],
    conn: Conn,
) -> None:
    stranger = make_services(
        Settings.from_mapping(variables | {"TOKEN_ENCRYPTION_KEYS": Fernet.generate_key().decode()})
    )
    connect_account(services, account_id="ours")
    assert claims.left_to_others(conn, services.keys) is None
    connect_account(stranger, account_id="theirs")

    left = claims.left_to_others(conn, services.keys)
    assert left is not None
    assert (left.account_id, left.nothing_opens) == ("theirs", False)
    assert [claim.account_id for claim in claim_due(services)] == ["ours"]
    assert [claim.account_id for claim in claim_due(stranger)] == ["theirs"]
    conn.execute("DELETE FROM rdstation_tokens WHERE account_id = 'ours'")
    conn.execute("UPDATE rdstation_tokens SET leased_until = NULL")
    left = claims.left_to_others(conn, services.keys)
    assert left is not None
    assert left.nothing_opens


def test_an_answer_counts_although_the_sequence_was_restored_lower_than_an_answer_that_came_late(
    services: Services, conn: Conn, clock: Clock
) -> None:
    """A process that lived through the restore had a claim that the backup does not know, and stored its answer."""
    connect_account(services)
    conn.execute("SELECT setval('rdstation_claims', 1000)")
    assert store_answer(services, claim_one(services), "late")
    conn.execute("DELETE FROM rdstation_refresh_attempts")
    conn.execute("SELECT setval('rdstation_claims', 990)")

    conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now()")
    first = claim_one(services)
    clock.advance(claims.LEASE_S + 1)
    second = claim_one(services)
    assert first.stored_claim < first.claim_no < second.claim_no
    assert store_answer(services, first, "newer")
    assert store_answer(services, second, "newest")
    assert stored_pair(services, conn)[0] == "newest"


def test_claims_go_on_when_the_sequence_was_not_restored_with_the_attempts(
    services: Services, conn: Conn
) -> None:
    for account_id in ("a", "b", "c"):
        connect_account(services, account_id=account_id)
    known = max(claim.claim_no for claim in claim_due(services))
    conn.execute("SELECT setval('rdstation_claims', 1, false)")

    for account_id in ("d", "e"):
        connect_account(services, account_id=account_id)
    assert [claim.claim_no for claim in claim_due(services)] == [known + 1, known + 2]


def test_the_same_answer_again_after_an_unsure_commit_changes_nothing(services: Services, conn: Conn) -> None:
    connect_account(services)
    claim = claim_one(services)
    assert store_answer(services, claim)
    assert store_answer(services, claim)
    assert stored_pair(services, conn)[0] == "newer"


def test_an_answer_does_not_replace_a_newer_authorization(services: Services, conn: Conn) -> None:
    connect_account(services)
    claim = claim_one(services)
    connect_account(services, due=False)
    before = stored_pair(services, conn)
    assert not store_answer(services, claim)
    assert stored_pair(services, conn) == before


def test_an_answer_does_not_bring_a_deleted_row_back(services: Services, conn: Conn) -> None:
    connect_account(services)
    claim = claim_one(services)
    conn.execute("DELETE FROM rdstation_tokens WHERE account_id = 'default'")
    assert not store_answer(services, claim)
    assert services.memory.read("default") is None


def test_an_answer_from_before_a_delete_does_not_touch_the_new_connection(
    services: Services, conn: Conn
) -> None:
    connect_account(services)
    claim = claim_one(services)
    conn.execute("DELETE FROM rdstation_tokens WHERE account_id = 'default'")
    connect_account(services, due=False)
    before = stored_pair(services, conn)
    assert not store_answer(services, claim)
    assert refuse(services, claim) is None
    assert stored_pair(services, conn) == before
    assert row(conn)["status"] == "connected"


def test_a_release_leaves_another_holders_claim_alone(services: Services, conn: Conn, clock: Clock) -> None:
    connect_account(services)
    late = claim_one(services)
    clock.advance(claims.LEASE_S + 1)
    current = claim_one(services)
    with database.transaction(services.pool) as c:
        claims.release(c, late)
    assert row(conn)["holder"] == current.holder


def test_one_refusal_is_final_when_every_earlier_outcome_is_known(services: Services, conn: Conn) -> None:
    connect_account(services)
    refusal = refuse(services, claim_one(services))
    assert refusal is not None
    assert refusal.final
    assert (row(conn)["status"], row(conn)["last_error"]) == ("reauthorization_required", "revoked")
    assert claim_due(services) == []


def test_a_refusal_after_an_unknown_outcome_takes_three_over_ten_minutes_and_says_answer_lost(
    services: Services, conn: Conn, clock: Clock
) -> None:
    connect_account(services)
    claim_one(services)  # Its process dies: nobody knows whether the refresh token was used up.
    finals = []
    for _ in range(3):
        clock.advance(301)
        refusal = refuse(services, claim_one(services))
        assert refusal is not None
        finals.append(refusal.final)
    assert finals == [False, False, True]
    assert row(conn)["last_error"] == "answer_lost"


def test_three_refusals_within_ten_minutes_are_not_enough_after_an_unknown_outcome(
    services: Services, conn: Conn, clock: Clock
) -> None:
    connect_account(services)
    claim_one(services)
    clock.advance(claims.LEASE_S + 1)
    for _ in range(3):
        conn.execute("UPDATE rdstation_tokens SET retry_at = NULL")
        refusal = refuse(services, claim_one(services))
        assert refusal is not None
        assert not refusal.final
        clock.advance(100)


def test_a_lost_answer_that_arrives_after_all_lifts_the_refusal(
    services: Services, conn: Conn, clock: Clock
) -> None:
    connect_account(services)
    lost = claim_one(services)
    for _ in range(3):
        clock.advance(301)
        refuse(services, claim_one(services))
    assert row(conn)["status"] == "reauthorization_required"
    assert store_answer(services, lost)
    assert (row(conn)["status"], row(conn)["last_error"]) == ("connected", None)


def test_a_refusal_means_nothing_once_an_earlier_answer_was_stored(
    services: Services, conn: Conn, clock: Clock
) -> None:
    connect_account(services)
    late = claim_one(services)
    clock.advance(claims.LEASE_S + 1)
    current = claim_one(services)
    assert store_answer(services, late)  # In rotating mode this is what the refusal is about.
    assert refuse(services, current) is None
    found = row(conn)
    assert (found["status"], found["holder"]) == ("connected", None)


@pytest.mark.parametrize("failures", [0, 1, 5, 40])
def test_a_back_off_is_at_most_ten_minutes_and_five_percent_of_the_life(
    services: Services, conn: Conn, failures: int
) -> None:
    for lifetime_s, longest_s in ((86_400, min(30 * 2**failures, 600)), (600, 30), (20, 1)):
        connect_account(services, lifetime_s=lifetime_s)
        conn.execute("UPDATE rdstation_tokens SET failures = %s", [failures])
        claim = claim_one(services)
        with database.transaction(services.pool) as c:
            assert claims.back_off(c, claim, "server_error")
        found = row(conn)
        assert found["failures"] == failures + 1
        assert 0 <= (found["retry_at"] - claim.claimed_at).total_seconds() <= longest_s + 1
        conn.execute("DELETE FROM rdstation_tokens")


@pytest.mark.parametrize(
    ("wait_s", "life_left_s", "waits_s"),
    [(7, 86_400, 7), (3600, 86_400, 600), (600, 1200, 300), (600, 0, 30), (600, -3600, 30)],
)
def test_a_demanded_wait_is_at_most_ten_minutes_or_a_quarter_of_the_life_left(
    services: Services, conn: Conn, wait_s: float, life_left_s: float, waits_s: float
) -> None:
    connect_account(services)
    conn.execute(
        "UPDATE rdstation_tokens SET expires_at = rd_now() + make_interval(secs => %(left)s),"
        " issued_at = rd_now() + make_interval(secs => %(left)s) - interval '1 day'",
        {"left": life_left_s},
    )
    claim = claim_one(services)
    with database.transaction(services.pool) as c:
        assert claims.slow_down(c, claim, "rate_limited", wait_s=wait_s)
    waited = (row(conn)["retry_at"] - claim.claimed_at).total_seconds()
    assert waited == pytest.approx(waits_s, abs=2)


def test_nobody_waits_longer_than_until_the_next_renewal(services: Services, conn: Conn) -> None:
    with database.transaction(services.pool) as c:
        assert claims.seconds_until_due(c) is None
    connect_account(services, due=False)
    conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now() + interval '90 seconds'")
    with database.transaction(services.pool) as c:
        until = claims.seconds_until_due(c)
    assert until is not None
    assert 80 < until <= 90


def test_a_claim_over_many_rows_reads_only_what_is_due(services: Services, conn: Conn) -> None:
    connect_account(services, account_id="due")
    conn.execute(
        "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, expires_at, refresh_after)"
        " SELECT 'other-' || n, '', '', rd_now() + interval '1 day', rd_now() + interval '1 hour'"
        " FROM generate_series(1, 20000) n"
    )
    conn.execute("ANALYZE rdstation_tokens")
    explain = f"EXPLAIN (ANALYZE, BUFFERS) {claim_sql.PICK_DUE}".encode()
    values = {"slots": 32, "behind_s": claims.BEHIND_S, **claims._known(services.keys)}
    plan = "\n".join(line for (line,) in conn.execute(explain, values))
    assert "rdstation_tokens_due" in plan
    assert "rdstation_tokens_expiry" in plan
    assert "rd_now" not in plan, "the clock was not inlined"
    assert "Seq Scan" not in plan


def test_no_secret_stands_in_the_repr_of_a_claim(services: Services) -> None:
    connect_account(services)
    claim = claim_one(services)
    assert claim.refresh_token not in repr(claim)
    token = services.memory.read("default")
    assert token is not None
    assert token.access_token not in repr(token)


def test_the_lease_outlasts_an_exchange_and_the_writing_of_its_answer() -> None:
    assert claims.LEASE_S > rdstation.EXCHANGE_DEADLINE_S + refresh.COMMIT_ALLOWANCE_S


def upload(services: Services, refresh_token: str = "uploaded") -> None:
    """Put an unproven pair over what is stored, which is kept until it has worked."""
    with database.transaction(services.pool) as conn:
        store.authorize(
            conn,
            services.keys,
            "default",
            access_token="uploaded-access",
            refresh_token=refresh_token,
            expires_in_s=86_400,
            verified=True,
            proven=False,
        )


def test_an_answer_that_comes_after_an_upload_is_there_when_the_upload_is_refused(
    services: Services, conn: Conn
) -> None:
    connect_account(services)
    under_way = claim_one(services)
    upload(services)
    assert not store_answer(services, under_way, "of-the-answer", "rotated")
    assert stored_pair(services, conn)[1] == "uploaded", "the newer authorization stays"
    refusal = refuse(services, claim_one(services))
    assert refusal is not None
    assert refusal.brought_back
    assert stored_pair(services, conn) == ("of-the-answer", "rotated")
    assert row(conn)["stored_claim"] == under_way.claim_no


def test_an_older_answer_does_not_replace_a_newer_one_that_an_upload_has_put_aside(
    services: Services, conn: Conn, clock: Clock
) -> None:
    connect_account(services)
    stopped = claim_one(services)
    clock.advance(claims.LEASE_S + 1)
    assert store_answer(services, claim_one(services), "newer", "newer-refresh")
    upload(services)
    assert not store_answer(services, stopped, "older", "older-refresh")
    refuse(services, claim_one(services))
    assert stored_pair(services, conn) == ("newer", "newer-refresh")


def test_a_pair_that_comes_back_while_it_is_being_exchanged_is_left_to_that_exchange(
    services: Services, conn: Conn, clock: Clock
) -> None:
    connect_account(services)
    under_way = claim_one(services)
    upload(services)
    refusal = refuse(services, claim_one(services))
    assert refusal is not None
    assert refusal.brought_back
    assert claim_due(services) == []
    clock.advance(claims.LEASE_S + 1)
    assert len(claim_due(services)) == 1, "its process may have died"
    assert store_answer(services, under_way, "of-the-answer", "rotated")
    assert stored_pair(services, conn) == ("of-the-answer", "rotated")
