"""Strategies for what comes from outside: any JSON, any header, any text, tokens and damaged ones."""

import json
import string
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

TEXTS = st.text(max_size=60)
ODD_TEXTS = st.one_of(
    st.text(st.characters(), max_size=60),
    # Halves of surrogate pairs, which JSON can express and UTF-8 cannot.
    st.text(st.characters(categories=["Cs", "Cc", "Cf", "Zs", "Ll", "Nd"]), max_size=10),
    st.sampled_from(["", " ", "\0", "\ud800", "\ufffd", "a\0b", "null", "NaN", "..", "/", "\u202e", "١"]),
)
NUMBERS = st.one_of(
    st.integers(),
    st.integers(min_value=-(10**40), max_value=10**40),
    st.floats(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2**31, 2**63, 10**30, 1e308, -0.0, 86_400, 86_400.0, 31_536_000, 31_536_001]),
)
SCALARS = st.one_of(st.none(), NUMBERS, ODD_TEXTS)
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(TEXTS, ODD_TEXTS), inner, max_size=4)
    ),
    max_leaves=8,
)
MOMENTS = st.integers(0, 250_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
VISIBLE = "".join(sorted(set(string.printable) - set(string.whitespace)))
TOKENS = st.text(VISIBLE, min_size=1, max_size=80)


def objects(**members: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    """Objects in which each of `members` may be missing, or be anything."""
    return st.fixed_dictionaries(
        {}, optional={name: st.one_of(value, ANY_JSON) for name, value in members.items()}
    )


def encoded(value: object) -> bytes:
    """Return `value` as JSON, half surrogate pairs and NaN included."""
    return json.dumps(value).encode()


def bodies(values: st.SearchStrategy[object]) -> st.SearchStrategy[bytes]:
    """Bodies of answers: JSON in good and bad encodings, cut off, damaged, or anything at all."""
    whole = values.map(encoded)
    return st.one_of(
        whole,
        whole.flatmap(lambda body: st.integers(0, len(body)).map(lambda end: body[:end])),
        values.map(lambda value: json.dumps(value).encode("utf-16")),
        st.binary(max_size=60),
        st.sampled_from(
            [b"[" * 100_000, b'{"a":' * 50_000, b"1" * 10_000, b"\xef\xbb\xbf{}", b"<html>", b"\xff\xfe"]
        ),
    )


def deep(levels: int) -> Any:
    """Return a list in a list, so many levels deep."""
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value
