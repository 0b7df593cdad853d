"""The order in which an export reads a list whose pages move while it is read. No call, no clock: `read` gives a page.

RD Station numbers pages and has no cursor. Ordered by creation, new leads come at the end, and a lead that leaves moves
all later ones towards the beginning. So the pages are read from the last to the first, one after the other: what moves
towards the beginning is met once more (and is known, because its time of creation has been passed), and never missed.
What moves towards the end, past the page that is read next, could be missed: that happens only when an older lead
enters the list, and then the list's total rises. The page above is read once more in that case, until a page and the
one below it were read without a rise between them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

PAGE_SIZE = 125
"""Documented: the most that RD Station gives at once."""
MOST_REREADS = 50
"""How often pages are read again before an export gives up on a list that changes faster than it can be read."""


class Position(NamedTuple):
    """A place in the order of an export, which goes from the newest to the oldest."""

    created_at: datetime
    uuid: str


@dataclass(frozen=True, slots=True)
class Lead:
    """A lead as it stands in a list."""

    position: Position
    listed: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Page:
    """`leads` from the oldest to the newest, and how many the whole list had when it was read."""

    leads: tuple[Lead, ...]
    total: int


class Unsettled(Exception):
    """The list changes faster than it can be read."""


class ReversePager:
    """Gives out the leads of a list from the newest to the oldest. One use only.

    Every lead that is in the list from the beginning to the end is given out exactly once, no lead twice. One that
    enters or leaves meanwhile may be given out or not; one that was created meanwhile is mostly left out.
    """

    def __init__(
        self, read: Callable[[int], Page], *, after: Position | None = None, only_new_ones_enter: bool
    ) -> None:
        """`read` gives a page by its number from 1, ordered by creation. `after`: the last lead given out before.

        `only_new_ones_enter`: leads come into the list when they are created, and never later.
        """
        self._read = read
        self._after = after
        self._only_new_ones_enter = only_new_ones_enter
        # What was given out, or is not wanted, is not older than this.
        self._passed = after
        # The oldest lead that was read or is not wanted.
        self._reached = after
        # Read, but not given out: others created at the same moment may be on the next page.
        self._held: dict[str, Lead] = {}
        self.expected = 0
        """About how many leads there are to give out, once the first page was read."""

    def __iter__(self) -> Iterator[list[Lead]]:
        """Yield what each page adds. Raises Unsettled and what `read` raises."""
        number, page = self._start()
        lowest, rereads, total_above = number, 0, None
        while True:
            if self._continues(number, page, total_above):
                yield self._take(page, last=number == 1)
                if number == 1:
                    return
                total_above = page.total
                # After many leads have left, the next pages may be empty.
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
        """Return the page to begin with, and its number."""
        first = self._read(1)
        last = _last_page(first.total)
        number = last if self._after is None else self._search(self._after, last)
        self.expected = min(number * PAGE_SIZE, first.total)
        return number, first if number == 1 else self._read(number)

    def _search(self, after: Position, last: int) -> int:
        """Return the page after the last one that begins before `after`, or that one where it is the last."""
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
        """Return whether no lead can have been missed between `page` and what was read before."""
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
        """Return what is new on `page`, the newest first, and what was held back until now."""
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
