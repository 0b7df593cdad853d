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
    # The secret in a webhook's address is masked in the response: nothing may hide it there, compressed or in parts.
    "accept-encoding",
    "range",
    "if-range",
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

FOR_THE_CALLER = frozenset(
    {
        # What the body is.
        "content-type",
        "content-language",
        "content-disposition",
        "etag",
        "last-modified",
        # RD Station's paging, limits and refusals.
        "pagination-total-rows",
        "pagination-page-size",
        "pagination-page",
        "ratelimit-limit-quotas",
        "ratelimit-remaining-quotas",
        "ratelimit-limit",
        "ratelimit-remaining",
        "ratelimit-reset",
        "retry-after-quotas",
        "retry-after",
        "allow",
        "www-authenticate",
        # Amazon's gateway renames the header before it.
        "x-amzn-remapped-www-authenticate",
    }
)
"""Everything else stays here. Proxies in front act on headers of their own (X-Accel-Redirect, X-Sendfile,
Surrogate-Control …), browsers act for this service's origin (Set-Cookie, Access-Control-…), and no list of those could
be complete."""

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# No line breaks: obsolete line folding is refused.
VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
LENGTH = re.compile(r"[0-9]{1,15}")


def for_rd_station(headers: Iterable[tuple[str, str]]) -> Headers:
    """Return the caller's headers for RD Station.

    Leaves out credentials, headers of the connection, and headers that could change the meaning of the request.
    """
    return tuple(
        (header, value)
        for header, value in _end_to_end(headers)
        if header.lower() not in NOT_FOR_RD_STATION
        and not header.lower().startswith(PREFIXES_NOT_FOR_RD_STATION)
    )


def for_caller(headers: Headers, api_url: str) -> Headers:
    """Return the headers of RD Station's response for the caller: those of FOR_THE_CALLER, and two more.

    `Content-Length` if it is valid. A `Location` at RD Station becomes one of this service; any other is left out.
    """
    kept = [(header, value) for header, value in _end_to_end(headers) if header.lower() in FOR_THE_CALLER]
    named = _values(headers)
    (length,) = named.get("content-length", [""])[:1]
    if LENGTH.fullmatch(length) and "transfer-encoding" not in named:
        kept.append(("Content-Length", length))
    location = _through_us(named.get("location", [""])[0], api_url)
    if location is not None:
        kept.append(("Location", location))
    return tuple(kept)


def _end_to_end(headers: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the valid headers that `Connection` does not name."""
    given = list(headers)
    named = {
        name.strip().lower()
        for header, value in given
        if header.lower() == "connection"
        for name in value.split(",")
    }
    for header, value in given:
        if header.lower() not in named and NAME.fullmatch(header) and VALUE.fullmatch(value):
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
