"""Rules for account ids: the only place that says what an id may be."""

from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from rdservice.database.pool import transaction
from rdservice.errors import InvalidField
from rdservice.names import is_segment
from rdservice.text.catalogue import message
from rdservice.tokens import store

LONGEST_ACCOUNT_ID = 200

ID_LENGTH = message("account_id must be a string of 1 to %(most)s characters.")
ID_CHARACTERS = message(
    "account_id must contain printable characters only, no slash and no white space around it."
)

Pool = ConnectionPool[psycopg.Connection[Any]]


def check_new_account_id(value: object) -> str:
    """Return `value` if a new account may have it as its id, else raise InvalidField.

    Such an id has 1 to 200 printable characters, no slash and no white space around it, and is not `.` or `..`: it can
    be a segment of a URL path.
    """
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_ACCOUNT_ID:
        raise _invalid(ID_LENGTH, most=LONGEST_ACCOUNT_ID)
    if not is_segment(value):
        raise _invalid(ID_CHARACTERS)
    return value


def check_account_id(pool: Pool, value: object) -> str:
    """Return `value` if a new account may have it as its id, or a stored account has it, else raise InvalidField.

    Accounts of an older backend's table keep their ids, which may be any text.
    """
    try:
        return check_new_account_id(value)
    except InvalidField:
        if isinstance(value, str) and is_stored(pool, value):
            return value
        raise


def is_stored(pool: Pool, text: str) -> bool:
    """Return whether an account has exactly this id."""
    # PostgreSQL stores neither NUL nor what UTF-8 cannot encode.
    if "\0" in text or text != text.encode("utf-8", "replace").decode():
        return False
    with transaction(pool) as conn:
        return store.account_state(conn, text) is not None


def typed_account_id(pool: Pool, text: str) -> str:
    """Return the id in what a person has typed: without white space around it, unless an account has that in its id."""
    return text if is_stored(pool, text) else text.strip()


def _invalid(detail: str, **values: object) -> InvalidField:
    return InvalidField(detail, values=values, extra={"field": "account_id"})
