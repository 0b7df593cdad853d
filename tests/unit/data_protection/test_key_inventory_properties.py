"""Whatever stands in a column: it is the value that was written there, or it is told apart from one."""

import json
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import example, given
from hypothesis import strategies as st

from rdservice.cache.entries import Content, Failure, FetchFailed
from rdservice.cache.table import Row
from rdservice.encryption import KeyMissing, KeyRing, ValueDamaged, key_id
from rdservice.errors import RdServiceError
from tests.support.outside_data import ANY_JSON, ODD_TEXTS, objects

KEY, OTHER = Fernet.generate_key(), Fernet.generate_key()
RING = KeyRing([KEY])
PLACES = st.tuples(
    st.sampled_from(["access_token", "refresh_token"]), st.sampled_from(["default", "shop", "é"])
)
PAGING = st.lists(st.tuples(st.sampled_from(["pagination-page", "x"]), st.text(max_size=9)), max_size=3)


@given(PLACES, ODD_TEXTS)
def test_a_value_comes_back_from_its_own_place_and_from_no_other(place: tuple[str, str], value: str) -> None:
    stored = RING.encrypt(*place, value)
    assert RING.decrypt(*place, stored) == value
    for column, account_id in [("access_token", "default"), ("refresh_token", "é"), ("cache/00", "shop")]:
        if (column, account_id) != place:
            with pytest.raises(ValueDamaged):
                RING.decrypt(column, account_id, stored)


@given(st.one_of(ODD_TEXTS, st.text(), ODD_TEXTS.map(lambda text: f"{key_id(KEY)}.gAAAA{text}")))
@example(f"{key_id(OTHER)}.gAAAA")
@example(Fernet(KEY).encrypt(b"{}").decode())
@example(f"{key_id(KEY)}.{Fernet(KEY).encrypt(b'[1, 2').decode()}")
@example(f"{key_id(KEY)}.{Fernet(KEY).encrypt(b'[' * 100_000).decode()}")
@example(f"{key_id(KEY)}.{Fernet(KEY).encrypt(b'9' * 5_000).decode()}")
def test_what_was_never_encrypted_here_is_never_a_value(stored: str) -> None:
    with pytest.raises((KeyMissing, ValueDamaged)):
        RING.decrypt("access_token", "default", stored)


@given(st.text(max_size=80), st.data())
def test_one_changed_character_is_noticed_or_changes_nothing(value: str, data: st.DataObject) -> None:
    stored = RING.encrypt("access_token", "default", value)
    at = data.draw(st.integers(0, len(stored) - 1))
    damaged = stored[:at] + data.draw(st.characters(codec="ascii")) + stored[at + 1 :]
    try:
        # Base64 has several forms for the same bytes.
        assert RING.decrypt("access_token", "default", damaged) == value
    except (KeyMissing, ValueDamaged) as error:
        message = str(error)
        assert stored[20:40] not in message


@given(st.binary(max_size=200), PAGING, st.binary(min_size=1, max_size=8))
def test_a_cached_answer_comes_back_byte_for_byte(
    body: bytes, paging: list[tuple[str, str]], key: bytes
) -> None:
    content = Content.of(body, paging)
    back = Content.decrypt(RING, key, "default", content.encrypt(RING, key, "default"))
    assert (back.body, back.paging, back.etag) == (body, tuple(paging), content.etag)


@given(st.one_of(ODD_TEXTS, st.text()), st.binary(max_size=4))
def test_a_cached_answer_that_nobody_cached_is_damaged(text: str, key: bytes) -> None:
    with pytest.raises((KeyMissing, ValueDamaged)):
        Content.decrypt(RING, key, "default", text)
    with pytest.raises(ValueDamaged):
        # Ours, of the right place, and still no answer.
        Content.decrypt(RING, key, "default", RING.encrypt(f"cache/{key.hex()}", "default", text))


FAILURES = objects(
    code=st.sampled_from(["rdstation_timeout", "not_found", "of a later version"]),
    detail=st.text(max_size=9),
    stale=st.booleans(),
    retry_after_s=st.one_of(st.none(), st.floats(0, 100)),
    extra=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
    of_a_later_version=st.integers(),
)


@given(st.one_of(FAILURES, ANY_JSON))
def test_a_failure_that_another_version_shared_is_understood_or_counts_as_none(shared: Any) -> None:
    row = Row(value=None, fetched_at=None, age_s=None, failure=shared, failing=True, leased=False)
    found = row.last_failure
    if found is not None:
        error = found.error()
        assert isinstance(error, RdServiceError)
        assert isinstance(found.stale, bool)
        json.dumps([error.detail, error.retry_after_s, error.extra])


@given(st.text(max_size=20), st.booleans(), st.one_of(st.none(), st.floats(0, 1e6)))
def test_a_failure_is_the_same_for_those_who_share_it(detail: str, stale: bool, wait: float | None) -> None:
    error = RdServiceError(detail, retry_after_s=wait, extra={"field": "email"})
    failure = FetchFailed(error, stale=stale).failure
    assert Failure.read(json.loads(json.dumps(failure.as_json()))) == failure
