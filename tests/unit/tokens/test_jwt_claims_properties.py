"""Whatever a token says of itself: it is read without an error, and moves its end only forward within bounds."""

import base64
import json
from datetime import UTC, datetime, timedelta

from hypothesis import example, given
from hypothesis import strategies as st

from rdservice.tokens import jwt_claims
from tests.support.outside_data import ANY_JSON, MOMENTS, NUMBERS, ODD_TEXTS, TOKENS, bodies, objects

API = "https://api.rd.services"
NAMES = ("exp", "iat", "nbf", "aud", "scope", "sub", "jti", "iss", "crit")
CLAIMS = objects(**{name: st.one_of(NUMBERS, ODD_TEXTS, st.lists(ODD_TEXTS, max_size=3)) for name in NAMES})
HEADS = st.one_of(
    st.fixed_dictionaries(
        {"alg": st.sampled_from(["HS256", "none", "RS256", "?"])},
        optional={"typ": ANY_JSON, "crit": ANY_JSON, "b64": ANY_JSON, "kid": ANY_JSON},
    ),
    ANY_JSON,
)


def packed(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def jwt(claims: bytes) -> str:
    return ".".join(map(packed, (b'{"alg":"HS256"}', claims, b"signature")))


JWTS = st.builds(
    lambda head, body, signature: ".".join(
        [packed(json.dumps(head).encode()), packed(body), packed(signature)]
    ),
    HEADS,
    bodies(CLAIMS),
    st.binary(max_size=8),
)
ANY_TOKEN = st.one_of(JWTS, TOKENS, ODD_TEXTS)


@given(ANY_TOKEN)
@example(jwt(b'{"exp":' + b"9" * 5_000 + b"}"))
@example(jwt(b"[" * 100_000))
def test_claims_have_the_types_that_are_promised(token: str) -> None:
    claims = jwt_claims.read(token)
    assert claims.audiences is None or all(isinstance(one, str) for one in claims.audiences)
    assert claims.scopes is None or all(one == one.strip() and one for one in claims.scopes)
    assert claims.subject is None or isinstance(claims.subject, str)
    for moment in (claims.expires_at, claims.issued_at):
        assert moment is None or moment.tzinfo is UTC


@given(ANY_TOKEN, MOMENTS, st.integers(1, 31_536_000))
def test_the_end_is_after_the_issue_and_never_later_than_told(
    token: str, issued_at: datetime, told_s: int
) -> None:
    ends = jwt_claims.expiry(token, issued_at=issued_at, expires_in_s=told_s)
    told = issued_at + timedelta(seconds=told_s)
    assert issued_at < ends <= told
    assert ends - issued_at >= timedelta(seconds=told_s * jwt_claims.PLAUSIBLE_SHARE) - timedelta(
        microseconds=1
    )
    assert ends == told or ends == jwt_claims.read(token).expires_at


@given(
    ANY_TOKEN,
    st.sampled_from([API, "http://127.0.0.1:9"]),
    st.sampled_from(["contacts", "contacts events", ""]),
)
def test_warnings_are_words_of_ours_with_nothing_of_the_token(token: str, api_url: str, scope: str) -> None:
    expected = [
        *jwt_claims.warnings(jwt(b'{"scope": "none", "aud": "none"}'), api_url=api_url, scope="contacts")
    ]
    allowed = {notice.code for notice in expected}
    for notice in jwt_claims.warnings(token, api_url=api_url, scope=scope):
        assert notice.code in allowed
        assert notice.values in ({}, {"scope": scope})
