"""An export of a list that changes while it is read: nothing twice, and nothing missed of what stays."""

from __future__ import annotations

import bisect
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdservice.leads.export.paging import PAGE_SIZE, Lead, Page, Position, ReversePager, Unsettled

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class ListOfLeads:
    """RD Station's list, ordered by creation. `change` is called before each reading."""

    def __init__(self, moments: list[int], dice: random.Random) -> None:
        self.dice = dice
        self.reads = 0
        self.change: Callable[[], None] = lambda: None
        self.clock = 0
        self._leads: list[Position] = []
        for moment in sorted(moments):
            self.insert(moment)
        self.stayed = set(self._leads)

    def __len__(self) -> int:
        return len(self._leads)

    def insert(self, moment: int) -> None:
        self.clock = max(self.clock, moment)
        uuid = str(UUID(int=self.dice.getrandbits(128)))
        # The order within a moment is RD Station's matter; here it is that of the entry.
        lead = Position(BEGIN + timedelta(seconds=moment), uuid)
        bisect.insort_right(self._leads, lead, key=lambda other: other.created_at)

    def remove(self, index: int) -> None:
        self.stayed.discard(self._leads.pop(index))

    def read(self, number: int) -> Page:
        self.change()
        self.reads += 1
        start = (number - 1) * PAGE_SIZE
        leads = tuple(Lead(position, {}) for position in self._leads[start : start + PAGE_SIZE])
        return Page(leads, len(self._leads))


def exported(
    found: ListOfLeads, *, only_new_ones_enter: bool, breaks_after: int | None = None
) -> list[Position]:
    """Export the list; with `breaks_after` the way breaks off after so many leads each time, and goes on there."""
    given_out: list[Position] = []
    while True:
        after = given_out[-1] if given_out else None
        begun = len(given_out)
        pager = ReversePager(found.read, after=after, only_new_ones_enter=only_new_ones_enter)
        for batch in pager:
            for lead in batch:
                given_out.append(lead.position)
                if breaks_after is not None and len(given_out) - begun == breaks_after:
                    break
            else:
                continue
            break
        else:
            return given_out


def check(found: ListOfLeads, given_out: list[Position]) -> None:
    assert len(set(given_out)) == len(given_out), "a lead was exported twice"
    assert not found.stayed - set(given_out), "a lead was missed"
    assert given_out == sorted(given_out, reverse=True)


LISTS = {
    "size": st.one_of(
        st.integers(0, 5 * PAGE_SIZE), st.sampled_from([PAGE_SIZE, 2 * PAGE_SIZE, 4 * PAGE_SIZE])
    ),
    "spread": st.sampled_from([1, 3, 50, 10_000]),
    "breaks_after": st.one_of(st.none(), st.integers(60, 300)),
    "seed": st.integers(0, 2**32),
}


@given(**LISTS, removals=st.integers(0, 40), created=st.integers(0, 40))
def test_whatever_leaves_and_is_created_what_stays_is_exported_exactly_once(
    size: int, spread: int, breaks_after: int | None, seed: int, removals: int, created: int
) -> None:
    dice = random.Random(seed)  # noqa: S311 - no secret
    found = ListOfLeads([dice.randrange(max(1, size * spread)) for _ in range(size)], dice)

    def change() -> None:
        for _ in range(dice.randint(0, removals)):
            if len(found):
                found.remove(dice.randrange(len(found)))
        for _ in range(dice.randint(0, created)):
            found.insert(found.clock + dice.randint(1, 3))

    found.change = change
    check(found, exported(found, only_new_ones_enter=True, breaks_after=breaks_after))


@given(**LISTS, how_often=st.sampled_from([0.0, 0.1, 0.5]))
def test_when_older_leads_enter_as_well_what_stays_is_exported_exactly_once(
    size: int, spread: int, breaks_after: int | None, seed: int, how_often: float
) -> None:
    dice = random.Random(seed)  # noqa: S311 - no secret
    moments = max(1, size * spread) + 50
    found = ListOfLeads(dice.sample(range(moments), size), dice)
    free = moments

    def change() -> None:
        nonlocal free
        if dice.random() > how_often:
            return
        if len(found) and dice.random() < 0.5:
            for _ in range(dice.randint(1, 3)):
                found.remove(dice.randrange(len(found))) if len(found) else None
        else:
            for _ in range(dice.choice([1, 2, 200])):
                free += 1
                found.insert(dice.choice([dice.randrange(moments), free]))

    found.change = change
    check(found, exported(found, only_new_ones_enter=False, breaks_after=breaks_after))


@pytest.mark.parametrize("size", [0, 1, PAGE_SIZE, PAGE_SIZE + 1, 20 * PAGE_SIZE])
def test_a_list_that_stands_still_is_read_once(size: int) -> None:
    found = ListOfLeads(list(range(size)), random.Random(1))  # noqa: S311 - no secret
    assert len(exported(found, only_new_ones_enter=False)) == size
    pages = max(1, -(-size // PAGE_SIZE))
    assert found.reads <= pages + (pages > 1)


def test_an_export_goes_on_in_the_middle_with_few_readings() -> None:
    found = ListOfLeads(list(range(256 * PAGE_SIZE)), random.Random(1))  # noqa: S311 - no secret
    pager = iter(
        ReversePager(
            found.read, after=Position(BEGIN + timedelta(seconds=20_000), ""), only_new_ones_enter=True
        )
    )
    first = next(batch for batch in pager if batch)[0]
    assert first.position.created_at == BEGIN + timedelta(seconds=19_999)
    assert found.reads <= 12


def test_a_list_that_changes_faster_than_it_is_read_is_given_up() -> None:
    found = ListOfLeads(list(range(4 * PAGE_SIZE)), random.Random(1))  # noqa: S311 - no secret

    def change() -> None:
        for _ in range(2 * PAGE_SIZE):
            found.insert(1)

    found.change = change
    with pytest.raises(Unsettled):
        exported(found, only_new_ones_enter=False)
