"""Encryption of stored values: `keyid.Fernet(json [column, account_id, value])`.

`keyid` is the first 8 hexadecimal digits of a hash of the key, so that a value whose key is missing is told apart from
a damaged one; the column and account inside make a value that was moved from another row or column unreadable.
Fernet: https://cryptography.io/en/latest/fernet/
"""

import hashlib
import json
import re
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken

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
        if not re.match(ENCRYPTED, stored):
            raise ValueDamaged(f"{column} of account {account_id!r} is not encrypted")
        used_id, ciphertext = stored.split(".", 1)
        fernet = self._fernets.get(used_id)
        if fernet is None:
            raise KeyMissing(
                f"{column} of account {account_id!r} needs key {used_id}, which TOKEN_ENCRYPTION_KEYS lacks"
            )
        try:
            bound = json.loads(fernet.decrypt(ciphertext.encode()))
        except (InvalidToken, ValueError):
            raise ValueDamaged(f"{column} of account {account_id!r} is damaged") from None
        if not isinstance(bound, list) or bound[:2] != [column, account_id] or len(bound) != 3:
            raise ValueDamaged(f"{column} of account {account_id!r} belongs to another row or column")
        return str(bound[2])


def key_id(key: bytes) -> str:
    """Return the id of a Fernet key: 8 hexadecimal digits, which tell nothing of the key."""
    return hashlib.sha256(b"rdservice key id\0" + key).hexdigest()[:8]
