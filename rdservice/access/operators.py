"""Operators: the people who log in. Owns `rdservice_operators`."""

import re
import unicodedata
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

from rdservice.errors import InvalidField
from rdservice.names import is_readable
from rdservice.text.catalogue import message

MAX_EMAIL_LENGTH = 254
"""RFC 5321, section 4.5.3.1.3, less the angle brackets."""

CREATE = """
INSERT INTO rdservice_operators (email, password_hash)
VALUES (%(email)s, %(password_hash)s)
ON CONFLICT (email) DO NOTHING
RETURNING operator_id::text, email, created_at, password_changed_at
"""

FIND_CREDENTIALS = """
SELECT operator_id::text, email, password_hash FROM rdservice_operators WHERE email = %(email)s
"""

LIST = """
SELECT operator_id::text, email, created_at, password_changed_at FROM rdservice_operators ORDER BY email
"""

UPDATE_CREDENTIALS = """
UPDATE rdservice_operators
   SET password_hash = %(password_hash)s, password_changed_at = rd_now()
 WHERE email = %(email)s
RETURNING operator_id::text
"""

# Replaces only the hash that was verified, so that a password reset in between wins.
REPLACE_HASH = """
UPDATE rdservice_operators
   SET password_hash = %(new_hash)s
 WHERE operator_id = %(operator_id)s AND password_hash = %(verified_hash)s
"""

REPLACE_CREDENTIALS = """
UPDATE rdservice_operators
   SET password_hash = %(new_hash)s, password_changed_at = rd_now()
 WHERE operator_id = %(operator_id)s AND password_hash = %(verified_hash)s
"""

REMOVE = "DELETE FROM rdservice_operators WHERE email = %(email)s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """A person who may log in."""

    operator_id: str
    email: str = field(repr=False)
    created_at: datetime
    password_changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The stored hash that a log-in is verified against."""

    operator_id: str
    email: str = field(repr=False)
    password_hash: str = field(repr=False)


def normalize_email(email: str) -> str:
    """Return `email` as it is stored: stripped, composed (Unicode NFC), in lower case.

    Raises InvalidField when it is not an e-mail address.
    """
    normalized = unicodedata.normalize("NFC", email.strip()).lower()
    plausible = re.fullmatch(r"[^@\s]+@[^@\s]+", normalized) and is_readable(normalized)
    if not plausible or len(normalized) > MAX_EMAIL_LENGTH:
        raise InvalidField(
            message("The e-mail must be an address such as name@example.com."), extra={"field": "email"}
        )
    return normalized


def create(conn: Connection[Any], email: str, password_hash: str) -> Operator | None:
    """Create an operator and return it; None when an operator has this e-mail already.

    Raises InvalidField when `email` is not an e-mail address.
    """
    with conn.cursor(row_factory=class_row(Operator)) as cursor:
        values = {"email": normalize_email(email), "password_hash": password_hash}
        return cursor.execute(CREATE, values).fetchone()


def find_credentials(conn: Connection[Any], email: str) -> Credentials | None:
    """Return the credentials of the operator with this e-mail; None when there is none or `email` is not an address."""
    try:
        normalized = normalize_email(email)
    except InvalidField:
        return None
    with conn.cursor(row_factory=class_row(Credentials)) as cursor:
        return cursor.execute(FIND_CREDENTIALS, {"email": normalized}).fetchone()


def list_all(conn: Connection[Any]) -> list[Operator]:
    """Return all operators, ordered by e-mail."""
    with conn.cursor(row_factory=class_row(Operator)) as cursor:
        return cursor.execute(LIST).fetchall()


def reset_password(conn: Connection[Any], email: str, password_hash: str) -> str | None:
    """Replace the password and return the operator's id; None when no operator has this e-mail.

    The caller ends the operator's sessions in the same transaction (`sessions.end_all`).
    """
    values = {"email": normalize_email(email), "password_hash": password_hash}
    row = conn.execute(UPDATE_CREDENTIALS, values).fetchone()
    return None if row is None else str(row[0])


def change_password(conn: Connection[Any], operator_id: str, *, verified_hash: str, new_hash: str) -> bool:
    """Replace the password whose hash was verified; return False when it has changed since.

    The caller ends the operator's sessions in the same transaction (`sessions.end_all`).
    """
    values = {"operator_id": operator_id, "verified_hash": verified_hash, "new_hash": new_hash}
    return conn.execute(REPLACE_CREDENTIALS, values).rowcount > 0


def replace_hash(conn: Connection[Any], operator_id: str, *, verified_hash: str, new_hash: str) -> None:
    """Store the same password under newer hash parameters, unless the password has changed since it was verified."""
    values = {"operator_id": operator_id, "verified_hash": verified_hash, "new_hash": new_hash}
    conn.execute(REPLACE_HASH, values)


def remove(conn: Connection[Any], email: str) -> bool:
    """Remove the operator and all of their sessions; return whether the operator existed."""
    return conn.execute(REMOVE, {"email": normalize_email(email)}).rowcount > 0
