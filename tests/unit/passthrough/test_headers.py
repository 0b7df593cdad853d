"""Which headers travel, and which stay."""

import pytest

from rdservice.passthrough.headers import for_caller, for_rd_station

API = "https://api.rd.services"


def test_what_describes_the_request_goes_to_rd_station() -> None:
    kept = (
        ("Accept", "application/json"),
        ("Content-Type", "application/json"),
        ("Content-Encoding", "gzip"),
        ("If-None-Match", '"x"'),
        ("User-Agent", "shop/1.0"),
        ("X-Custom", "yes"),
    )
    assert for_rd_station(kept) == kept


@pytest.mark.parametrize(
    "name",
    [
        *("Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Proxy-Authorization"),
        *("Proxy-Connection", "HTTP2-Settings", "Host", "Content-Length", "Expect"),
        *("Authorization", "Cookie", "X-CSRFToken", "RD-Account"),
        *("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Anything", "X-Real-IP", "Via"),
        *("Accept-Encoding", "Range", "If-Range"),
        *("Origin", "Referer", "Sec-Fetch-Site", "X-HTTP-Method-Override", "X-Original-URL", "X-Rewrite-URL"),
    ],
)
def test_credentials_and_what_belongs_to_a_connection_stay_here(name: str) -> None:
    for written in (name, name.lower(), name.upper()):
        assert for_rd_station([(written, "x"), ("Accept", "*/*")]) == (("Accept", "*/*"),)


def test_what_the_connection_header_names_stays_too() -> None:
    given = [
        ("Connection", "close, X-Hop , content-type"),
        ("X-Hop", "1"),
        ("Content-Type", "a/b"),
        ("ETag", "2"),
    ]
    assert for_rd_station(given) == (("ETag", "2"),)
    assert for_caller(tuple(given), API) == (("ETag", "2"),)


def test_what_describes_the_answer_comes_back_repeated_headers_too() -> None:
    kept = (
        ("Content-Type", "application/json"),
        ("pagination-total-rows", "7"),
        ("Retry-After", "30"),
        ("WWW-Authenticate", 'Bearer error="expired_token"'),
        ("ETag", '"x"'),
        ("Retry-After-Quotas", "9"),
        ("ratelimit-limit-quotas", "120"),
        ("x-amzn-remapped-www-authenticate", "Bearer"),
        ("x-amzn-remapped-www-authenticate", "DPoP"),
    )
    assert for_caller(kept, API) == kept


@pytest.mark.parametrize(
    "name",
    [
        *("Set-Cookie", "Set-Cookie2", "Clear-Site-Data", "Refresh", "Link", "Alt-Svc", "NEL", "Report-To"),
        *("Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Service-Worker-Allowed"),
        *("Content-Security-Policy", "X-Frame-Options", "Strict-Transport-Security", "X-Request-ID"),
        *("Connection", "Transfer-Encoding", "Trailer", "Upgrade", "Keep-Alive", "Date", "Server"),
        *("Cache-Control", "Expires", "X-Answer-From"),
        # What proxies and content delivery networks in front act on.
        *(
            "X-Accel-Redirect",
            "X-Accel-Buffering",
            "X-Accel-Limit-Rate",
            "X-Sendfile",
            "X-LIGHTTPD-send-file",
        ),
        *("X-Reproxy-URL", "Surrogate-Control", "Surrogate-Key", "CDN-Cache-Control", "Edge-Control"),
        *("Cloudflare-CDN-Cache-Control", "X-Varnish", "X-Litespeed-Location", "Vary", "X-Nobody-Knows"),
    ],
)
def test_what_would_speak_for_this_service_does_not_come_back(name: str) -> None:
    for written in (name, name.lower()):
        assert for_caller(((written, "x"), ("ETag", "y")), API) == (("ETag", "y"),)


def test_headers_that_http_does_not_allow_do_not_travel() -> None:
    odd = (
        ("X-Folded", "a\r\n b"),
        ("X-Bare", "a\rb"),
        ("X-Nul", "a\0b"),
        ("X Y", "z"),
        ("", "z"),
        ("X-Ok", "\xe9"),
    )
    assert for_rd_station(odd) == (("X-Ok", "\xe9"),)
    for value in ("a\r\n b", "a\rb", "a\0b"):
        assert for_caller((("ETag", value), ("ETag", "\xe9")), API) == (("ETag", "\xe9"),)


def test_the_length_comes_back_where_it_can_be_believed() -> None:
    assert for_caller((("content-length", "12"),), API) == (("Content-Length", "12"),)
    for odd in ("-1", "+1", "1_0", "0x1", "1, 1", "", "²"):
        assert for_caller((("Content-Length", odd),), API) == ()
    assert for_caller((("Content-Length", "1"), ("Transfer-Encoding", "chunked")), API) == ()


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (f"{API}/platform/contacts/1?a=b", "/rd/api/platform/contacts/1?a=b"),
        ("/platform/contacts/1", "/rd/api/platform/contacts/1"),
        ("https://evil.example/x", None),
        ("//evil.example/x", None),
        ("https://api.rd.services.evil.example/x", None),
        ("https://user@api.rd.services/x", None),
        ("http://api.rd.services/x", None),
        (f"{API}//evil.example", None),
        ("javascript:alert(1)", None),
        ("http://[", None),
        ("x", None),
        ("/a\u00e9", None),
    ],
)
def test_an_address_of_rd_station_leads_through_this_service_and_any_other_nowhere(
    location: str, expected: str | None
) -> None:
    assert dict(for_caller((("Location", location),), API)).get("Location") == expected
