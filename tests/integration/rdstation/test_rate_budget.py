"""The calls of an account within a minute, counted for all processes together."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import psycopg
import pytest

from rdservice.config.settings import Settings
from rdservice.database import pool
from rdservice.errors import TooManyRequests
from rdservice.rdstation import rate_budget
from rdservice.rdstation.client import ApiResponse
from rdservice.rdstation.rate_budget import SEGMENTATION_LISTS, RateBudget, RateLimit, take
from rdservice.services import Services
from tests.conftest import Clock

Conn = psycopg.Connection[Any]
ALLOWED = 10
WINDOW_S = 61


def response(status: int = 200, **headers: str) -> Callable[[], ApiResponse]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda: ApiResponse(operation="contacts_list", status=status, headers=named, body=b"")


def spend(budget: RateBudget, times: int = 1, account_id: str = "default") -> int:
    """Try to call so many times without waiting; return how often it was allowed."""
    allowed = 0
    for _ in range(times):
        try:
            budget.spend(account_id, response(), timeout_s=0)
        except TooManyRequests:
            continue
        allowed += 1
    return allowed


def wait_s(budget: RateBudget) -> float:
    """Return for how long the budget says that it is spent."""

    def never() -> ApiResponse:
        raise AssertionError("the budget let a call through")

    with pytest.raises(TooManyRequests) as raised:
        budget.spend("default", never, timeout_s=0)
    assert raised.value.retry_after_s is not None
    return raised.value.retry_after_s


@pytest.fixture
def budget(services: Services) -> RateBudget:
    return RateBudget(services.pool, ALLOWED)


def test_no_more_than_the_limit_is_let_through_however_many_processes_ask(
    make_services: Callable[[Settings], Services], settings: Settings, clock: Clock
) -> None:
    budgets = [RateBudget(make_services(settings).pool, ALLOWED) for _ in range(3)]
    with ThreadPoolExecutor(15) as callers:
        assert sum(callers.map(lambda n: spend(budgets[n % 3], 4), range(15))) == ALLOWED
    clock.advance(30)
    assert sum(spend(budget) for budget in budgets) == 0
    clock.advance(33)
    assert sum(spend(budget, ALLOWED) for budget in budgets) == ALLOWED


def test_the_window_slides(budget: RateBudget, clock: Clock) -> None:
    assert spend(budget, 6) == 6
    clock.advance(40)
    assert spend(budget, 6) == 4
    clock.advance(23)
    assert spend(budget, 9) == 6
    clock.advance(40)
    assert spend(budget, 9) == 4


def test_who_finds_it_spent_is_told_when_the_next_call_is_possible(budget: RateBudget, clock: Clock) -> None:
    spend(budget, 3)
    clock.advance(20)
    spend(budget, 7)
    left = wait_s(budget)
    assert 30 <= left <= 41
    clock.advance(left - 6)
    assert spend(budget) == 0
    # The three may be some seconds apart, and the seven are twenty seconds later.
    clock.advance(14)
    assert spend(budget, 9) == 3


def test_a_lower_limit_than_what_was_spent_waits_until_enough_of_it_has_left(
    services: Services, budget: RateBudget, clock: Clock
) -> None:
    spend(budget, 5)
    clock.advance(20)
    spend(budget, 5)
    assert 58 <= wait_s(RateBudget(services.pool, 4)) <= 61


def test_accounts_have_budgets_of_their_own(budget: RateBudget) -> None:
    assert spend(budget, ALLOWED + 1) == ALLOWED
    assert spend(budget, ALLOWED + 1, "another") == ALLOWED


def test_a_429_closes_the_budget_for_as_long_as_rd_station_says(
    services: Services, budget: RateBudget, clock: Clock
) -> None:
    assert budget.spend("default", response(429, Retry_After="30")).status == 429
    elsewhere = RateBudget(services.pool, ALLOWED)
    assert 28 <= wait_s(elsewhere) <= 30
    clock.advance(28)
    assert spend(elsewhere) == 0
    clock.advance(2.5)
    assert spend(elsewhere) == 1


def test_a_429_without_retry_after_closes_it_for_some_seconds(budget: RateBudget) -> None:
    budget.spend("default", response(429))
    shortest, longest = rate_budget.CLOSED_WITHOUT_WORD_S
    assert shortest - 1 <= wait_s(budget) <= longest


def test_a_429_never_closes_it_for_longer_than_ten_minutes(budget: RateBudget) -> None:
    budget.spend("default", response(429, Retry_After="86400"))
    assert wait_s(budget) <= 600


def test_a_call_that_is_made_anyway_is_counted(budget: RateBudget) -> None:
    for _ in range(ALLOWED + 5):
        budget.count("default")
    assert spend(budget) == 0


def test_a_clock_that_was_set_back_blocks_nothing(budget: RateBudget, clock: Clock) -> None:
    clock.advance(3_600)
    spend(budget, ALLOWED)
    clock.advance(-3_600)
    assert spend(budget) == 1


def test_budgets_that_nobody_uses_are_pruned(budget: RateBudget, clock: Clock, conn: Conn) -> None:
    spend(budget, 1, "a")
    clock.advance(3_600)
    spend(budget, 1, "b")
    assert rate_budget.prune(conn) == 0
    clock.advance(3_600)
    assert rate_budget.prune(conn) == 1
    assert conn.execute("SELECT budget FROM rdstation_rate_limits").fetchall() == [("b",)]


def test_a_row_holds_no_more_than_a_window(budget: RateBudget, clock: Clock, conn: Conn) -> None:
    for _ in range(30):
        clock.advance(4)
        budget.count("default")
    spend(budget)
    held = "SELECT cardinality(calls) FROM rdstation_rate_limits"
    assert conn.execute(held).fetchall() == [(math.ceil(WINDOW_S / 4),)]


def test_500_calls_stay_in_the_row_and_updates_leave_the_indexes_alone(
    services: Services, conn: Conn
) -> None:
    largest = RateLimit(name="account", calls=500)
    take(conn, "default", largest, ahead_s=0, background=False)
    conn.execute(
        "UPDATE rdstation_rate_limits SET calls = ARRAY("
        " SELECT rd_now() - (n * 0.12 + random() / 10) * interval '1 second' FROM generate_series(1, 499) n)"
    )
    moved = "SELECT n_tup_upd - n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relname = 'rdstation_rate_limits'"
    with pool.transaction(services.pool) as transaction:
        take(transaction, "default", largest, ahead_s=0, background=False)
        before = transaction.execute(moved).fetchone()
    for _ in range(20):
        with pool.transaction(services.pool) as transaction:
            take(transaction, "default", largest, ahead_s=0, background=False)
            assert transaction.execute(moved).fetchone() in (before, (0,))
    (size,) = conn.execute("SELECT pg_column_size(calls) FROM rdstation_rate_limits").fetchall()[0]
    assert size < 4_000


def test_a_caller_waits_for_a_place_that_is_near(budget: RateBudget, clock: Clock) -> None:
    spend(budget, ALLOWED)
    clock.advance(WINDOW_S - 1)
    waits_s: list[float] = []
    assert budget.spend("default", response(), pause=waits_s.append).status == 200
    assert [0 <= wait <= 1 for wait in waits_s] in ([], [True])


def test_nobody_waits_for_longer_than_his_patience(budget: RateBudget, clock: Clock) -> None:
    spend(budget, ALLOWED)
    clock.advance(50)
    with pytest.raises(TooManyRequests) as raised:
        budget.spend("default", response(), pause=_never_waits)
    assert 10 <= (raised.value.retry_after_s or 0) <= 12


def _never_waits(_seconds: float) -> None:
    raise AssertionError("it waits")


def test_a_place_that_is_reserved_is_nobody_elses(budget: RateBudget, clock: Clock) -> None:
    spend(budget, ALLOWED - 1)
    clock.advance(30)
    spend(budget, 1)
    clock.advance(30)
    assert wait_s(budget) <= 2
    with ThreadPoolExecutor(20) as callers:
        assert sum(callers.map(lambda _: _is_served(budget), range(20))) == ALLOWED - 1


def _is_served(budget: RateBudget) -> bool:
    try:
        return budget.spend("default", response(), timeout_s=3).status == 200
    except TooManyRequests:
        return False


def test_the_background_takes_no_place_ahead_and_waits_as_long_as_it_is_let(
    budget: RateBudget, clock: Clock
) -> None:
    spend(budget, ALLOWED)
    asked: list[float] = []

    def pause(seconds: float) -> None:
        asked.append(seconds)
        # Somebody else comes for the place that becomes free.
        clock.advance(60 if len(asked) == 1 else 3)
        if len(asked) == 1:
            spend(budget, ALLOWED)

    budget.spend("default", response(), background=True, timeout_s=math.inf, pause=pause)
    assert 60 < asked[0] <= WINDOW_S
    assert asked[1] <= 3


def test_whoever_waits_may_give_up_and_has_used_nothing(budget: RateBudget, clock: Clock) -> None:
    class GivenUp(Exception):
        pass

    def give_up(_seconds: float) -> None:
        raise GivenUp

    spend(budget, ALLOWED)
    with pytest.raises(GivenUp):
        budget.spend("default", response(), background=True, timeout_s=math.inf, pause=give_up)
    clock.advance(WINDOW_S)
    assert spend(budget, ALLOWED + 1) == ALLOWED


def test_a_429_stops_those_who_already_wait_for_their_place(budget: RateBudget, clock: Clock) -> None:
    spend(budget, ALLOWED)
    clock.advance(WINDOW_S - 2)

    def told_to_pause(_seconds: float) -> None:
        budget.spend("another way", response(), timeout_s=0)
        rate_budget.RateBudget(budget._pool, 1_000).spend(
            "default", response(429, Retry_After="60"), timeout_s=0
        )

    with pytest.raises(TooManyRequests):
        budget.spend("default", response(), timeout_s=3, pause=told_to_pause)


def test_a_call_that_took_long_counts_from_its_end(budget: RateBudget, clock: Clock) -> None:
    spend_slowly(budget, clock)
    spend(budget, ALLOWED - 1)
    clock.advance(WINDOW_S - 7)
    assert spend(budget, ALLOWED) == 0
    clock.advance(7)
    assert spend(budget, ALLOWED + 1) == ALLOWED


def test_a_call_that_failed_late_counts_from_its_end(budget: RateBudget, clock: Clock) -> None:
    with pytest.raises(ConnectionError):
        spend_slowly(budget, clock, fails=True)
    clock.advance(WINDOW_S - 7)
    assert spend(budget, ALLOWED) == ALLOWED - 1


def test_of_calls_with_one_time_only_the_slow_one_is_noted_again(
    budget: RateBudget, clock: Clock, conn: Conn
) -> None:
    def meanwhile() -> None:
        conn.execute("UPDATE rdstation_rate_limits SET calls = calls || calls || calls")

    spend_slowly(budget, clock, meanwhile=meanwhile)
    clock.advance(WINDOW_S - 7)
    assert spend(budget, ALLOWED) == ALLOWED - 1


def spend_slowly(
    budget: RateBudget, clock: Clock, *, fails: bool = False, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Make a call that takes 14 seconds."""

    def slow() -> ApiResponse:
        meanwhile()
        clock.advance(14)
        # It is the real time that tells how long a call took.
        Event().wait(1.1)
        if fails:
            raise ConnectionError
        return response()()

    assert budget.spend("default", slow).status == 200


@pytest.mark.parametrize("status", [200, 429])
def test_a_database_that_is_down_after_the_call_takes_no_answer_away(
    services: Services, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    budget = RateBudget(services.pool, ALLOWED)

    def call() -> ApiResponse:
        Event().wait(1.1)
        monkeypatch.setattr(rate_budget, "transaction", _is_down)
        return response(status)()

    assert budget.spend("default", call).status == status
    budget.count("default")


def _is_down(_pool: object) -> Any:
    raise psycopg.OperationalError("the database is down")


def test_a_retry_after_that_is_a_date_counts_from_the_date_of_the_answer(budget: RateBudget) -> None:
    told = response(429, Date="Wed, 25 Nov 2026 10:00:00 GMT", Retry_After="Wed, 25 Nov 2026 10:00:40 GMT")
    budget.spend("default", told)
    assert 38 <= wait_s(budget) <= 40


def test_the_day_of_a_single_contact_closes_nothing_for_the_others(budget: RateBudget) -> None:
    budget.spend("default", response(429, Retry_After="40000"), limit="contact")
    assert spend(budget) == 1
    budget.spend("default", response(429, Retry_After="30"), limit="contact")
    assert spend(budget) == 0


def test_lists_of_segmentations_have_their_own_limit(services: Services, conn: Conn) -> None:
    budget = RateBudget(services.pool, 500)
    budget.spend("default", response(), limit="segmentations", timeout_s=0)
    conn.execute("UPDATE rdstation_rate_limits SET calls = array_fill(rd_now(), %s)", [[SEGMENTATION_LISTS]])
    with pytest.raises(TooManyRequests):
        budget.spend("default", response(), limit="segmentations", timeout_s=0)
    assert spend(budget) == 1


def test_a_429_closes_its_class_alone(budget: RateBudget) -> None:
    budget.spend("default", response(429, Retry_After="30"), limit="segmentations")
    assert spend(budget) == 1
    with pytest.raises(TooManyRequests):
        budget.spend("default", response(), limit="segmentations", timeout_s=0)


def test_the_state_of_each_class_is_told(services: Services, budget: RateBudget, conn: Conn) -> None:
    spend(budget, 3)
    budget.spend("default", response(429, Retry_After="30"), limit="segmentations")
    told = rate_budget.states(conn, ["default", "another"])
    assert told.keys() == {"default"}
    assert told["default"]["account"] == rate_budget.State(spent=3, closed_for_s=0)
    assert told["default"]["segmentations"].spent == 1
    assert 28 <= told["default"]["segmentations"].closed_for_s <= 30


def test_no_connection_is_held_while_somebody_waits(services: Services, clock: Clock) -> None:
    budget = RateBudget(services.pool, ALLOWED)
    spend(budget, ALLOWED)
    clock.advance(WINDOW_S - 1)

    def pause(_seconds: float) -> None:
        assert services.pool.get_stats()["pool_available"] == services.pool.get_stats()["pool_size"]

    def call() -> ApiResponse:
        pause(0)
        return response()()

    budget.spend("default", call, pause=pause)
