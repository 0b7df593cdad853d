"""Secrets in the addresses of webhooks are masked, wherever a body is cut."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from rdservice.events.subscriptions.masking import ADDRESS, SECRET_LENGTH, masked

PARTS = [
    "/rd/webhooks/",
    "%2Frd%2Fwebhooks%2F",
    r"\/rd\/webhooks\/",
    "&#x2F;rd&#x2F;webhooks&#x2F;",
    "A" * 43,
]
PARTS += ["B" * 20, "x", '"', "/", "\\", "%2", "/rd", "&#", "\N{SNOWMAN}"]
BODIES = st.lists(st.sampled_from(PARTS), max_size=12).map(lambda parts: "".join(parts).encode())


@given(body=BODIES, cuts=st.lists(st.integers(0, 600), max_size=5))
def test_a_body_in_pieces_is_masked_as_the_whole_is(body: bytes, cuts: list[int]) -> None:
    places = sorted({0, *(min(cut, len(body)) for cut in cuts), len(body)})
    pieces = [body[start:end] for start, end in itertools.pairwise(places)]
    whole = b"".join(masked(pieces))
    assert whole == b"".join(masked([body]))
    assert len(whole) == len(body)
    assert ADDRESS.search(whole) is None


@given(BODIES)
def test_only_what_may_be_the_beginning_of_an_address_is_held_back(body: bytes) -> None:
    first = next(masked([body + b"\n", b"never needed"]))
    assert len(first) == len(body) + 1
    cut_off = b"/rd/webhooks/" + b"A" * (SECRET_LENGTH - 1)
    assert b"".join(masked([b"x" + cut_off, b"A"])) == b"x/rd/webhooks/" + b"*" * SECRET_LENGTH
    assert next(masked([b"x" + cut_off, b"A"])) == b"x"
