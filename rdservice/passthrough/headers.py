"""Which headers travel to RD Station with a program's request, and which come back with the response."""

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
"""RFC 9110 7.6.1, and older ones."""

NOT_FOR_RD_STATION = HOP_BY_HOP | {
    # The connection to RD Station has its own.
    "host",
    "content-length",
    "expect",
    "max-forwards",
    # The caller's credentials, and headers for this service.
    "authorization",
    "cookie",
    "cookie2",
    "x-api-key",
    "x-csrftoken",
    "x-csrf-token",
    "rd-account",
    "x-request-id",
    # They identify the caller, or name pages of this service that an operator has open.
    "forwarded",
    "via",
    "x-real-ip",
    "true-client-ip",
    "origin",
    "referer",
    # Some servers read another method or path from these than the ones that were checked here.
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
}
PREFIXES_NOT_FOR_RD_STATION = ("x-forwarded", "x-amzn-", "x-envoy-", "cf-", "sec-", "proxy-")

NOT_FOR_THE_CALLER = HOP_BY_HOP | {
    # gunicorn or this service writes them for its own origin: see rdservice.web.http.response_headers.
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
    # They would affect a browser on behalf of this service's origin.
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
# No line breaks: obsolete line folding is refused.
VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
LENGTH = re.compile(r"[0-9]{1,15}")


def for_rd_station(headers: Iterable[tuple[str, str]]) -> Headers:
    """Return the caller's headers for RD Station.

    Leaves out credentials, headers of the connection, and headers that could change the meaning of the request.
    """
    return tuple(_kept(headers, NOT_FOR_RD_STATION, PREFIXES_NOT_FOR_RD_STATION))


def for_caller(headers: Headers, api_url: str) -> Headers:
    """Return the headers of RD Station's response for the caller.

    A `Location` at RD Station becomes one of this service; any other is left out.
    """
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
    """Return a URL of RD Station as a path of this service; None for any other, so that no token is sent there."""
    try:
        url = urlsplit(location)
    except ValueError:
        return None
    if f"{url.scheme}://{url.netloc}" not in ("://", api_url) or not re.fullmatch("/[!-~]*", url.path):
        return None
    if url.path.startswith("//"):
        return None
    return PREFIX + url.path + (f"?{url.query}" if url.query else "")
