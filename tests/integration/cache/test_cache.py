"""One fetch for all, nothing stale that hides a dead account, nothing of an account that has gone."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg import sql

from rdservice import errors
from rdservice.cache import cache, memory, sweeper, table
from rdservice.cache.entries import Content, FetchFailed, Served
from rdservice.cache.memory import CacheMemory, Entry
from rdservice.config.settings import Settings
from rdservice.database import pool
from rdservice.encryption import KeyRing
from rdservice.errors import RdServiceError
from rdservice.services import Services
from rdservice.tokens import memory as token_memory
from rdservice.tokens import store
from rdservice.worker.auto_refresh import auto_refresh_tokens
from rdservice.worker.bell import Bell
from tests.conftest import Clock
from tests.support.accounts import connect_account, lease_due
from tests.support.waiting import wait_until

Conn = psycopg.Connection[Any]
Processes = list[Services]

PAGING = (("pagination-page", "1"), ("pagination-total-rows", "7"))
UNAVAILABLE = errors.RdStationUnavailable("It does not answer.", retry_after_s=2)


class Source:
    """Stands for RD Station: counts its calls, and answers each with another body, or fails."""

    def __init__(self, text: str = "content") -> None:
        self.text = text
        self.calls = 0
        self.failure: Exception | None = None
        self.deadline = 0.0
        self.open = threading.Event()
        self.open.set()
        self._lock = threading.Lock()

    def fetch(self, deadline: float) -> Content:
        with self._lock:
            self.calls += 1
            number = self.calls
        self.deadline = deadline
        assert self.open.wait(20)
        if self.failure is not None:
            raise self.failure
        return Content.of(f'{{"{self.text}": {number}}}'.encode(), PAGING)

    def body(self, number: int) -> bytes:
        return f'{{"{self.text}": {number}}}'.encode()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def processes(make_services: Callable[[Settings], Services], settings: Settings) -> Processes:
    """Three processes, and an account that each of them knows."""
    started = [make_services(settings) for _ in range(3)]
    connect_account(started[0], due=False)
    return started


def get(services: Services, source: Source, *parameters: str, max_age_s: float | None = None) -> Served:
    return services.cache.get("default", "contacts_list", parameters, source.fetch, max_age_s=max_age_s)


def outcome_of(services: Services, source: Source, *parameters: str) -> str:
    """Return the state of what is served, or the code of the error."""
    try:
        return get(services, source, *parameters).state
    except RdServiceError as error:
        return error.code


def all_become(state: str, processes: Processes, source: Source, *, seconds: float = 20) -> None:
    """Wait until this is the outcome in each process."""
    for process in processes:
        wait_until(partial(_is, state, process, source), f"the outcome is {state}", seconds=seconds)


def _is(state: str, services: Services, source: Source, *parameters: str) -> bool:
    return outcome_of(services, source, *parameters) == state


def rows(conn: Conn) -> int:
    found = conn.execute("SELECT count(*) FROM rdstation_cache").fetchone()
    assert found is not None
    return int(found[0])


def forget_tokens(processes: Processes) -> None:
    """Let half a second pass, after which every process asks for the account's row again."""
    for process in processes:
        process.memory.forget("default")


def test_content_is_fetched_once_and_then_served_from_memory_without_the_database(
    processes: Processes, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = get(processes[0], source)
    assert (first.state, first.content.body, first.content.paging) == ("miss", source.body(1), PAGING)
    monkeypatch.setattr(token_memory, "REMEMBER_S", 60)
    monkeypatch.delattr(pool, "transaction")
    again = get(processes[0], source)
    assert (again.state, again.content) == ("hit", first.content)
    assert source.calls == 1


def test_another_process_gets_the_same_from_the_table(processes: Processes, source: Source) -> None:
    first = get(processes[0], source)
    other = get(processes[1], source)
    assert other.state == "hit"
    assert (other.content.body, other.content.paging) == (first.content.body, PAGING)
    assert other.content.etag == first.content.etag
    assert source.calls == 1


def test_other_parameters_are_other_content(processes: Processes, source: Source) -> None:
    bodies = {get(processes[0], source, *parameters).content.body for parameters in [(), ("a",), ("a", "b")]}
    assert len(bodies) == source.calls == 3


def test_however_many_callers_in_however_many_processes_miss_there_is_one_fetch(
    processes: Processes, source: Source
) -> None:
    source.open.clear()
    with ThreadPoolExecutor(60) as callers:
        asked = [callers.submit(get, processes[number % 3], source) for number in range(60)]
        wait_until(lambda: source.calls, "the first fetch begins")
        source.open.set()
        served = [asking.result() for asking in asked]
    assert {response.content.body for response in served} == {source.body(1)}
    assert source.calls == 1


def test_a_failure_is_shared_for_two_seconds_and_not_repeated_by_each_waiter(
    processes: Processes, source: Source, clock: Clock
) -> None:
    source.failure = FetchFailed(UNAVAILABLE, stale=True)
    source.open.clear()
    with ThreadPoolExecutor(30) as callers:
        asked = [callers.submit(outcome_of, processes[number % 3], source) for number in range(30)]
        wait_until(lambda: source.calls, "the first fetch begins")
        source.open.set()
        assert [asking.result() for asking in asked] == ["rdstation_unavailable"] * 30
    for process in processes:
        with pytest.raises(errors.RdStationUnavailable, match="It does not answer") as raised:
            get(process, source)
        assert raised.value.retry_after_s == 2
    assert source.calls == 1
    clock.advance(2.1)
    assert outcome_of(processes[1], source) == "rdstation_unavailable"
    assert source.calls == 2


def test_old_content_is_served_at_once_while_one_process_renews_it(
    processes: Processes, source: Source, clock: Clock
) -> None:
    get(processes[0], source)
    clock.advance(901)
    source.open.clear()
    for process in processes[1:]:
        for _ in range(3):
            served = get(process, source)
            assert (served.state, served.content.body) == ("stale", source.body(1))
            assert 901 <= served.age_s < 930
    source.open.set()
    all_become("hit", processes[1:], source)
    for process in processes[1:]:
        assert get(process, source).content.body == source.body(2)
    assert source.calls == 2


def test_old_content_is_served_while_fetches_fail_up_to_a_day(
    processes: Processes, source: Source, clock: Clock
) -> None:
    get(processes[0], source)
    source.failure = FetchFailed(UNAVAILABLE, stale=True)
    for passed, age_s in ((1000, 1000), (50_000, 51_000), (35_300, 86_300)):
        clock.advance(passed)
        forget_tokens(processes)
        served = get(processes[1], source)
        assert served.state == "stale"
        assert age_s <= served.age_s < age_s + 30
    clock.advance(200)
    wait_until(lambda: outcome_of(processes[1], source) == "rdstation_unavailable", "it is too old")


def test_a_failure_that_speaks_against_the_account_is_not_covered_by_old_content(
    processes: Processes, source: Source, clock: Clock
) -> None:
    get(processes[0], source)
    clock.advance(901)
    source.failure = FetchFailed(errors.RdStationFailed("It answers 401."), stale=False)
    assert outcome_of(processes[1], source) == "stale"  # it is not known yet
    wait_until(lambda: outcome_of(processes[1], source) == "rdstation_failed", "the failure is known")
    clock.advance(3)
    for process in processes[1:]:
        assert outcome_of(process, source) == "rdstation_failed"
    assert source.calls == 3


def test_what_is_gone_is_deleted_and_stays_unknown_for_a_while(
    processes: Processes, source: Source, clock: Clock, conn: Conn
) -> None:
    get(processes[0], source)
    clock.advance(901)
    source.failure = FetchFailed(errors.NotFound("Gone."), stale=False, gone=True, shared_s=30)
    wait_until(lambda: outcome_of(processes[1], source) == "not_found", "the renewal finds that it is gone")
    assert conn.execute("SELECT value, fetched_at FROM rdstation_cache").fetchall() == [(None, None)]
    clock.advance(25)
    assert outcome_of(processes[2], source) == "not_found"
    assert source.calls == 2
    source.failure = None
    clock.advance(6)
    assert outcome_of(processes[2], source) == "miss"


def test_a_dead_account_is_told_at_once_whatever_is_cached(
    processes: Processes, source: Source, conn: Conn
) -> None:
    get(processes[0], source)
    conn.execute(
        "UPDATE rdstation_tokens SET status = 'reauthorization_required', issued_at = rd_now() - interval '1 day',"
        " expires_at = rd_now() - interval '1 s'"
    )
    forget_tokens(processes)
    for process in processes:
        with pytest.raises(errors.ReauthorizationRequired) as raised:
            get(process, source)
        assert raised.value.extra["reauthorize_url"].endswith("/rd/login?account_id=default")  # type: ignore[union-attr]
    assert source.calls == 1


def test_while_a_refused_account_has_a_live_token_nothing_old_is_served_before_rd_station_was_asked(
    processes: Processes, source: Source, conn: Conn, clock: Clock
) -> None:
    get(processes[0], source)
    conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required'")
    forget_tokens(processes)
    assert outcome_of(processes[0], source) == "hit"
    clock.advance(901)
    assert outcome_of(processes[1], source) == "miss"
    clock.advance(901)
    source.failure = FetchFailed(UNAVAILABLE, stale=True)
    assert outcome_of(processes[2], source) == "stale"
    assert source.calls == 3


def test_a_refused_authorization_found_by_a_fetch_is_shared_and_ends_with_a_new_one(
    processes: Processes, source: Source, conn: Conn, clock: Clock
) -> None:
    get(processes[0], source)
    clock.advance(901)
    conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required'")
    forget_tokens(processes)
    source.failure = FetchFailed(errors.ReauthorizationRequired("Refused."), stale=False)
    for process in processes[1:]:
        with pytest.raises(errors.ReauthorizationRequired) as raised:
            get(process, source)
        assert "reauthorize_url" in raised.value.extra
    assert source.calls == 2
    conn.execute("UPDATE rdstation_tokens SET status = 'connected'")
    forget_tokens(processes)
    source.failure = None
    assert outcome_of(processes[1], source) == "miss"


def test_a_row_deleted_by_sql_ends_all_cached_content_within_a_second(
    processes: Processes, source: Source, conn: Conn
) -> None:
    for process in processes:
        get(process, source)
    conn.execute("DELETE FROM rdstation_tokens WHERE account_id='default'")
    assert rows(conn) == 0
    all_become("not_connected", processes, source, seconds=1)
    assert source.calls == 1


def shows(services: Services, source: Source) -> bool:
    return get(services, source).content.body == source.body(1)


NEW_CONNECTION = "UPDATE rdstation_tokens SET connection_id = gen_random_uuid()"
NEW_EPOCH = "UPDATE rdstation_tokens SET cache_epoch = cache_epoch + 1"


@pytest.mark.parametrize("change", [NEW_CONNECTION, NEW_EPOCH])
def test_nothing_cached_outlives_its_connection_or_its_epoch(
    processes: Processes, source: Source, conn: Conn, change: LiteralString
) -> None:
    for process in processes:
        get(process, source)
    conn.execute(change)
    assert rows(conn) == 0
    other = Source("content of the other account")
    for process in processes:
        wait_until(partial(shows, process, other), "the old content is gone", seconds=1)


@pytest.mark.parametrize("change", [NEW_CONNECTION, NEW_EPOCH])
def test_content_that_was_fetched_for_an_earlier_connection_or_epoch_is_dropped(
    processes: Processes, source: Source, conn: Conn, change: LiteralString
) -> None:
    source.open.clear()
    with ThreadPoolExecutor(2) as callers:
        asked = [callers.submit(get, process, source) for process in processes[:2]]
        wait_until(lambda: source.calls, "the fetch begins")
        conn.execute(change)
        source.open.set()
        assert {asking.result().content.body for asking in asked} == {source.body(2)}
    assert source.calls == 2
    version = conn.execute("SELECT DISTINCT connection_id, epoch FROM rdstation_cache").fetchall()
    assert version == conn.execute("SELECT connection_id, cache_epoch FROM rdstation_tokens").fetchall()


def test_content_that_arrives_after_the_deletion_is_dropped(
    processes: Processes, source: Source, conn: Conn
) -> None:
    source.open.clear()
    with ThreadPoolExecutor(1) as callers:
        asked = callers.submit(get, processes[0], source)
        wait_until(lambda: source.calls, "the fetch begins")
        conn.execute("DELETE FROM rdstation_tokens")
        source.open.set()
        with pytest.raises(errors.NotConnected):
            asked.result()
    assert rows(conn) == 0
    connect_account(processes[0], due=False)
    assert outcome_of(processes[0], source) == "miss"


def test_old_content_is_not_served_for_a_failure_that_arrives_after_the_deletion(
    processes: Processes, source: Source, conn: Conn, clock: Clock
) -> None:
    get(processes[0], source)
    clock.advance(901)
    conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required'")
    forget_tokens(processes)
    source.open.clear()
    source.failure = FetchFailed(UNAVAILABLE, stale=True)
    with ThreadPoolExecutor(1) as callers:
        asked = callers.submit(get, processes[1], source)
        wait_until(lambda: source.calls == 2, "the fetch begins")
        conn.execute("DELETE FROM rdstation_tokens")
        source.open.set()
        with pytest.raises(errors.NotConnected):
            asked.result()


def test_a_claim_that_the_change_did_not_see_stores_nothing(processes: Processes, conn: Conn) -> None:
    with pool.transaction(processes[0].pool) as claiming:
        token = store.read_token(claiming, processes[0].keys, "default")
        assert token is not None
        lease = table.lease(claiming, b"key", token, max_age_s=900)
        assert lease is not None
        conn.execute(NEW_EPOCH)
    assert rows(conn) == 1
    with pool.transaction(processes[0].pool) as late:
        assert not table.store(late, lease, "late")
        assert not table.fail(late, lease, FetchFailed(UNAVAILABLE, stale=True))


def claim_as_a_process_that_dies(services: Services) -> table.Lease:
    with pool.transaction(services.pool) as conn:
        token = store.read_token(conn, services.keys, "default")
        assert token is not None
        key = services.cache.key(token.connection_id, token.cache_epoch, ("contacts_list", ()))
        lease = table.lease(conn, key, token, max_age_s=900)
    assert lease is not None
    return lease


def test_waiting_for_another_process_ends_with_a_503_and_nobody_fetches_without_the_claim(
    processes: Processes, source: Source, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_as_a_process_that_dies(processes[0])
    monkeypatch.setattr(cache, "WAIT_S", 0.5)
    with pytest.raises(errors.RdStationUnavailable) as raised:
        get(processes[1], source)
    assert raised.value.retry_after_s
    assert source.calls == 0
    clock.advance(table.LEASE_S)
    assert outcome_of(processes[1], source) == "miss"


def test_callers_give_up_on_a_slow_fetch_and_find_its_content_later(
    processes: Processes, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "WAIT_S", 0.5)
    source.open.clear()
    with ThreadPoolExecutor(12) as callers:
        responses = list(callers.map(lambda n: outcome_of(processes[n % 3], source), range(12)))
    assert responses == ["rdstation_unavailable"] * 12
    source.open.set()
    all_become("hit", processes, source)
    assert source.calls == 1


def test_a_woken_process_does_not_store_over_what_was_fetched_after_it(
    processes: Processes, source: Source, clock: Clock, conn: Conn
) -> None:
    old = claim_as_a_process_that_dies(processes[0])
    clock.advance(table.LEASE_S + 1)
    get(processes[1], source)
    with pool.transaction(processes[0].pool) as late:
        assert not table.store(late, old, "late")
        assert not table.fail(late, old, FetchFailed(UNAVAILABLE, stale=True, gone=True))
    assert outcome_of(processes[2], source) == "hit"


def test_a_fetch_may_begin_only_while_its_lease_outlasts_the_call(
    processes: Processes, source: Source
) -> None:
    get(processes[0], source)
    left = source.deadline - time.monotonic()
    assert table.LEASE_S - 20 - 5 < left <= table.LEASE_S - 15 - 5


def test_an_unexpected_error_frees_the_key(processes: Processes, source: Source) -> None:
    source.failure = ZeroDivisionError("a bug")
    for process in processes[:2]:
        with pytest.raises(ZeroDivisionError):
            get(process, source)
    source.failure = None
    assert outcome_of(processes[2], source) == "miss"


def test_few_threads_renew_old_content_and_misses_are_fetched_all_the_same(
    processes: Processes, clock: Clock
) -> None:
    names = [str(number) for number in range(2 * cache.REVALIDATIONS)]
    sources = {name: Source() for name in names}
    for name in names:
        get(processes[0], sources[name], name)
        sources[name].open.clear()
    clock.advance(901)
    assert {get(processes[1], sources[name], name).state for name in names} == {"stale"}
    wait_until(
        lambda: sum(source.calls for source in sources.values()) == 3 * cache.REVALIDATIONS, "eight renew"
    )
    assert get(processes[1], Source(), "new").state == "miss"
    for source in sources.values():
        source.open.set()
    for name in names:
        wait_until(partial(_is, "hit", processes[1], sources[name], name), "all are renewed")
    assert {source.calls for source in sources.values()} == {2}


def test_younger_content_can_be_asked_for(processes: Processes, source: Source, clock: Clock) -> None:
    get(processes[0], source)
    clock.advance(100)
    assert get(processes[1], source, max_age_s=200).state == "hit"
    wait_until(lambda: get(processes[2], source, max_age_s=50).state == "hit", "renewed")
    assert source.calls == 2


def drop(services: Services, conn: Conn) -> None:
    """Drop what the table has for `get` without parameters."""
    token = services.memory.read("default")
    assert token is not None
    table.drop(conn, [services.cache.key(token.connection_id, token.cache_epoch, ("contacts_list", ()))])


def test_what_one_process_fetches_or_drops_the_others_notice_within_half_a_second(
    processes: Processes, source: Source, conn: Conn
) -> None:
    assert [get(process, source).content.body for process in processes] == [source.body(1)] * 3
    assert get(processes[0], source, max_age_s=0).content.body == source.body(2)
    time.sleep(token_memory.REMEMBER_S)
    assert [get(process, source).content.body for process in processes] == [source.body(2)] * 3
    drop(processes[0], conn)
    time.sleep(token_memory.REMEMBER_S)
    assert [get(process, source).content.body for process in processes] == [source.body(3)] * 3
    assert source.calls == 3


def test_while_the_table_confirms_it_content_is_decrypted_once(
    processes: Processes, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(processes[0], source)
    get(processes[1], source)
    monkeypatch.setattr(token_memory, "REMEMBER_S", 0.0)
    monkeypatch.delattr(Content, "decrypt")
    assert [get(process, source).state for process in processes[:2]] == ["hit", "hit"]


def test_dropped_content_is_not_served_to_a_caller_who_waited_in_vain(
    processes: Processes, source: Source, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(processes[0], source)
    drop(processes[0], conn)
    monkeypatch.setattr(cache, "WAIT_S", 0.5)
    source.open.clear()
    with pytest.raises(errors.RdStationUnavailable):
        get(processes[0], source, max_age_s=0)
    source.open.set()


def test_who_insists_and_waits_in_vain_gets_the_older_content(
    processes: Processes, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(processes[0], source)
    monkeypatch.setattr(cache, "WAIT_S", 0.5)
    source.open.clear()
    served = get(processes[0], source, max_age_s=0)
    assert (served.state, served.content.body) == ("stale", source.body(1))
    source.open.set()


def test_content_that_is_dropped_during_each_fetch_ends_with_a_503(
    processes: Processes, source: Source, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(deadline: float) -> Content:
        drop(processes[1], conn)
        time.sleep(0.05)
        return source.fetch(deadline)

    monkeypatch.setattr(cache, "WAIT_S", 2.0)
    with pytest.raises(errors.RdStationUnavailable):
        processes[0].cache.get("default", "contacts_list", (), fetch)
    assert source.calls >= 2
    assert conn.execute("SELECT 1 FROM rdstation_cache WHERE value IS NOT NULL").fetchone() is None


def test_nothing_of_the_content_is_readable_in_the_table(processes: Processes, conn: Conn) -> None:
    source = Source("ana.souza@example.com")
    get(processes[0], source, "ana.souza@example.com")
    source.failure = FetchFailed(UNAVAILABLE, stale=True)
    (text,) = conn.execute("SELECT row_to_json(c)::text FROM rdstation_cache c").fetchall()[0]
    assert "value" in text
    for readable in ("ana.souza", "example.com", source.body(1).hex(), "pagination"):
        assert readable not in text


@pytest.mark.parametrize(
    "damage",
    [
        "'plain text'",
        "left(value, 60)",
        "(SELECT value FROM rdstation_cache o WHERE o.key <> c.key)",
    ],
)
def test_a_value_that_was_damaged_or_moved_is_fetched_anew(
    processes: Processes, source: Source, conn: Conn, damage: LiteralString
) -> None:
    get(processes[0], source)
    other = Source("other")
    get(processes[0], other, "other")
    first = sql.SQL("(SELECT key FROM rdstation_cache ORDER BY fetched_at LIMIT 1)")
    conn.execute(
        sql.SQL("UPDATE rdstation_cache c SET value = {} WHERE key = {}").format(sql.SQL(damage), first)
    )
    assert get(processes[1], source).content.body == source.body(2)
    assert get(processes[2], source).state == "hit"


def test_a_value_whose_key_is_missing_is_fetched_anew(
    processes: Processes, source: Source, conn: Conn, make_services: Callable[[Settings], Services]
) -> None:
    get(processes[0], source)
    newer = Fernet.generate_key()
    settings = replace(processes[0].settings, encryption_keys=(newer,))
    conn.execute(
        "UPDATE rdstation_tokens SET access_token = %s",
        [KeyRing([newer]).encrypt("access_token", "default", "a")],
    )
    assert get(make_services(settings), source).content.body == source.body(2)


def test_rows_whose_time_is_over_are_pruned_in_batches_and_leased_ones_are_not(
    processes: Processes, source: Source, conn: Conn, clock: Clock
) -> None:
    for name in ("a", "b", "c"):
        get(processes[0], source, name)
    claim_as_a_process_that_dies(processes[0])
    clock.advance(3601)
    conn.execute("UPDATE rdstation_cache SET leased_until = rd_now() + interval '5 s' WHERE value IS NULL")
    assert table.prune(conn) == 0
    clock.advance(10)
    assert table.prune(conn) == 1
    clock.advance(table.CEILING_S)
    assert (table.prune(conn, batch=2), table.prune(conn, batch=2), rows(conn)) == (2, 1, 0)


def test_the_worker_prunes_content_and_budgets(
    processes: Processes, source: Source, conn: Conn, clock: Clock
) -> None:
    get(processes[0], source)
    processes[0].rate_budget.count("default")
    clock.advance(table.CEILING_S + 1)
    bell = Bell()
    worker = threading.Thread(target=auto_refresh_tokens, args=[processes[1].refresher, bell])
    worker.start()
    try:
        wait_until(lambda: rows(conn) == 0, "the content is pruned")
        left = "SELECT budget FROM rdstation_rate_limits"
        wait_until(lambda: conn.execute(left).fetchall() == [], "the budget is pruned")
    finally:
        bell.stop()
        worker.join(30)


def test_a_cache_row_under_way_hides_its_account_from_no_claim(processes: Processes) -> None:
    connect_account(processes[0])
    with pool.transaction(processes[1].pool) as conn:
        token = store.read_token(conn, processes[1].keys, "default")
        assert token is not None
        assert table.lease(conn, b"key", token, max_age_s=900)
        assert len(lease_due(processes[0])) == 1


def test_a_claim_under_way_does_not_hold_up_the_cache(processes: Processes, source: Source) -> None:
    connect_account(processes[0])
    with pool.transaction(processes[1].pool) as conn:
        conn.execute("SELECT 1 FROM rdstation_tokens FOR NO KEY UPDATE")
        assert outcome_of(processes[0], source) == "miss"


def entry(size: int) -> Entry:
    content = Content.of(b"x" * (size - memory.ENTRY_BYTES), ())
    now = time.monotonic()
    return Entry(content=content, fetched_at=datetime.now(UTC), born=now, confirmed_at=now)


def test_memory_is_bounded_and_forgets_what_was_not_used_for_longest() -> None:
    kept, version = CacheMemory(max_bytes=10_000), (uuid4(), 0)
    names = [("operation", (number,)) for number in range(4)]
    for name in names:
        kept.get("default", version, name)
        kept.put("default", version, name, entry(3_000))
        kept.get("default", version, names[0])
    found = [kept.get("default", version, name) is not None for name in names]
    assert found == [True, False, True, True]
    kept.put("default", version, names[1], entry(20_000))
    assert not any(kept.get("default", version, name) for name in names)


def test_memory_never_mixes_versions_or_accounts() -> None:
    kept, version, newer, name = CacheMemory(), (uuid4(), 0), (uuid4(), 0), ("operation", ())
    kept.get("a", version, name)
    kept.get("b", version, name)
    kept.put("a", version, name, entry(2_000))
    kept.put("b", version, name, entry(2_000))
    assert kept.get("a", newer, name) is None
    kept.put("a", version, name, entry(2_000))  # arrives late
    assert kept.get("a", newer, name) is None
    assert kept.get("b", version, name) is not None
    kept.drop("b")
    assert kept.get("b", version, name) is None


def remembered(services: Services) -> int:
    return len(services.cache._memory._entries)


def test_an_idle_process_forgets_what_it_may_no_longer_serve(
    processes: Processes, source: Source, conn: Conn
) -> None:
    connect_account(processes[0], account_id="other", due=False)
    for process in processes[:2]:
        get(process, source, "a")
        get(process, source, "b")
    processes[0].cache.get("other", "contacts_list", (), source.fetch)
    sweep = processes[0].cache._sweeper.sweep
    sweep()
    assert remembered(processes[0]) == 3
    conn.execute("UPDATE rdstation_tokens SET cache_epoch = cache_epoch + 1 WHERE account_id = 'default'")
    sweep()
    assert (remembered(processes[0]), remembered(processes[1])) == (1, 2)
    conn.execute("DELETE FROM rdstation_tokens")
    sweep()
    assert remembered(processes[0]) == 0


def test_what_is_over_a_day_old_goes_from_the_memory(
    processes: Processes, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(processes[0], source)
    monkeypatch.setattr(table, "CEILING_S", 0.0)
    processes[0].cache._sweeper.sweep()
    assert remembered(processes[0]) == 0


def test_the_memory_is_swept_again_and_again_also_after_the_database_was_away(
    make_services: Callable[[Settings], Services],
    settings: Settings,
    source: Source,
    conn: Conn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweeper, "EVERY_S", 0.01)
    process = make_services(settings)
    connect_account(process, due=False)
    get(process, source)
    failed = threading.Event()

    def no_versions(*_: Any) -> Any:
        failed.set()
        raise psycopg.OperationalError("the server closed the connection")

    with monkeypatch.context() as away:
        away.setattr(table, "versions", no_versions)
        assert failed.wait(10)
    assert remembered(process) == 1
    conn.execute("UPDATE rdstation_tokens SET cache_epoch = cache_epoch + 1")
    wait_until(lambda: remembered(process) == 0, "the memory is swept")
