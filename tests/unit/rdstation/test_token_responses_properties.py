"""Whatever the token endpoint answers: a good pair is found, nothing else is taken for one, and nothing raises."""

import json
import math
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from rdservice.rdstation.client import LONGEST_WAIT_S, TOKEN_LIFETIME_S, ApiResponse, TransportError
from rdservice.rdstation.token_responses import (
    MAX_LIFETIME_S,
    MAX_TOKEN_LENGTH,
    REFUSED_TYPES,
    Meaning,
    is_token,
    judge,
    parse_pair,
)
from tests.support.outside_data import ANY_JSON, MOMENTS, NUMBERS, ODD_TEXTS, SCALARS, TOKENS, bodies, objects

KINDS = st.one_of(st.sampled_from([*REFUSED_TYPES, "ACCESS_DENIED", "UNAUTHORIZED"]), ODD_TEXTS)
ERRORS = objects(error_type=KINDS, error=KINDS)
ANSWERED = st.one_of(
    objects(access_token=TOKENS, refresh_token=TOKENS, expires_in=NUMBERS),
    ERRORS,
    objects(errors=st.one_of(ERRORS, st.lists(ERRORS, max_size=2))),
    ANY_JSON,
)
DATES = st.one_of(
    MOMENTS.map(format_datetime),
    # Words in the places of a date's, which email.utils reads with much good will.
    st.lists(
        st.sampled_from(
            ["Mon,", "31", "Feb", ",", ":", "2026", "0", "25:61:61", "+9999", "GMT", "-", "1:2.3"]
        )
    ).map(" ".join),
)
HEADERS = st.dictionaries(
    st.sampled_from(["Retry-After", "Date"]),
    st.one_of(
        DATES,
        st.integers(-5, 10**12).map(str),
        st.text(st.characters(max_codepoint=255), max_size=40),
        ODD_TEXTS,
    ),
)
ANSWERS = st.builds(
    ApiResponse,
    operation=st.just("token_refresh"),
    status=st.one_of(
        st.sampled_from([200, 204, 302, 400, 401, 403, 429, 500, 502, 503, 504]), st.integers(100, 599)
    ),
    headers=HEADERS,
    body=bodies(ANSWERED),
    oversized=st.booleans(),
)


@given(ANSWERS)
@example(ApiResponse(operation="", status=429, headers={"Retry-After": ","}, body=b""))
@example(ApiResponse(operation="", status=429, headers={"Retry-After": "x", "Date": "Mon, "}, body=b""))
def test_every_answer_has_one_meaning_and_a_pair_is_there_exactly_when_it_is_one(
    response: ApiResponse,
) -> None:
    judged = judge(response)
    assert (judged.pair is not None) == (judged.meaning is Meaning.PAIR)
    assert judged.http_status == response.status
    assert (judged.error is None) <= (judged.meaning is Meaning.PAIR)
    if judged.pair is not None:
        assert 200 <= response.status < 300
        assert not response.oversized
        body = response.json()
        assert judged.pair.access_token == body["access_token"]
        assert judged.pair.refresh_token in {body.get("refresh_token") or None}
    if judged.meaning is Meaning.REFUSED:
        # Only these words, with only these statuses, may ever count against a refresh token.
        assert response.status in {400, 401}
        assert response.error_type in REFUSED_TYPES
    if 200 <= response.status < 300 or response.status in {502, 504}:
        assert judged.answer_unknown or judged.pair


@given(ANSWERS)
def test_the_wait_that_an_answer_asks_for_is_none_or_a_number_of_seconds_within_bounds(
    response: ApiResponse,
) -> None:
    wait = response.retry_after_s
    assert wait is None or (math.isfinite(wait) and 0 <= wait <= LONGEST_WAIT_S)


@given(
    st.integers(0, int(LONGEST_WAIT_S)),
    MOMENTS,
)
def test_a_wait_means_the_same_as_a_number_and_as_a_date(seconds: int, sent: datetime) -> None:
    def wait(value: str) -> float | None:
        date = format_datetime(sent, usegmt=True)
        headers = {"Retry-After": value, "Date": date}
        return ApiResponse(operation="", status=429, headers=headers, body=b"").retry_after_s

    until = sent + timedelta(seconds=seconds)
    assert wait(str(seconds)) == wait(format_datetime(until, usegmt=True)) == seconds


@given(ANSWERED)
def test_a_pair_is_made_of_usable_tokens_and_a_usable_lifetime(body: Any) -> None:
    pair = parse_pair(body)
    if pair is None:
        return
    assert is_token(pair.access_token)
    assert pair.refresh_token is None or is_token(pair.refresh_token)
    assert type(pair.expires_in_s) is int
    assert 1 <= pair.expires_in_s <= MAX_LIFETIME_S
    told = body.get("expires_in")
    assert pair.expires_in_s == (TOKEN_LIFETIME_S if pair.expires_in_assumed else told)


@given(
    TOKENS,
    TOKENS,
    st.integers(1, MAX_LIFETIME_S),
    st.dictionaries(st.text(min_size=20, max_size=30), SCALARS),
)
def test_a_good_pair_is_found_whatever_stands_beside_it(
    access: str, refresh: str, lifetime_s: int, beside: dict[str, Any]
) -> None:
    body = beside | {"access_token": access, "refresh_token": refresh, "expires_in": lifetime_s}
    raw = json.dumps(body).encode()
    judged = judge(ApiResponse(operation="token_refresh", status=200, headers={}, body=raw))
    assert judged.pair is not None
    assert (judged.pair.access_token, judged.pair.refresh_token) == (access, refresh)
    assert (judged.pair.expires_in_s, judged.pair.expires_in_assumed) == (lifetime_s, False)


@given(
    st.one_of(
        ODD_TEXTS, TOKENS, st.text(min_size=MAX_TOKEN_LENGTH + 1, max_size=MAX_TOKEN_LENGTH + 2), SCALARS
    )
)
def test_a_token_fits_into_a_header_as_it_is(value: Any) -> None:
    if is_token(value):
        assert value.encode("ascii").split() == [value.encode("ascii")]
        assert len(value) <= MAX_TOKEN_LENGTH


@given(st.sampled_from(["timeout", "connection"]), st.booleans())
def test_no_answer_never_says_anything_about_a_token(kind: str, sent: bool) -> None:
    judged = judge(TransportError("token_refresh", kind, sent=sent))
    assert (judged.meaning, judged.pair, judged.answer_unknown) == (Meaning.TRANSIENT, None, sent)
