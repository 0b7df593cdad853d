"""What each answer of the token endpoint means: the table of answers."""

import json
from typing import Any

import pytest

from rdservice.rdstation.client import ApiResponse, TransportError
from rdservice.rdstation.token_responses import Meaning, is_token, judge, parse_pair

PAIR = {"access_token": "the-access", "refresh_token": "the-refresh", "expires_in": 3600}


def response(status: int, body: object, headers: dict[str, str] | None = None) -> ApiResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ApiResponse(operation="token_refresh", status=status, headers=headers or {}, body=raw)


def error(kind: str, shape: str = "bare") -> object:
    pair = {"error_type": kind, "error_message": "said RD Station"}
    return {"bare": pair, "object": {"errors": pair}, "list": {"errors": [pair, {}]}, "rfc": {"error": kind}}[
        shape
    ]


HTML = b"<html><body>maintenance</body></html>"

# status, body, meaning, error kind, whether it may have taken effect
TABLE: dict[str, tuple[int, object, Meaning, str, bool]] = {
    "200 HTML": (200, HTML, Meaning.TRANSIENT, "bad_payload", True),
    "200 cut off": (200, json.dumps(PAIR).encode()[:-9], Meaning.TRANSIENT, "bad_payload", True),
    "200 empty": (200, b"", Meaning.TRANSIENT, "bad_payload", True),
    "200 without access token": (200, {"refresh_token": "x"}, Meaning.TRANSIENT, "bad_payload", True),
    "200 with an error": (200, error("INVALID_REFRESH_TOKEN"), Meaning.TRANSIENT, "bad_payload", True),
    "200 with a list": (200, [PAIR], Meaning.TRANSIENT, "bad_payload", True),
    "200 with null": (200, None, Meaning.TRANSIENT, "bad_payload", True),
    "200 nested too deep": (200, b"[" * 100_000, Meaning.TRANSIENT, "bad_payload", True),
    "204": (204, b"", Meaning.TRANSIENT, "bad_payload", True),
    "401 INVALID_REFRESH_TOKEN": (401, error("INVALID_REFRESH_TOKEN"), Meaning.REFUSED, "revoked", False),
    "400 INVALID_REFRESH_TOKEN": (400, error("INVALID_REFRESH_TOKEN"), Meaning.REFUSED, "revoked", False),
    "INVALID_REFRESH_TOKEN in an object": (
        401,
        error("INVALID_REFRESH_TOKEN", "object"),
        Meaning.REFUSED,
        "revoked",
        False,
    ),
    "INVALID_REFRESH_TOKEN in a list": (
        401,
        error("INVALID_REFRESH_TOKEN", "list"),
        Meaning.REFUSED,
        "revoked",
        False,
    ),
    "400 invalid_grant": (400, error("invalid_grant", "rfc"), Meaning.REFUSED, "revoked", False),
    "401 invalid_grant": (401, error("invalid_grant", "rfc"), Meaning.REFUSED, "revoked", False),
    "403 invalid_grant": (403, error("invalid_grant", "rfc"), Meaning.CLIENT_ERROR, "client_error", False),
    "500 invalid_grant": (500, error("invalid_grant", "rfc"), Meaning.TRANSIENT, "server_error", False),
    "401 ACCESS_DENIED": (401, error("ACCESS_DENIED"), Meaning.CREDENTIALS, "credentials", False),
    "ACCESS_DENIED in a list": (
        401,
        error("ACCESS_DENIED", "list"),
        Meaning.CREDENTIALS,
        "credentials",
        False,
    ),
    "403 ACCESS_DENIED": (403, error("ACCESS_DENIED"), Meaning.CLIENT_ERROR, "client_error", False),
    "401 UNAUTHORIZED": (401, error("UNAUTHORIZED"), Meaning.UNAUTHORIZED, "unauthorized", False),
    "401 HTML": (401, HTML, Meaning.UNAUTHORIZED, "unauthorized", False),
    "401 invalid_client": (401, error("invalid_client", "rfc"), Meaning.UNAUTHORIZED, "unauthorized", False),
    "429": (429, {"error": "slow down", "max": 120}, Meaning.RATE_LIMITED, "rate_limited", False),
    "429 that names a refusal": (
        429,
        error("INVALID_REFRESH_TOKEN"),
        Meaning.RATE_LIMITED,
        "rate_limited",
        False,
    ),
    "302": (302, b"", Meaning.CLIENT_ERROR, "client_error", False),
    "400": (400, error("BAD_REQUEST"), Meaning.CLIENT_ERROR, "client_error", False),
    "403": (403, HTML, Meaning.CLIENT_ERROR, "client_error", False),
    "404": (404, HTML, Meaning.CLIENT_ERROR, "client_error", False),
    "415": (415, b"", Meaning.CLIENT_ERROR, "client_error", False),
    "500": (500, HTML, Meaning.TRANSIENT, "server_error", False),
    "502 of a gateway": (502, HTML, Meaning.TRANSIENT, "server_error", True),
    "503": (503, b"", Meaning.TRANSIENT, "server_error", False),
    "504 of a gateway": (504, HTML, Meaning.TRANSIENT, "server_error", True),
}


@pytest.mark.parametrize("row", TABLE)
def test_an_answer_without_a_pair_means_what_the_table_says(row: str) -> None:
    status, body, meaning, kind, unknown = TABLE[row]
    judged = judge(response(status, body))
    assert (judged.meaning, judged.error, judged.answer_unknown) == (meaning, kind, unknown)
    assert judged.http_status == status
    assert judged.pair is None


@pytest.mark.parametrize("kind", ["timeout", "connection"])
@pytest.mark.parametrize("sent", [True, False])
def test_no_answer_is_passing_and_remembers_whether_the_request_left(kind: str, sent: bool) -> None:
    judged = judge(TransportError("token_refresh", kind, sent=sent))
    assert (judged.meaning, judged.error, judged.http_status) == (Meaning.TRANSIENT, kind, None)
    assert judged.answer_unknown is sent


def test_an_answer_that_is_too_large_is_no_pair() -> None:
    judged = judge(ApiResponse(operation="token_refresh", status=200, headers={}, body=b"", oversized=True))
    assert (judged.meaning, judged.error) == (Meaning.TRANSIENT, "bad_payload")


@pytest.mark.parametrize("status", [200, 201])
def test_a_good_answer_is_a_pair(status: int) -> None:
    judged = judge(response(status, PAIR))
    assert (judged.meaning, judged.error, judged.http_status) == (Meaning.PAIR, None, status)
    assert judged.pair is not None
    assert (judged.pair.access_token, judged.pair.refresh_token) == ("the-access", "the-refresh")
    assert (judged.pair.expires_in_s, judged.pair.expires_in_assumed) == (3600, False)


@pytest.mark.parametrize("body", [{}, {"refresh_token": None}, {"refresh_token": ""}])
def test_an_answer_without_refresh_token_keeps_the_old_one(body: dict[str, Any]) -> None:
    pair = parse_pair({"access_token": "the-access", "expires_in": 60} | body)
    assert pair is not None
    assert pair.refresh_token is None


def test_a_new_refresh_token_is_never_ignored() -> None:
    pair = parse_pair(PAIR | {"refresh_token": "another"})
    assert pair is not None
    assert pair.refresh_token == "another"


@pytest.mark.parametrize(
    "expires_in", [None, 0, -1, 31_536_001, 10**30, "3600", 3600.0, True, [], {}, float("nan"), float("inf")]
)
def test_an_absurd_expires_in_counts_as_a_day_and_is_recorded(expires_in: object) -> None:
    judged = judge(response(200, PAIR | {"expires_in": expires_in}))
    assert judged.pair is not None
    assert (judged.pair.expires_in_s, judged.pair.expires_in_assumed) == (86_400, True)
    assert (judged.meaning, judged.error) == (Meaning.PAIR, "expires_in_assumed")


def test_a_missing_expires_in_counts_as_a_day_and_is_recorded() -> None:
    judged = judge(response(200, {"access_token": "the-access"}))
    assert judged.pair is not None
    assert (judged.pair.expires_in_s, judged.error) == (86_400, "expires_in_assumed")


@pytest.mark.parametrize("lifetime", [1, 86_400, 31_536_000])
def test_a_plausible_expires_in_is_believed(lifetime: int) -> None:
    pair = parse_pair(PAIR | {"expires_in": lifetime})
    assert pair is not None
    assert (pair.expires_in_s, pair.expires_in_assumed) == (lifetime, False)


NO_TOKENS = [0, True, {}, [], "with space", "line\nbreak", "tab\t", "ção", "\x00", "a" * 16_385, "\ud800"]


@pytest.mark.parametrize("value", [*NO_TOKENS, None, ""])
def test_nothing_but_a_token_is_taken_for_the_access_token(value: object) -> None:
    assert parse_pair(PAIR | {"access_token": value}) is None
    assert not is_token(value)


@pytest.mark.parametrize("value", NO_TOKENS)
def test_an_answer_with_a_broken_refresh_token_is_no_pair(value: object) -> None:
    assert parse_pair(PAIR | {"refresh_token": value}) is None


@pytest.mark.parametrize("value", ["x", "a" * 16_384, "!~", "eyJ0.eyJ1.c2ln", "1//0a-b_c+d/e=="])
def test_all_visible_ascii_may_stand_in_a_token(value: str) -> None:
    assert is_token(value)


@pytest.mark.parametrize(
    ("header", "seconds"), [({"Retry-After": "7"}, 7.0), ({}, None), ({"Retry-After": "soon"}, None)]
)
def test_a_rate_limit_says_how_long_to_wait(header: dict[str, str], seconds: float | None) -> None:
    assert judge(response(429, {}, header)).retry_after_s == seconds


def test_no_token_stands_in_the_repr_of_a_judgement() -> None:
    given = response(200, PAIR)
    shown = repr(given) + repr(judge(given)) + repr(parse_pair(PAIR))
    assert "the-access" not in shown
    assert "the-refresh" not in shown
