"""Where a program's request goes at RD Station: the target exactly as it was sent, or nowhere.

The target is sent on byte for byte, because RD Station and not this service says what its percent-encoding means. So it
is looked at in every way in which a server could read it: whatever could leave its path or name a route that gives out
or takes back tokens is refused.
"""

import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from rdservice.errors import BadRequest, RouteForbidden

PREFIX = "/rd/api"
TOKEN_ROUTES = frozenset({"auth", "oauth", "oauth2"})
"""First segments of the routes that give out, renew or take back tokens."""
MOST_LAYERS = 4
"""How often percent-encoding is undone: some gateways do it once more than the server behind them."""

# RFC 3986 3.3 and 3.4; in queries clients also send other visible characters as they are.
PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
QUERY = re.compile(r"[!\"$-~]*")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def target_of(raw_uri: str) -> str:
    """Return path and query for RD Station from the request target that a client sent.

    Raises BadRequest for what can be read in two ways, RouteForbidden for a route that deals with tokens.
    """
    path, mark, query = raw_uri.removeprefix(PREFIX).partition("?")
    if not raw_uri.startswith(f"{PREFIX}/") or not PATH.fullmatch(path):
        raise BadRequest(
            f"Send {PREFIX}/ and RD Station's path as they are, percent-encoded where it must be, for example"
            f" {PREFIX}/platform/contacts/fields."
        )
    if not QUERY.fullmatch(query):
        raise BadRequest("The query has characters that must be percent-encoded.")
    for reading in _readings(path):
        _check(reading)
    return path + mark + query


def _readings(path: str) -> Iterator[str]:
    """Yield the path with its percent-encoding undone once, twice and so on, until nothing is left to undo."""
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
    # A backslash is a slash to some servers, and what follows a semicolon is no part of the name.
    segments = [
        unicodedata.normalize("NFKC", segment).partition(";")[0].strip().casefold()
        for segment in path.replace("\\", "/").split("/")[1:]
    ]
    if segments[0] in TOKEN_ROUTES:
        raise RouteForbidden(
            "RD Station's token routes are not for callers: this service renews and revokes tokens itself. Take a live"
            " access token from /rd/tokens/<account_id>/access-token."
        )
    if any(segment in ("", ".", "..") for segment in segments[:-1]) or segments[-1] in (".", ".."):
        raise BadRequest("The path has an empty segment, '.' or '..'. Send it in its shortest form.")
