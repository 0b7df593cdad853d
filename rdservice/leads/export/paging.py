"""Reads a list in reverse while its pages shift. No call, no clock: `read` returns a page.

RD Station numbers pages and has no cursor. In the order of creation, new leads come at the end, and a lead that leaves
the list shifts all later leads towards the beginning. The pager therefore reads the pages from the last to the first.
It meets a lead that shifts towards the beginning a second time, recognizes it by its position, and misses none. It
could miss a lead that shifts towards the end, past the page that it reads next. That happens only when an older lead
enters the list, and then the list's total rises. In that case the pager reads the page above once more, until it has
read a page and the one below it without a rise in between.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

PAGE_SIZE = 125
"""The largest page size that RD Station documents."""
MOST_REREADS = 50
"""How many pages in a row are read again before the pager gives up with Unsettled."""


class Position(NamedTuple):
    """The position of a lead in the order of an export, from the newest to the oldest."""

    created_at: datetime
    uuid: str


@dataclass(frozen=True, slots=True)
class Lead:
    """A lead in a list: its position, and its members as RD Station lists them."""

    position: Position
    listed: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Page:
    """A page: its leads from the oldest to the newest, and the total of the list when the page was read."""

    leads: tuple[Lead, ...]
    total: int


class Unsettled(Exception):
    """The list changes faster than it can be read."""


class ReversePager:
    """Yields the leads of a list from the newest to the oldest. Iterate over it once.

    It yields every lead that stays in the list throughout exactly once, and no lead twice. It may or may not yield a
    lead that enters or leaves meanwhile; it mostly leaves out a lead that is created meanwhile.
    """

    def __init__(
        self, read: Callable[[int], Page], *, after: Position | None = None, only_new_ones_enter: bool
    ) -> None:
        """`read` takes a page number, from 1, and returns that page in the order of creation.

        `after`: yield only leads after this position, where an earlier export ended. `only_new_ones_enter`: a lead
        enters the list at its creation, and never later.
        """
        self._read = read
        self._after = after
        self._only_new_ones_enter = only_new_ones_enter
        # The last position that was yielded, or `after`.
        self._passed = after
        # The oldest position that was read, or `after`.
        self._reached = after
        # Leads that were read but not yielded: the next page may have leads created at the same time.
        self._held: dict[str, Lead] = {}
        self.expected = 0
        """Approximate number of leads to yield, known once the first page has been read."""

    def __iter__(self) -> Iterator[list[Lead]]:
        """Yield the new leads of each page. Raises Unsettled and what `read` raises."""
        number, page = self._start()
        lowest, rereads, total_above = number, 0, None
        while True:
            if self._continues(number, page, total_above):
                yield self._take(page, last=number == 1)
                if number == 1:
                    return
                total_above = page.total
                # If many leads have left, the pages in between are empty.
                number = min(number - 1, _last_page(page.total))
            else:
                number += 1
                total_above = None
                rereads += 1
            if number < lowest:
                lowest, rereads = number, 0
            if rereads > MOST_REREADS:
                raise Unsettled
            page = self._read(number)

    def _start(self) -> tuple[int, Page]:
        """Return the number of the first page to read, and the page."""
        first = self._read(1)
        last = _last_page(first.total)
        number = last if self._after is None else self._search(self._after, last)
        self.expected = min(number * PAGE_SIZE, first.total)
        return number, first if number == 1 else self._read(number)

    def _search(self, after: Position, last: int) -> int:
        """Return the number of the page after the last one that begins before `after`, at most `last`."""
        low, high = 1, last
        while low < high:
            middle = (low + high + 1) // 2
            page = self._read(middle)
            if page.leads and page.leads[0].position < after:
                low = middle
            else:
                high = middle - 1
        return min(low + 1, last)

    def _continues(self, number: int, page: Page, total_above: int | None) -> bool:
        """Return whether `page` continues the pages read before, so that no lead in between can be missing."""
        if number >= _last_page(page.total):
            return True
        if self._reached is None:
            return False
        if self._only_new_ones_enter or (total_above is not None and page.total <= total_above):
            return True
        return any(
            lead.position.created_at > self._reached.created_at or lead.position == self._reached
            for lead in page.leads
        )

    def _take(self, page: Page, *, last: bool) -> list[Lead]:
        """Return the leads of `page`, and those held back so far, that can be yielded now, the newest first."""
        for lead in page.leads:
            if self._passed is None or lead.position < self._passed:
                self._held[lead.position.uuid] = lead
            self._reached = min(self._reached or lead.position, lead.position)
        if last:
            ready = list(self._held.values())
        elif page.leads:
            oldest = page.leads[0].position.created_at
            ready = [lead for lead in self._held.values() if lead.position.created_at > oldest]
        else:
            ready = []
        ready.sort(key=lambda lead: lead.position, reverse=True)
        for lead in ready:
            del self._held[lead.position.uuid]
        if ready:
            self._passed = ready[-1].position
        return ready


def _last_page(total: int) -> int:
    return max(1, -(-total // PAGE_SIZE))
