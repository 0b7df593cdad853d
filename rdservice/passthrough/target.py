"""Checks the target of a program's request, which is sent to RD Station unchanged or refused.

The target is sent on byte for byte, because RD Station, not this service, defines what its percent-encoding means. So
the check considers every way in which a server could read it, and refuses a target that could leave its path or reach a
route that issues or revokes tokens.
"""

import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from rdservice.errors import BadRequest, RouteForbidden

PREFIX = "/rd/api"
TOKEN_ROUTES = frozenset({"auth", "oauth", "oauth2"})
"""First segments of the routes that issue, refresh or revoke tokens."""
MOST_LAYERS = 4
"""How many times the check decodes percent-encoding: a gateway may decode once more than the server behind it."""

# RFC 3986 3.3 and 3.4. Clients also send other visible characters in queries without encoding them.
PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
QUERY = re.compile(r"[!\"$-~]*")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def target_of(raw_uri: str) -> str:
    """Return RD Station's path and query from the request target that a client sent.

    Raises BadRequest for an ambiguous target, RouteForbidden for a route of tokens.
    """
    path, mark, query = raw_uri.removeprefix(PREFIX).partition("?")
    if not raw_uri.startswith(f"{PREFIX}/") or not PATH.fullmatch(path):
        raise BadRequest(
            f"Send {PREFIX}/ followed by RD Station's path, percent-encoded where necessary, for example"
            f" {PREFIX}/platform/contacts/fields."
        )
    if not QUERY.fullmatch(query):
        raise BadRequest("The query has characters that must be percent-encoded.")
    for reading in _readings(path):
        _check(reading)
    return path + mark + query


def _readings(path: str) -> Iterator[str]:
    """Yield the path decoded once, twice and so on, until there is no percent-encoding left."""
    for _ in range(MOST_LAYERS):
        decoded = unquote_to_bytes(path).decode("utf-8", "replace")
        yield decoded
        if decoded == path:
            return
        path = decoded
    raise BadRequest("The path is percent-encoded too many times.")


def _check(path: str) -> None:
    if CONTROL.search(path):
        raise BadRequest("The path has control characters.")
    # Some servers read a backslash as a slash, and ignore the part of a segment after a semicolon.
    segments = [
        unicodedata.normalize("NFKC", segment).partition(";")[0].strip().casefold()
        for segment in path.replace("\\", "/").split("/")[1:]
    ]
    if segments[0] in TOKEN_ROUTES:
        raise RouteForbidden(
            "RD Station's token routes are not available: this service refreshes and revokes tokens itself. Get a valid"
            " access token from /rd/tokens/<account_id>/access-token."
        )
    if any(segment in ("", ".", "..") for segment in segments[:-1]) or segments[-1] in (".", ".."):
        raise BadRequest("The path has an empty segment, '.' or '..'. Send it in its shortest form.")
