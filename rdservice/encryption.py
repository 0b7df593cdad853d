"""Encryption of stored values: `keyid.Fernet(json [column, account_id, value])`.

`keyid` is the first 8 hexadecimal digits of a hash of the key, so that a value whose key is missing is told apart from
a damaged one; the column and account inside make a value that was moved from another row or column unreadable.
Fernet: https://cryptography.io/en/latest/fernet/
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg
from cryptography.fernet import Fernet, InvalidToken

from rdservice.names import account_in_logs

ENCRYPTED = r"^[0-9a-f]{8}\.gAAAA"
"""Regular expression (PostgreSQL and Python) of an encrypted value; a plain token never matches it."""


class KeyMissing(Exception):
    """The value was encrypted with a key that is not in TOKEN_ENCRYPTION_KEYS."""


class ValueDamaged(Exception):
    """The value is no intact encrypted value of this column and account."""


class KeyRing:
    """Encrypts with the first key, decrypts with whichever key a value names."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Take Fernet keys (32 bytes in urlsafe base64), the encrypting one first."""
        self._fernets = {key_id(key): Fernet(key) for key in keys}
        self._first_id = key_id(keys[0])

    @property
    def key_ids(self) -> list[str]:
        """The ids of all keys, the encrypting one first."""
        return list(self._fernets)

    def encrypt(self, column: str, account_id: str, value: str) -> str:
        bound = json.dumps([column, account_id, value]).encode()
        return f"{self._first_id}.{self._fernets[self._first_id].encrypt(bound).decode()}"

    def decrypt(self, column: str, account_id: str, stored: str) -> str:
        """Return the value, or raise KeyMissing or ValueDamaged. Neither message holds any of it."""
        used_id = key_id_of(stored)
        if used_id is None:
            raise ValueDamaged(f"{column} of account {account_in_logs(account_id)} is not encrypted")
        ciphertext = stored.partition(".")[2]
        fernet = self._fernets.get(used_id)
        if fernet is None:
            raise KeyMissing(
                f"{column} of account {account_in_logs(account_id)} needs key {used_id},"
                " which TOKEN_ENCRYPTION_KEYS lacks"
            )
        try:
            bound = json.loads(fernet.decrypt(ciphertext.encode()))
        except (InvalidToken, ValueError, RecursionError):
            raise ValueDamaged(f"{column} of account {account_in_logs(account_id)} is damaged") from None
        if not isinstance(bound, list) or bound[:2] != [column, account_id] or len(bound) != 3:
            raise ValueDamaged(
                f"{column} of account {account_in_logs(account_id)} belongs to another row or column"
            )
        return str(bound[2])


def key_id(key: bytes) -> str:
    """Return the id of a Fernet key: 8 hexadecimal digits, which tell nothing of the key."""
    return hashlib.sha256(b"rdservice key id\0" + key).hexdigest()[:8]


def key_id_of(stored: str) -> str | None:
    """Return the id of the key that a stored value names; None for what is no encrypted value at all."""
    return stored.partition(".")[0] if re.match(ENCRYPTED, stored) else None


Place = str | bytes
"""A row's primary key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptedRow:
    """Encrypted values of a row, by the column that each is bound to.

    `left_out`: how many more it has, under the key that the reader did not ask about.
    """

    place: Place
    account_id: str
    values: Mapping[str, str] = field(repr=False)
    left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """New ciphertexts for some of a row's values, or None for a value that is to be deleted."""

    row: EncryptedRow
    values: Mapping[str, str | None] = field(repr=False)


class EncryptedTable(Protocol):
    """A table with encrypted values, as the module that owns it lets them be looked through and replaced."""

    @property
    def name(self) -> str: ...

    @property
    def disposable(self) -> bool:
        """Whether a value that cannot be read may be deleted, since it can be had again."""

    def count(self, conn: psycopg.Connection[Any]) -> int:
        """Return how many rows there are."""

    def page(
        self, conn: psycopg.Connection[Any], *, after: Place | None, limit: int, leave_out: str | None
    ) -> list[EncryptedRow]:
        """Return the next rows after `after`, in the order of their places, without values under the key `leave_out`.

        Fewer than `limit` rows: there are no more.
        """

    def replace(self, conn: psycopg.Connection[Any], replacements: Sequence[Replacement]) -> int:
        """Replace values that still stand there, and nothing else of the rows; return in how many rows.

        Waits for no lock: a row that is locked, or whose values have changed, is left as it is.
        """
