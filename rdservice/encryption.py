"""Encrypts stored values in the form `keyid.Fernet(json [column, account_id, value])`.

`keyid` is the first 8 hexadecimal digits of a hash of the key. It distinguishes a value whose key is missing from a
damaged one. Column and account ID inside bind the value to its place: moved to another row or column, it is unreadable.
Fernet: https://cryptography.io/en/latest/fernet/
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg
from cryptography.fernet import Fernet, InvalidToken

from rdservice.names import account_in_logs

ENCRYPTED = r"^[0-9a-f]{8}\.gAAAA"
"""Regular expression, for PostgreSQL and Python, that encrypted values match and plain tokens never do."""


class KeyMissing(Exception):
    """The value was encrypted with a key that is not in TOKEN_ENCRYPTION_KEYS."""


class ValueDamaged(Exception):
    """The value is not an intact encrypted value of this column and account."""


class KeyRing:
    """Encrypts with the first key; decrypts with the key that the value names."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """`keys` are Fernet keys (32 bytes in urlsafe base64), the one for encryption first."""
        self._keys = {key_id(key): key for key in keys}
        self._fernets = {key_id(key): Fernet(key) for key in keys}
        self._first_id = key_id(keys[0])

    @property
    def key_ids(self) -> list[str]:
        """The IDs of all keys, that of the key for encryption first."""
        return list(self._fernets)

    def encrypt(self, column: str, account_id: str, value: str) -> str:
        """Return the value encrypted with the first key, bound to the column and the account."""
        bound = json.dumps([column, account_id, value]).encode()
        return f"{self._first_id}.{self._fernets[self._first_id].encrypt(bound).decode()}"

    def keyed_hashes(self, purpose: str, value: str) -> list[str]:
        """Return a hash of the value under each key, as `keyid.` and 32 hexadecimal digits of an HMAC-SHA-256.

        The hash under the key for encryption is first. Without the key nobody can test whether it is the hash of a
        given value. `purpose` separates the hashes of different uses of the keys.
        """
        message = f"rdservice {purpose}\0{value}".encode()
        return [
            f"{used_id}.{hmac.digest(key, message, hashlib.sha256).hex()[:32]}"
            for used_id, key in self._keys.items()
        ]

    def matches(self, purpose: str, keyed_hash: str, value: str) -> bool:
        """Return whether `keyed_hash` is the hash of this value for this purpose; False when its key is missing."""
        hashes = self.keyed_hashes(purpose, value)
        return any(hmac.compare_digest(keyed_hash.encode(), known.encode()) for known in hashes)

    def decrypt(self, column: str, account_id: str, stored: str) -> str:
        """Return the decrypted value. Raises KeyMissing or ValueDamaged; their messages contain no part of it."""
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
    """Return the ID of a Fernet key: 8 hexadecimal digits that do not reveal the key."""
    return hashlib.sha256(b"rdservice key id\0" + key).hexdigest()[:8]


def key_id_of(stored: str) -> str | None:
    """Return the ID of the key that a stored value names, or None if the value is not encrypted."""
    return stored.partition(".")[0] if re.match(ENCRYPTED, stored) else None


Place = str | bytes
"""A row's primary key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptedRow:
    """Encrypted values of a row, by the column to which each is bound.

    `left_out`: the number of the row's values that `EncryptedTable.page` left out.
    """

    place: Place
    account_id: str
    values: Mapping[str, str] = field(repr=False)
    left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """New ciphertexts for some of a row's values; None deletes a value."""

    row: EncryptedRow
    values: Mapping[str, str | None] = field(repr=False)


class EncryptedTable(Protocol):
    """Access to a table's encrypted values for the inventory and rotation of keys. The table's owner implements it."""

    @property
    def name(self) -> str: ...

    @property
    def disposable(self) -> bool:
        """Whether an unreadable value may be deleted because it can be fetched again."""

    def count(self, conn: psycopg.Connection[Any]) -> int:
        """Return the number of rows."""

    def page(
        self, conn: psycopg.Connection[Any], *, after: Place | None, limit: int, leave_out: str | None
    ) -> list[EncryptedRow]:
        """Return up to `limit` rows after `after`, in the order of their places.

        Leaves out values encrypted with the key `leave_out`. If there are fewer than `limit` rows, no more follow.
        """

    def replace(self, conn: psycopg.Connection[Any], replacements: Sequence[Replacement]) -> int:
        """Replace values that are still unchanged, and nothing else in the rows; return the number of rows changed.

        It never waits for a lock: it skips rows that are locked or whose values have changed.
        """
