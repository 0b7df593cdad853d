"""Who may exchange a token, and whose answer counts."""

import re
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet

from rdservice.config.settings import Settings
from rdservice.database.pool import transaction
from rdservice.rdstation import client
from rdservice.services import Services
from rdservice.tokens import lease_sql, leases, refresh, store
from rdservice.tokens.leases import Lease
from tests.conftest import Clock
from tests.support.accounts import attempts_of, connect_account, lease_due, lease_one, row, stored_pair

Conn = psycopg.Connection[Any]


def store_answer(
    services: Services, lease: Lease, access_token: str = "newer", refresh_token: str | None = "newer-refresh"
) -> bool:
    with transaction(services.pool) as conn:
        return leases.store(
            conn,
            lease,
            services.keys,
            access_token=access_token,
            refresh_token=refresh_token,
            expires_at=lease.claimed_at + timedelta(days=1),
        )


def refuse(services: Services, lease: Lease, *, doubtful: bool = False) -> leases.Refusal | None:
    with transaction(services.pool) as conn:
        return leases.refuse(conn, lease, "revoked", doubtful=doubtful)


def test_a_claimed_account_is_not_claimed_again_during_its_lease(services: Services) -> None:
    connect_account(services)
    assert len(lease_due(services)) == 1
    assert lease_due(services) == []


def test_a_claim_is_free_again_after_its_lease(services: Services, clock: Clock) -> None:
    connect_account(services)
    first = lease_one(services)
    clock.advance(leases.LEASE_S + 1)
    again = lease_one(services)
    assert again.fence > first.fence
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
    assert [lease.account_id for lease in lease_due(services, slots=2)] == ["account-4", "account-3"]
    assert [lease.account_id for lease in lease_due(services)] == ["account-2", "account-1", "account-0"]


def expire_in(conn: Conn, account_id: str, hours: float) -> None:
    """Let the token live for `hours` more; the nearer to its expiry, the later it has become due."""
    conn.execute(
        "UPDATE rdstation_tokens SET expires_at = rd_now() + make_interval(mins => %s),"
        " refresh_after = rd_now() - make_interval(mins => %s) WHERE account_id = %s",
        [round(60 * hours), 120 + round(hours), account_id],
    )


def test_after_a_full_pick_the_nearest_to_expiry_come_first_and_what_has_lapsed_comes_last(
    services: Services, conn: Conn
) -> None:
    left_h = {"half-a-day": 12, "an-hour-and-a-half": 1.5, "seven": 7, "lapsed": -1, "one": 1}
    for account_id, hours in left_h.items():
        connect_account(services, account_id=account_id)
        expire_in(conn, account_id, hours)
    (first,) = lease_due(services, slots=1)
    assert first.account_id == "half-a-day", "due longest"
    claimed = [lease.account_id for _ in range(4) for lease in lease_due(services, slots=1, backlog=True)]
    assert claimed == ["one", "an-hour-and-a-half", "seven", "lapsed"]


def test_what_the_nearest_leave_free_goes_to_what_is_due_longest(services: Services, conn: Conn) -> None:
    for account_id, hours in {"live": 12, "lapsed": -1, "lapsed-before": -50, "near": 1}.items():
        connect_account(services, account_id=account_id)
        expire_in(conn, account_id, hours)
    conn.execute(
        "UPDATE rdstation_tokens SET refresh_after = rd_now() + interval '1 h' WHERE account_id = 'live'"
    )
    assert [lease.account_id for lease in lease_due(services, slots=2, backlog=True)] == [
        "near",
        "lapsed-before",
    ]
    assert [lease.account_id for lease in lease_due(services, slots=2, backlog=True)] == ["lapsed"]


def test_a_thousand_that_are_nearer_to_expiry_and_back_off_hold_nobody_up(
    services: Services, conn: Conn
) -> None:
    connect_account(services, account_id="due")
    conn.execute(
        "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, expires_at, refresh_after, retry_at)"
        " SELECT 'backs-off-' || n, '', '', rd_now() + interval '1 h', rd_now(), rd_now() + interval '1 min'"
        " FROM generate_series(1, 1000) n"
    )
    assert [lease.account_id for lease in lease_due(services, backlog=True)] == ["due"]


@pytest.mark.parametrize("backlog", [False, True])
def test_claims_at_the_same_moment_never_share_an_account(services: Services, backlog: bool) -> None:
    names = {f"account-{number}" for number in range(40)}
    for name in names:
        connect_account(services, account_id=name)
    claimed: list[str] = []
    together = threading.Barrier(5)

    def take() -> None:
        together.wait()
        for _ in range(10):
            claimed.extend(lease.account_id for lease in lease_due(services, slots=3, backlog=backlog))

    threads = [threading.Thread(target=take) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(names)


def test_what_another_worker_leased_since_the_nearest_were_read_is_not_leased_again(
    services: Services, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        connect_account(services, account_id=f"account-{number}")
    # The statement has its snapshot, and waits before it reads.
    held_up = lease_sql.PICK_NEAREST.replace(
        "LIMIT 1000", "LIMIT (SELECT 1000 FROM pg_advisory_xact_lock(1))"
    )
    monkeypatch.setattr(lease_sql, "PICK_NEAREST", held_up)
    late: list[Lease] = []
    worker = threading.Thread(target=lambda: late.extend(lease_due(services, backlog=True)))
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 AND NOT granted"
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(1)")
        worker.start()
        while conn.execute(waiting).fetchone() != (1,):
            assert worker.is_alive()
        early = lease_due(services)
    worker.join(20)
    assert len(early) == 4
    assert late == []


def test_a_claim_does_not_wait_for_a_locked_row(services: Services, conn: Conn) -> None:
    connect_account(services)
    with conn.transaction():
        conn.execute("SELECT 1 FROM rdstation_tokens FOR UPDATE")
        assert lease_due(services) == []


def test_the_attempt_is_on_record_before_anything_is_sent(services: Services, conn: Conn) -> None:
    connect_account(services)
    lease_one(services)
    assert attempts_of(conn) == [(None, None)]


def test_an_expired_token_is_due_whatever_its_renewal_time(services: Services, conn: Conn) -> None:
    connect_account(services, due=False)
    assert lease_due(services) == []
    conn.execute("UPDATE rdstation_tokens SET expires_at = rd_now()")
    lease_one(services)


def test_a_back_off_binds_the_worker_callers_and_operators(services: Services, conn: Conn) -> None:
    connect_account(services)
    seen = services.memory.read("default")
    assert seen is not None
    conn.execute("UPDATE rdstation_tokens SET retry_at = rd_now() + interval '1 minute'")
    assert lease_due(services) == []
    for reason in leases.PICKS:
        with transaction(services.pool) as c:
            claimed = leases.lease_seen(
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
    assert store_answer(services, lease_one(services))
    with transaction(services.pool) as conn:
        claimed = leases.lease_seen(
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
        lease = lease_one(services)
        assert store_answer(services, lease)
        found = row(conn)
        share = (found["refresh_after"] - lease.claimed_at) / timedelta(days=1)
        assert 0.60 <= share <= 0.65


def test_an_answer_without_refresh_token_keeps_the_old_one(services: Services, conn: Conn) -> None:
    pair = connect_account(services)
    assert store_answer(services, lease_one(services), refresh_token=None)
    assert stored_pair(services, conn) == ("newer", pair["refresh_token"])


def test_an_answer_is_stored_after_its_lease_when_nothing_newer_is_there(
    services: Services, conn: Conn, clock: Clock
) -> None:
    connect_account(services)
    lease = lease_one(services)
    clock.advance(3600)
    assert store_answer(services, lease)
    assert stored_pair(services, conn)[0] == "newer"


def test_an_answer_is_stored_while_another_holds_the_lease_and_does_not_end_it(
    services: Services, conn: Conn, clock: Clock
) -> None:
    connect_account(services)
    late = lease_one(services)
    clock.advance(leases.LEASE_S + 1)
    current = lease_one(services)
    assert store_answer(services, late, "of-the-late-one")
    assert row(conn)["holder"] == current.holder
    assert store_answer(services, current, "of-the-current-one")
    assert stored_pair(services, conn)[0] == "of-the-current-one"


def test_an_older_answer_never_replaces_a_newer_one(services: Services, conn: Conn, clock: Clock) -> None:
    connect_account(services)
    late = lease_one(services)
    clock.advance(leases.LEASE_S + 1)
    assert store_answer(services, lease_one(services), "newest")
    assert not store_answer(services, late, "old")
    assert stored_pair(services, conn)[0] == "newest"


def postpone(services: Services) -> None:
    """Claim the one account that is due, and put it off for other workers."""
    lease = lease_one(services)
    with transaction(services.pool) as conn:
        leases.postpone(conn, lease)


@pytest.mark.parametrize("backlog", [False, True])
def test_what_a_worker_could_not_open_is_claimed_by_no_worker_for_five_minutes(
    services: Services, conn: Conn, clock: Clock, backlog: bool
) -> None:
    connect_account(services)
    postpone(services)
    assert lease_due(services, backlog=backlog) == []
    with transaction(services.pool) as c:
        until_s = leases.seconds_until_due(c)
    assert until_s == pytest.approx(300, abs=20)
    clock.advance(290)
    assert lease_due(services, backlog=backlog) == []
    clock.advance(11)
    assert len(lease_due(services, backlog=backlog)) == 1


@pytest.mark.parametrize("reason", ["early", "operator", "rejected"])
def test_what_a_worker_could_not_open_is_claimed_by_callers_all_the_same(
    services: Services, conn: Conn, reason: leases.SeenReason
) -> None:
    connect_account(services)
    postpone(services)
    seen = services.memory.read("default")
    assert seen is not None
    assert (seen.leased, seen.retry_in_s) == (False, 0)
    with transaction(services.pool) as c:
        lease = leases.lease_seen(
            c,
            "default",
            authorization_id=seen.authorization_id,
            stored_claim=seen.stored_claim,
            started=services.refresher.monotonic(),
            fingerprint=services.refresher.fingerprint,
            claimed_by="test",
            reason=reason,
        )
    assert lease is not None
    assert store_answer(services, lease)
    assert row(conn)["undecryptable_until"] is None


def test_a_new_authorization_is_not_put_off_with_the_one_before(services: Services) -> None:
    connect_account(services)
    postpone(services)
    connect_account(services)
    assert len(lease_due(services)) == 1


def test_an_account_that_is_put_off_again_and_again_is_overdue_all_the_same(
    services: Services, conn: Conn
) -> None:
    connect_account(services)
    due_at = row(conn)["due_at"]
    postpone(services)
    assert row(conn)["due_at"] == due_at


def test_a_worker_is_told_whether_it_can_open_any_account_at_all(
    services: Services, variables: dict[str, str], make_services: Callable[[Settings], Services], conn: Conn
) -> None:
    stranger = make_services(
        Settings.from_mapping(variables | {"TOKEN_ENCRYPTION_KEYS": Fernet.generate_key().decode()})
    )
    connect_account(services, account_id="ours")
    assert leases.can_decrypt_any(conn, services.keys)
    assert not leases.can_decrypt_any(conn, stranger.keys)
    connect_account(stranger, account_id="theirs")
    assert leases.can_decrypt_any(conn, stranger.keys)


def test_an_answer_counts_although_the_sequence_was_restored_lower_than_an_answer_that_came_late(
    services: Services, conn: Conn, clock: Clock
) -> None:
    """A process that lived through the restore had a claim that the backup does not know, and stored its answer."""
    connect_account(services)
    conn.execute("SELECT setval('rdstation_claims', 1000)")
    assert store_answer(services, lease_one(services), "late")
    conn.execute("DELETE FROM rdstation_refresh_attempts")
    conn.execute("SELECT setval('rdstation_claims', 990)")

    conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now()")
    first = lease_one(services)
    clock.advance(leases.LEASE_S + 1)
    second = lease_one(services)
    assert first.stored_claim < first.fence < second.fence
    assert store_answer(services, first, "newer")
    assert store_answer(services, second, "newest")
    assert stored_pair(services, conn)[0] == "newest"


def test_claims_go_on_when_the_sequence_was_not_restored_with_the_attempts(
    services: Services, conn: Conn
) -> None:
    for account_id in ("a", "b", "c"):
        connect_account(services, account_id=account_id)
    known = max(lease.fence for lease in lease_due(services))
    conn.execute("SELECT setval('rdstation_claims', 1, false)")

    for account_id in ("d", "e"):
        connect_account(services, account_id=account_id)
    assert [lease.fence for lease in lease_due(services)] == [known + 1, known + 2]


def test_the_same_answer_again_after_an_unsure_commit_changes_nothing(services: Services, conn: Conn) -> None:
    connect_account(services)
    lease = lease_one(services)
    assert store_answer(services, lease)
    assert store_answer(services, lease)
    assert stored_pair(services, conn)[0] == "newer"


def test_an_answer_does_not_replace_a_newer_authorization(services: Services, conn: Conn) -> None:
    connect_account(services)
    lease = lease_one(services)
    connect_account(services, due=False)
    before = stored_pair(services, conn)
    assert not store_answer(services, lease)
    assert stored_pair(services, conn) == before


def test_an_answer_does_not_bring_a_deleted_row_back(services: Services, conn: Conn) -> None:
    connect_account(services)
    lease = lease_one(services)
    conn.execute("DELETE FROM rdstation_tokens WHERE account_id = 'default'")
    assert not store_answer(services, lease)
    assert services.memory.read("default") is None


def test_an_answer_from_before_a_delete_does_not_touch_the_new_connection(
    services: Services, conn: Conn
) -> None:
    connect_account(services)
    lease = lease_one(services)
    conn.execute("DELETE FROM rdstation_tokens WHERE account_id = 'default'")
    connect_account(services, due=False)
    before = stored_pair(services, conn)
    assert not store_answer(services, lease)
    assert refuse(services, lease) is None
    assert stored_pair(services, conn) == before
    assert row(conn)["status"] == "connected"


def test_a_release_leaves_another_holders_claim_alone(services: Services, conn: Conn, clock: Clock) -> None:
    connect_account(services)
    late = lease_one(services)
    clock.advance(leases.LEASE_S + 1)
    current = lease_one(services)
    with transaction(services.pool) as c:
        leases.release(c, late)
    assert row(conn)["holder"] == current.holder


def test_one_refusal_is_final_when_every_earlier_outcome_is_known(services: Services, conn: Conn) -> None:
    connect_account(services)
    refusal = refuse(services, lease_one(services))
    assert refusal is not None
    assert refusal.final
    assert (row(conn)["status"], row(conn)["last_error"]) == ("reauthorization_required", "revoked")
    assert lease_due(services) == []


def test_a_refusal_after_an_unknown_outcome_takes_three_over_ten_minutes_and_says_answer_lost(
    services: Services, conn: Conn, clock: Clock
) -> None:
    connect_account(services)
    lease_one(services)  # Its process dies: nobody knows whether the refresh token was used up.
    finals = []
    for _ in range(3):
        clock.advance(301)
        refusal = refuse(services, lease_one(services))
        assert refusal is not None
        finals.append(refusal.final)
    assert finals == [False, False, True]
    assert row(conn)["last_error"] == "answer_lost"


def test_three_refusals_within_ten_minutes_are_not_enough_after_an_unknown_outcome(
    services: Services, conn: Conn, clock: Clock
) -> None:
    connect_account(services)
    lease_one(services)
    clock.advance(leases.LEASE_S + 1)
    for _ in range(3):
        conn.execute("UPDATE rdstation_tokens SET retry_at = NULL")
        refusal = refuse(services, lease_one(services))
        assert refusal is not None
        assert not refusal.final
        clock.advance(100)


def test_a_lost_answer_that_arrives_after_all_lifts_the_refusal(
    services: Services, conn: Conn, clock: Clock
) -> None:
    connect_account(services)
    lost = lease_one(services)
    for _ in range(3):
        clock.advance(301)
        refuse(services, lease_one(services))
    assert row(conn)["status"] == "reauthorization_required"
    assert store_answer(services, lost)
    assert (row(conn)["status"], row(conn)["last_error"]) == ("connected", None)


def test_a_refusal_means_nothing_once_an_earlier_answer_was_stored(
    services: Services, conn: Conn, clock: Clock
) -> None:
    connect_account(services)
    late = lease_one(services)
    clock.advance(leases.LEASE_S + 1)
    current = lease_one(services)
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
        lease = lease_one(services)
        with transaction(services.pool) as c:
            assert leases.back_off(c, lease, "server_error")
        found = row(conn)
        assert found["failures"] == failures + 1
        assert 0 <= (found["retry_at"] - lease.claimed_at).total_seconds() <= longest_s + 1
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
    lease = lease_one(services)
    with transaction(services.pool) as c:
        assert leases.slow_down(c, lease, "rate_limited", wait_s=wait_s)
    waited = (row(conn)["retry_at"] - lease.claimed_at).total_seconds()
    assert waited == pytest.approx(waits_s, abs=2)


def test_nobody_waits_longer_than_until_the_next_renewal(services: Services, conn: Conn) -> None:
    with transaction(services.pool) as c:
        assert leases.seconds_until_due(c) is None
    connect_account(services, due=False)
    conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now() + interval '90 seconds'")
    with transaction(services.pool) as c:
        until = leases.seconds_until_due(c)
    assert until is not None
    assert 80 < until <= 90


def test_a_claim_over_many_rows_reads_only_what_is_due(services: Services, conn: Conn) -> None:
    connect_account(services, account_id="due")
    conn.execute(
        "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, expires_at, refresh_after)"
        " SELECT 'other-' || n, '', '', rd_now() + interval '1 day', rd_now() + interval '1 hour'"
        " FROM generate_series(1, 20000) n"
    )
    # Without the rows that earlier tests left behind.
    conn.execute("VACUUM (ANALYZE) rdstation_tokens")
    for pick, index, most_buffers in (
        (lease_sql.PICK_DUE, "rdstation_tokens_due_for_workers", 10),
        (lease_sql.PICK_NEAREST, "rdstation_tokens_expiry", 1100),
    ):
        explain = f"EXPLAIN (ANALYZE, BUFFERS) {pick}".encode()
        plan = "\n".join(line for (line,) in conn.execute(explain, {"slots": 32}))
        assert f"Index Scan using {index}" in plan
        assert "rd_now" not in plan, "the clock was not inlined"
        assert "Seq Scan" not in plan
        assert "Sort" not in plan
        buffers = re.search(r"shared ([a-z0-9= ]+)", plan)
        assert buffers is not None
        assert sum(map(int, re.findall(r"(?:hit|read)=(\d+)", buffers[0]))) <= most_buffers


def test_the_nearest_to_expiry_are_not_sorted_when_statistics_are_of_a_time_when_all_had_lapsed(
    services: Services, conn: Conn
) -> None:
    conn.execute(
        "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, expires_at, refresh_after)"
        " SELECT 'account-' || n, repeat('a', 700), '', rd_now() - n * interval '1 s', rd_now() - interval '1 hour'"
        " FROM generate_series(1, 20000) n"
    )
    conn.execute("ANALYZE rdstation_tokens")
    conn.execute("UPDATE rdstation_tokens SET expires_at = expires_at + interval '1 day'")
    plan = "\n".join(
        line for (line,) in conn.execute(f"EXPLAIN {lease_sql.PICK_NEAREST}".encode(), {"slots": 32})
    )
    assert "Index Scan using rdstation_tokens_expiry" in plan
    assert "Sort" not in plan


def test_no_secret_stands_in_the_repr_of_a_claim(services: Services) -> None:
    connect_account(services)
    lease = lease_one(services)
    assert lease.refresh_token not in repr(lease)
    token = services.memory.read("default")
    assert token is not None
    assert token.access_token not in repr(token)


def test_the_lease_outlasts_an_exchange_and_the_writing_of_its_answer() -> None:
    assert leases.LEASE_S > client.EXCHANGE_DEADLINE_S + refresh.COMMIT_ALLOWANCE_S


def upload(services: Services, refresh_token: str = "uploaded") -> None:
    """Put an unproven pair over what is stored, which is kept until it has worked."""
    with transaction(services.pool) as conn:
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
    under_way = lease_one(services)
    upload(services)
    assert not store_answer(services, under_way, "of-the-answer", "rotated")
    assert stored_pair(services, conn)[1] == "uploaded", "the newer authorization stays"
    refusal = refuse(services, lease_one(services))
    assert refusal is not None
    assert refusal.brought_back
    assert stored_pair(services, conn) == ("of-the-answer", "rotated")
    assert row(conn)["stored_claim"] == under_way.fence


def test_an_older_answer_does_not_replace_a_newer_one_that_an_upload_has_put_aside(
    services: Services, conn: Conn, clock: Clock
) -> None:
    connect_account(services)
    stopped = lease_one(services)
    clock.advance(leases.LEASE_S + 1)
    assert store_answer(services, lease_one(services), "newer", "newer-refresh")
    upload(services)
    assert not store_answer(services, stopped, "older", "older-refresh")
    refuse(services, lease_one(services))
    assert stored_pair(services, conn) == ("newer", "newer-refresh")


def test_a_pair_that_comes_back_while_it_is_being_exchanged_is_left_to_that_exchange(
    services: Services, conn: Conn, clock: Clock
) -> None:
    connect_account(services)
    under_way = lease_one(services)
    upload(services)
    refusal = refuse(services, lease_one(services))
    assert refusal is not None
    assert refusal.brought_back
    assert lease_due(services) == []
    clock.advance(leases.LEASE_S + 1)
    assert len(lease_due(services)) == 1, "its process may have died"
    assert store_answer(services, under_way, "of-the-answer", "rotated")
    assert stored_pair(services, conn) == ("of-the-answer", "rotated")
