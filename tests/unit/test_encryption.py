"""Encryption of stored values."""

import json
import re

import pytest
from cryptography.fernet import Fernet

from rdservice.encryption import ENCRYPTED, KeyMissing, KeyRing, ValueDamaged, key_id

OLD_KEY = b"b2xkLWtleS1vZi10aGUtdGVzdHMtMzItYnl0ZXMhISE="
NEW_KEY = b"bmV3LWtleS1vZi10aGUtdGVzdHMtMzItYnl0ZXMhISE="
VALUE = "planted-refresh-token"


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing([OLD_KEY])


@pytest.mark.parametrize(
    "value", ["", "x", "planted ção 漢字 😀", "a" * 20_000, '["json", "inside"]', "\ud800"]
)
def test_a_value_comes_back_as_it_was(ring: KeyRing, value: str) -> None:
    stored = ring.encrypt("access_token", "default", value)
    assert ring.decrypt("access_token", "default", stored) == value


def test_the_same_value_is_never_stored_the_same_way_twice(ring: KeyRing) -> None:
    assert ring.encrypt("access_token", "a", VALUE) != ring.encrypt("access_token", "a", VALUE)


def test_a_stored_value_has_the_documented_form(ring: KeyRing) -> None:
    stored = ring.encrypt("access_token", "default", VALUE)
    assert re.match(ENCRYPTED, stored)
    used, ciphertext = stored.split(".")
    assert used == key_id(OLD_KEY)
    assert json.loads(Fernet(OLD_KEY).decrypt(ciphertext)) == ["access_token", "default", VALUE]
    assert VALUE not in stored


def test_the_id_of_a_key_never_changes() -> None:
    # Rows of every deployment name their keys so: another value here means that none of them can be read any more.
    assert key_id(OLD_KEY) == "dd065e86"
    assert key_id(NEW_KEY) == "fd6e9d58"


def test_the_first_key_encrypts_and_each_key_decrypts(ring: KeyRing) -> None:
    old = ring.encrypt("access_token", "default", VALUE)
    both = KeyRing([NEW_KEY, OLD_KEY])
    new = both.encrypt("access_token", "default", VALUE)
    assert new.startswith(key_id(NEW_KEY))
    assert both.key_ids == [key_id(NEW_KEY), key_id(OLD_KEY)]
    assert both.decrypt("access_token", "default", old) == VALUE
    assert KeyRing([OLD_KEY, NEW_KEY]).decrypt("access_token", "default", new) == VALUE


def test_a_missing_key_is_told_apart_and_named(ring: KeyRing) -> None:
    stored = KeyRing([NEW_KEY]).encrypt("access_token", "default", VALUE)
    with pytest.raises(KeyMissing, match=f"needs key {key_id(NEW_KEY)}, which TOKEN_ENCRYPTION_KEYS lacks"):
        ring.decrypt("access_token", "default", stored)


def sealed(content: bytes) -> str:
    """Return something that was encrypted with the right key, but not by a key ring."""
    return f"{key_id(OLD_KEY)}.{Fernet(OLD_KEY).encrypt(content).decode()}"


def damaged(stored: str) -> dict[str, str]:
    return {
        "cut off": stored[:-10],
        "one character changed": stored[:60] + ("A" if stored[60] != "A" else "B") + stored[61:],
        "no ciphertext": stored[:16],
        "garbage in front": f"AAAA{stored}",
        "of another key": f"{stored[:9]}{KeyRing([NEW_KEY]).encrypt('access_token', 'a', VALUE)[9:]}",
        "not a list": sealed(b"{}"),
        "not JSON": sealed(b"planted"),
        "a list too long": sealed(b'["access_token", "default", "a", "b"]'),
        "plain": VALUE,
        "empty": "",
    }


@pytest.mark.parametrize("how", damaged("0123456789" * 20))
def test_a_damaged_value_is_told_apart_and_not_quoted(ring: KeyRing, how: str) -> None:
    stored = damaged(ring.encrypt("access_token", "default", VALUE))[how]
    with pytest.raises(ValueDamaged) as caught:
        ring.decrypt("access_token", "default", stored)
    assert "access_token of account 'default'" in str(caught.value)
    assert VALUE not in str(caught.value)
    assert caught.value.__cause__ is None
    assert not stored or stored not in str(caught.value)


@pytest.mark.parametrize(("column", "account_id"), [("refresh_token", "default"), ("access_token", "other")])
def test_a_value_moved_to_another_row_or_column_is_refused(
    ring: KeyRing, column: str, account_id: str
) -> None:
    stored = ring.encrypt("access_token", "default", VALUE)
    with pytest.raises(ValueDamaged, match="belongs to another row or column"):
        ring.decrypt(column, account_id, stored)


@pytest.mark.parametrize(
    "plain",
    ["eyJhbGciOiJIUzI1NiJ9.eyJhIjoxfQ.c2ln", "gAAAAABpbGFpbg", "0123abcd.other", "x0123abcd.gAAAA", VALUE],
)
def test_no_plain_token_looks_encrypted(plain: str) -> None:
    assert not re.match(ENCRYPTED, plain)


def test_a_key_ring_shows_no_key() -> None:
    ring = KeyRing([OLD_KEY, NEW_KEY])
    for key in (OLD_KEY, NEW_KEY):
        assert key.decode() not in repr(ring) + repr(ring.key_ids)
        assert key_id(key).encode() not in key


def test_a_keyed_hash_is_known_again_under_each_key_that_is_there() -> None:
    before, during = KeyRing([OLD_KEY]), KeyRing([NEW_KEY, OLD_KEY])
    stored = before.keyed_hashes("test", VALUE)[0]
    assert during.matches("test", stored, VALUE)
    assert not during.matches("test", stored, VALUE + "x")
    assert not during.matches("another purpose", stored, VALUE)
    assert not KeyRing([NEW_KEY]).matches("test", stored, VALUE)
    assert during.keyed_hashes("test", VALUE)[0] != stored


def test_a_keyed_hash_shows_neither_value_nor_key(ring: KeyRing) -> None:
    stored = ring.keyed_hashes("test", VALUE)[0]
    assert re.fullmatch(r"[0-9a-f]{8}\.[0-9a-f]{32}", stored)
    assert not re.match(ENCRYPTED, stored)
    assert not ring.matches("test", "no hash at all", VALUE)
