"""Which headers travel to RD Station with a program's request, and which come back with the answer."""

import re
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from rdservice.passthrough.target import PREFIX
from rdservice.rdstation.streaming import Headers

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-authentication-info",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    }
)
"""RFC 9110 7.6.1, with older ones."""

NOT_FOR_RD_STATION = HOP_BY_HOP | {
    # The connection to RD Station has its own.
    "host",
    "content-length",
    "expect",
    "max-forwards",
    # The caller's credentials, and what is meant for this service.
    "authorization",
    "cookie",
    "cookie2",
    "x-api-key",
    "x-csrftoken",
    "x-csrf-token",
    "rd-account",
    "x-request-id",
    # Who the caller is, and the pages of this service that an operator's browser shows.
    "forwarded",
    "via",
    "x-real-ip",
    "true-client-ip",
    "origin",
    "referer",
    # What some servers take for another method or path than those that were judged here.
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
}
PREFIXES_NOT_FOR_RD_STATION = ("x-forwarded", "x-amzn-", "x-envoy-", "cf-", "sec-", "proxy-")

NOT_FOR_THE_CALLER = HOP_BY_HOP | {
    # gunicorn writes them, and this service for its own origin: see rdservice.web.http.response_headers.
    "date",
    "server",
    "via",
    "cache-control",
    "expires",
    "pragma",
    "age",
    "content-security-policy",
    "content-security-policy-report-only",
    "x-content-type-options",
    "x-frame-options",
    "x-request-id",
    "referrer-policy",
    "permissions-policy",
    "strict-transport-security",
    "cross-origin-opener-policy",
    "cross-origin-opener-policy-report-only",
    "cross-origin-resource-policy",
    "cross-origin-embedder-policy",
    "cross-origin-embedder-policy-report-only",
    # What would act on a browser in the name of this service's origin.
    "set-cookie",
    "set-cookie2",
    "clear-site-data",
    "refresh",
    "link",
    "alt-svc",
    "nel",
    "report-to",
    "reporting-endpoints",
    "service-worker-allowed",
    "sourcemap",
    "speculation-rules",
    "timing-allow-origin",
    "x-answer-from",
    "location",
    "content-length",
}
PREFIXES_NOT_FOR_THE_CALLER = ("access-control-", "proxy-")

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# A value of several lines, which HTTP once allowed, is none.
VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
LENGTH = re.compile(r"[0-9]{1,15}")


def for_rd_station(headers: Iterable[tuple[str, str]]) -> Headers:
    """Return the caller's headers without its credentials, what belongs to its connection, and what could mislead."""
    return tuple(_kept(headers, NOT_FOR_RD_STATION, PREFIXES_NOT_FOR_RD_STATION))


def for_caller(headers: Headers, api_url: str) -> Headers:
    """Return the headers of RD Station's answer that are the caller's; an address of its own leads through us again."""
    kept = [*_kept(headers, NOT_FOR_THE_CALLER, PREFIXES_NOT_FOR_THE_CALLER)]
    named = _values(headers)
    (length,) = named.get("content-length", [""])[:1]
    if LENGTH.fullmatch(length) and "transfer-encoding" not in named:
        kept.append(("Content-Length", length))
    location = _through_us(named.get("location", [""])[0], api_url)
    if location is not None:
        kept.append(("Location", location))
    return tuple(kept)


def _kept(
    headers: Iterable[tuple[str, str]], without: frozenset[str], prefixes: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    given = list(headers)
    named = {
        name.strip().lower()
        for header, value in given
        if header.lower() == "connection"
        for name in value.split(",")
    }
    for header, value in given:
        name = header.lower()
        if name in without or name in named or name.startswith(prefixes):
            continue
        if NAME.fullmatch(header) and VALUE.fullmatch(value):
            yield header, value


def _values(headers: Headers) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name.lower(), []).append(value.strip())
    return values


def _through_us(location: str, api_url: str) -> str | None:
    """Return an address at RD Station as one of this service; None for any other, to which no token may follow."""
    try:
        url = urlsplit(location)
    except ValueError:
        return None
    if f"{url.scheme}://{url.netloc}" not in ("://", api_url) or not re.fullmatch("/[!-~]*", url.path):
        return None
    if url.path.startswith("//"):
        return None
    return PREFIX + url.path + (f"?{url.query}" if url.query else "")
