"""The calls of an account within a minute, counted for all processes together."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from rdservice import rate_budget
from rdservice.errors import TooManyRequests
from rdservice.rate_budget import RateBudget
from rdservice.rdstation import Answer
from rdservice.services import Services
from rdservice.settings import Settings
from tests.conftest import Clock

Conn = psycopg.Connection[Any]
ALLOWED = 10


def answer(status: int = 200, **headers: str) -> Callable[[], Answer]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda: Answer(operation="contacts_list", status=status, headers=named, body=b"")


def spend(budget: RateBudget, times: int = 1, account_id: str = "default") -> int:
    """Try to call so many times; return how often it was allowed."""
    allowed = 0
    for _ in range(times):
        try:
            budget.spend(account_id, answer())
        except TooManyRequests:
            continue
        allowed += 1
    return allowed


def wait_s(budget: RateBudget) -> float:
    """Return for how long the budget says that it is spent."""

    def never() -> Answer:
        raise AssertionError("the budget let a call through")

    with pytest.raises(TooManyRequests) as raised:
        budget.spend("default", never)
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
    assert 39 <= left <= 42
    clock.advance(left - 1.5)
    assert spend(budget) == 0
    clock.advance(2)
    assert spend(budget, 9) == 3


def test_a_lower_limit_than_what_was_spent_waits_until_enough_of_it_has_left(
    services: Services, budget: RateBudget, clock: Clock
) -> None:
    spend(budget, 5)
    clock.advance(20)
    spend(budget, 5)
    assert 58 <= wait_s(RateBudget(services.pool, 4)) <= 62


def test_accounts_have_budgets_of_their_own(budget: RateBudget) -> None:
    assert spend(budget, ALLOWED + 1) == ALLOWED
    assert spend(budget, ALLOWED + 1, "another") == ALLOWED


def test_a_429_closes_the_budget_for_as_long_as_rd_station_says(
    services: Services, budget: RateBudget, clock: Clock
) -> None:
    assert budget.spend("default", answer(429, Retry_After="30")).status == 429
    elsewhere = RateBudget(services.pool, ALLOWED)
    assert 28 <= wait_s(elsewhere) <= 30
    clock.advance(28)
    assert spend(elsewhere) == 0
    clock.advance(2.5)
    assert spend(elsewhere) == 1


def test_a_429_without_retry_after_closes_it_for_some_seconds(budget: RateBudget) -> None:
    budget.spend("default", answer(429))
    shortest, longest = rate_budget.CLOSED_WITHOUT_WORD_S
    assert shortest - 1 <= wait_s(budget) <= longest


def test_a_429_never_closes_it_for_longer_than_ten_minutes(budget: RateBudget) -> None:
    budget.spend("default", answer(429, Retry_After="86400"))
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
    clock.advance(3_000)
    spend(budget, 1, "b")
    assert rate_budget.prune(conn) == 0
    clock.advance(700)
    assert rate_budget.prune(conn) == 1
    assert conn.execute("SELECT account_id FROM rdstation_rate_budgets").fetchall() == [("b",)]


def test_a_row_holds_no_more_than_a_window(budget: RateBudget, clock: Clock, conn: Conn) -> None:
    for _ in range(100):
        clock.advance(1)
        budget.count("default")
    (seconds,) = conn.execute(
        "SELECT count(*) FROM rdstation_rate_budgets, jsonb_object_keys(calls)"
    ).fetchall()[0]
    assert seconds <= rate_budget.WINDOW_S
