"""The list of accounts on the overview: query, rows, filters and paging."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from rdservice import errors
from rdservice.names import is_readable
from rdservice.tokens.listing import STATES, Page, State
from rdservice.web.http.context import query_text
from rdservice.web.pages.overview.cards import TONES
from rdservice.web.text.datetimes import number_words
from rdservice.web.text.languages import gettext
from rdservice.web.text.status_texts import state_words

PAGE_SIZE = 25
LONGEST_TEXT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The query of this request. `text` is empty and `state` None for all accounts."""

    text: str
    state: State | None
    page: int

    def link(self, *, state: State | None, page: int = 1) -> str:
        """Return the URL for the same text with another state or page."""
        query = {"q": self.text, "state": state, "page": page if page > 1 else None}
        given = {name: value for name, value in query.items() if value}
        return f"/?{urlencode(given)}" if given else "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A link to the accounts in one state, or to all accounts."""

    words: str
    tone: str | None
    number: str
    link: str
    current: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """Links to the previous and next pages, and the position of this one. A link is empty if there is no such page."""

    previous: str | None
    next: str | None
    where: str


def asked() -> Asked:
    """Return the query of this request. Raises InvalidField."""
    text = (query_text("q") or "").strip()
    if len(text) > LONGEST_TEXT or not is_readable(text):
        raise errors.InvalidField(
            f"q must have {LONGEST_TEXT} printable characters at the most.", extra={"field": "q"}
        )
    state = query_text("state") or None
    if state is not None and state not in STATES:
        raise errors.InvalidField(f"state must be one of {', '.join(STATES)}.", extra={"field": "state"})
    page = query_text("page") or "1"
    if not re.fullmatch(r"[1-9][0-9]{0,5}", page):
        raise errors.InvalidField("page must be a number from 1.", extra={"field": "page"})
    return Asked(text=text, state=state, page=int(page))


def filters(wanted: Asked, counts: Mapping[State, int]) -> list[Filter]:
    """Return a link to all accounts, then one for each state that occurs."""
    every = Filter(
        words=gettext("All"),
        tone=None,
        number=number_words(sum(counts.values())),
        link=wanted.link(state=None),
        current=wanted.state is None,
    )
    return [every] + [
        Filter(
            words=state_words(state),
            tone=TONES[state],
            number=number_words(number),
            link=wanted.link(state=state),
            current=wanted.state == state,
        )
        for state, number in counts.items()
        if number or wanted.state == state
    ]


def around(wanted: Asked, found: Page) -> Around | None:
    """Return the links around this page; None if it is the only page."""
    if found.pages == 1:
        return None
    return Around(
        previous=wanted.link(state=wanted.state, page=found.number - 1) if found.number > 1 else None,
        next=wanted.link(state=wanted.state, page=found.number + 1) if found.number < found.pages else None,
        where=gettext(
            "Page %(page)s of %(pages)s", page=number_words(found.number), pages=number_words(found.pages)
        ),
    )
