"""The list of accounts for operators: one page at a time, accounts that need attention first."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import psycopg
from psycopg.rows import class_row

from rdservice.tokens.store import LIST, AccountState

State = Literal[
    "reauthorization_required", "expired", "credentials_refused", "failing", "unverified", "connected"
]
"""A status, or `failing`: connected, but the last refresh failed and will be repeated. Most urgent first."""

STATES: tuple[State, ...] = get_args(State)

# Written out, because PostgreSQL's case folding depends on the database's locale.
SAME_LETTERS = ("aáàâãäå", "cç", "eéèêë", "iíìîï", "nñ", "oóòôõö", "uúùûü", "yýÿ")

# Without the long encrypted columns, which a sort of all accounts would carry along.
FOUND = """
WITH found AS (
    SELECT account_id, lower(COALESCE(name, account_id)) AS sort_name,
           CASE WHEN status = 'connected' AND expires_at <= rd_now() THEN 'expired'
                WHEN status = 'connected' AND last_error IS NOT NULL THEN 'failing' ELSE status END AS state
      FROM rdstation_tokens
     WHERE %(pattern)s::text IS NULL OR account_id ~ %(pattern)s OR name ~ %(pattern)s)"""
COUNT = f"{FOUND} SELECT state, count(*) FROM found GROUP BY state"  # noqa: S608 - a text of this module
PAGE = f"""{FOUND},
page AS (
    SELECT account_id, array_position(%(states)s::text[], state) AS place, sort_name
      FROM found WHERE %(state)s::text IS NULL OR state = %(state)s
     ORDER BY place, sort_name, account_id LIMIT %(limit)s OFFSET %(offset)s)
{LIST} JOIN page USING (account_id) ORDER BY place, sort_name, account_id
"""  # noqa: S608 - only texts of these modules


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of the list. `number` starts at 1; it is the last page if the caller asked for a later one."""

    accounts: list[AccountState]
    number: int
    pages: int


def state_of(account: AccountState) -> State:
    """Return the state under which the list shows the account."""
    if account.status == "connected" and account.last_error is not None:
        return "failing"
    return account.status


def count(conn: psycopg.Connection[Any], *, text: str = "") -> dict[State, int]:
    """Return the number of accounts in each state, counting those whose ID or name contains `text`.

    Case and accents do not matter. The cost grows with the number of accounts: 10 ms for 10,000.
    """
    found = dict(conn.execute(COUNT, {"pattern": _pattern(text)}).fetchall())
    return {state: found.get(state, 0) for state in STATES}


def read(
    conn: psycopg.Connection[Any],
    *,
    counts: Mapping[State, int],
    text: str = "",
    state: State | None = None,
    number: int = 1,
    size: int,
) -> Page:
    """Return a page of the accounts that contain `text`, in one state or in any (None).

    `counts` is the result of `count` for the same text.
    """
    pages = max(1, -(-(sum(counts.values()) if state is None else counts[state]) // size))
    number = min(number, pages)
    values = {
        "pattern": _pattern(text),
        "state": state,
        "states": list(STATES),
        "limit": size,
        "offset": (number - 1) * size,
    }
    with conn.cursor(row_factory=class_row(AccountState)) as cur:
        accounts = cur.execute(PAGE.encode(), values).fetchall()
    return Page(accounts=accounts, number=number, pages=pages)


def _pattern(text: str) -> str | None:
    """Return PostgreSQL's regular expression for `text` in any case, with or without accents; None for empty text."""
    return "".join(_class(letter) for letter in text) or None


def _class(letter: str) -> str:
    if letter.isascii() and not letter.isalnum():
        return f"\\{letter}"
    same = next((letters for letters in SAME_LETTERS if letter.lower() in letters), letter.lower())
    return f"[{''.join(dict.fromkeys(letter + same + same.upper()))}]"
