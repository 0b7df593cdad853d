"""Whatever a client sends as path, it stays at RD Station's own host and away from its token routes."""

import re
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rdservice.errors import BadRequest, RouteForbidden
from rdservice.passthrough.target import TOKEN_ROUTES, target_of

PLAIN = [
    "/platform/contacts/fields",
    "/platform/segmentations?page=1&page_size=125&order=name:desc",
    "/platform/contacts/email:a%2Bb@example.com",
    "/platform/contacts/email:a%2bb@example.com",
    "/platform/contacts/email:a%2Fb@example.com",
    "/platform/contacts/email:jo%C3%A3o@example.com",
    "/platform/contacts/",
    "/platform/emails?ids[]=1&ids[]=2&q=%zz&next=http://evil.example/../auth/token",
    "/platform/authors/auth/token",
    "/x?",
    "/x?a=%2e%2e//b",
    "/platform/...",
]


@pytest.mark.parametrize("target", PLAIN)
def test_path_and_query_stay_byte_for_byte(target: str) -> None:
    assert target_of(f"/rd/api{target}") == target


@pytest.mark.parametrize(
    "path",
    [
        "/auth/token",
        "/auth",
        "/auth/",
        "/auth?x",
        "/oauth2/token",
        "/oauth/token",
        "/AUTH/token",
        "/aut%68/token",
        "/%2561uth/token",
        "/auth%2ftoken",
        "/auth%2Ftoken",
        "/auth%5ctoken",
        "/auth;x=y/token",
        "/auth%20/token",
        "/%ef%bc%81uth/../auth",
        "/%EF%BD%81uth/token",
    ],
)
def test_token_routes_are_forbidden_however_they_are_written(path: str) -> None:
    with pytest.raises((RouteForbidden, BadRequest)):
        target_of(f"/rd/api{path}")


@pytest.mark.parametrize(
    "raw_uri",
    [
        "/rd/api",
        "/rd/apiary",
        "/rd/api//auth/token",
        "/rd/api//evil.example/x",
        "/rd/api/@evil.example/../x",
        "/rd/api/x/../auth/token",
        "/rd/api/./auth/token",
        "/rd/api/x/%2e%2e/auth/token",
        "/rd/api/x/%2E./auth/token",
        "/rd/api/x/..%2fauth/token",
        "/rd/api/x%2f..%2fauth%2ftoken",
        "/rd/api/x/%252e%252e/auth/token",
        "/rd/api/x/..;/auth/token",
        "/rd/api/x/..%3b/auth/token",
        "/rd/api/x/..",
        "/rd/api/x/.",
        "/rd/api/x\\..\\auth",
        "/rd/api/x%5c..%5cauth",
        "/rd/api/%2fauth/token",
        "/rd/api/%5cauth/token",
        "/rd/api/x%00",
        "/rd/api/x%0d%0aHost:evil",
        "/rd/api/x%250d",
        "/rd/api/x%7f",
        "/rd/api/x y",
        "/rd/api/x\r\nHost: evil",
        "/rd/api/x#auth",
        "/rd/api/x?#auth",
        "/rd/api/x?a b",
        "/rd/api/x?a\r\nb",
        "/rd/api/x?\u00e9",
        "/rd/api/caf\u00e9",
        "/rd/api/x%",
        "/rd/api/x%2",
        "/rd/api/x%gg",
        "/rd/api/%2525252525252525",
        "http://evil.example/rd/api/x",
        "//evil.example/rd/api/x",
        "/rd/%61pi/x",
        "*",
        "",
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(raw_uri: str) -> None:
    with pytest.raises(BadRequest):
        target_of(raw_uri)


PARTS = st.sampled_from(
    ["auth", "oauth2", "token", "x", "..", ".", "", "%2e", "%2E%2e", "%2f", "%5c", "\\", "@", ":", ";", "?"]
)
ODD_PARTS = st.sampled_from(
    ["#", "%", "%25", "%252e", "%61", "evil.example", "//", "/", " ", "\r\n", "%00", "\u00e9", "&", "=", "["]
)
SEGMENTS = st.lists(PARTS | ODD_PARTS)


@given(st.one_of(st.text(), SEGMENTS.map("".join), SEGMENTS.map("/".join)))
@example("/evil.example/x")
@example("@evil.example")
def test_whatever_the_path_only_the_configured_host_is_reached_and_never_a_token_route(path: str) -> None:
    try:
        target = target_of(f"/rd/api/{path}")
    except (BadRequest, RouteForbidden):
        return
    assert target == f"/{path}"
    url = urlsplit(f"https://api.rd.services{target}")
    assert (url.scheme, url.netloc, url.fragment) == ("https", "api.rd.services", "")
    assert re.fullmatch(r"[!-~]+", target)
    readings = [url.path]
    while (decoded := unquote(readings[-1])) != readings[-1]:
        readings.append(decoded)
    for reading in readings:
        segments = re.split(r"[/\\]", reading)
        assert segments[1].casefold() not in TOKEN_ROUTES
        assert not {".", ".."} & set(segments)
        assert not re.search(r"[\x00-\x1f\x7f]", reading)
