"""What an access token says of itself."""

import base64
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from rdservice.tokens import jwt_claims

ISSUED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY_S = 86_400
API = "https://api.rd.services"


def token(**claims: Any) -> str:
    return jwt.encode(claims, "a key of RD Station that nobody here knows", algorithm="HS256")


def expiry_for(exp: object, *, expires_in_s: int = DAY_S) -> datetime:
    return jwt_claims.expiry(token(exp=exp), issued_at=ISSUED_AT, expires_in_s=expires_in_s)


def at(seconds: float) -> int:
    return int((ISSUED_AT + timedelta(seconds=seconds)).timestamp())


ODD_TOKENS = [
    "",
    "opaque",
    "a.b.c",
    "..",
    "....",
    "eyJhbGciOiJub25lIn0..",
    "eyJhbGciOiJub25lIn0.W10.",
    "eyJhbGciOiJub25lIn0.bnVsbA.",
    "eyJhbGciOiJub25lIn0." + base64.urlsafe_b64encode(b'{"exp":NaN}').decode().rstrip("=") + ".",
    "eyJhbGciOiJub25lIn0." + base64.urlsafe_b64encode(b"[" * 50_000).decode().rstrip("=") + ".",
    base64.urlsafe_b64encode(b'{"alg":"none","crit":["b64"],"b64":false}').decode().rstrip("=") + ".e30.",
    "!" * 16_000,
]


@pytest.mark.parametrize("odd", ODD_TOKENS)
def test_a_token_that_is_no_jwt_says_nothing_and_lasts_as_told(odd: str) -> None:
    claims = jwt_claims.read(odd)
    assert (claims.audiences, claims.scopes, claims.expires_at) == (None, None, None)
    assert jwt_claims.warnings(odd, api_url=API, scope="contacts") == []
    assert jwt_claims.expiry(odd, issued_at=ISSUED_AT, expires_in_s=60) == ISSUED_AT + timedelta(seconds=60)


@pytest.mark.parametrize("seed", range(100))
def test_no_damaged_token_is_an_error(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - the same tokens in each run
    values: list[Any] = [
        None,
        True,
        -1,
        1e400,
        10**40,
        "text",
        [],
        {},
        [1, None],
        {"a": []},
        at(DAY_S),
        ["a", "b c"],
    ]
    whole = {name: rng.choice(values) for name in ("exp", "aud", "scope", "iat", "sub", "nbf", "jti")}
    header = {"alg": rng.choice(["none", "HS256", 7, None]), "typ": rng.choice(["JWT", None, 1])}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, whole)
    ]
    text = list(".".join([*parts, "c2ln"]))
    for _ in range(rng.choice([0, 0, 1, 3])):
        text[rng.randrange(len(text))] = rng.choice("aZ09-_.=")
    damaged = "".join(text)
    ends = jwt_claims.expiry(damaged, issued_at=ISSUED_AT, expires_in_s=DAY_S)
    assert ISSUED_AT < ends <= ISSUED_AT + timedelta(days=1)
    assert len(jwt_claims.warnings(damaged, api_url=API, scope="contacts")) <= 2


def test_the_claims_are_read_without_the_key() -> None:
    claims = jwt_claims.read(token(aud=[API, "b"], scope="contacts events", exp=at(60)))
    assert claims.audiences == (API, "b")
    assert claims.scopes == frozenset({"contacts", "events"})
    assert claims.expires_at == ISSUED_AT + timedelta(seconds=60)


def test_an_expired_or_future_token_is_read_all_the_same() -> None:
    assert jwt_claims.read(token(exp=1, nbf=at(10**9), scope="contacts")).scopes == frozenset({"contacts"})


def test_an_earlier_plausible_exp_counts() -> None:
    assert expiry_for(at(DAY_S - 3600)) == ISSUED_AT + timedelta(seconds=DAY_S - 3600)
    assert expiry_for(at(DAY_S / 10)) == ISSUED_AT + timedelta(seconds=DAY_S / 10)


@pytest.mark.parametrize("exp", [at(DAY_S), at(DAY_S + 1), at(10 * DAY_S)])
def test_a_later_exp_does_not_count(exp: int) -> None:
    assert expiry_for(exp) == ISSUED_AT + timedelta(days=1)


@pytest.mark.parametrize("exp", [at(DAY_S / 10 - 1), at(0), at(-DAY_S), 0, -1, True, 10**30, -(10**30)])
def test_an_implausible_exp_does_not_count(exp: object) -> None:
    assert expiry_for(exp) == ISSUED_AT + timedelta(days=1)


def test_a_token_that_was_used_up_in_part_before_its_upload_ends_when_it_says() -> None:
    # Uploaded with the whole expires_in, 20 hours after it was issued.
    assert expiry_for(at(4 * 3600)) == ISSUED_AT + timedelta(hours=4)


SCOPE_CASES: list[tuple[Any, str, bool]] = [
    ("contacts", "contacts", False),
    ("contacts events", "contacts", False),
    (["events", "contacts"], "contacts", False),
    ("events", "contacts", True),
    ("", "contacts", True),
    ("contacts", "contacts events", True),
    ("contactsx", "contacts", True),
    (7, "contacts", False),
]


@pytest.mark.parametrize(("has", "needs", "warned"), SCOPE_CASES)
def test_a_missing_scope_is_warned_of_by_name(has: Any, needs: str, warned: bool) -> None:
    found = jwt_claims.warnings(token(scope=has), api_url=API, scope=needs)
    assert [notice.code for notice in found] == (["scope_missing"] if warned else [])
    for notice in found:
        assert needs in notice.text
        assert notice.values == {"scope": needs}


@pytest.mark.parametrize(
    ("audience", "warned"),
    [
        (API, False),
        (f"{API}/", False),
        ([API, "https://other"], False),
        ("http://127.0.0.1:8001", False),
        ("https://www.rdstation.com.br/api", True),
        ([], True),
        (7, False),
    ],
)
def test_an_audience_that_is_not_the_current_api_is_warned_of(audience: Any, warned: bool) -> None:
    found = jwt_claims.warnings(token(aud=audience), api_url="http://127.0.0.1:8001", scope="contacts")
    assert [notice.code for notice in found] == (["audience_differs"] if warned else [])
