"""The context of a request: the process's services, the request's id, query and JSON body, the client's preferences."""

import json
import random
import re
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, unquote_to_bytes

from flask import current_app, g, request

from rdservice import errors

if TYPE_CHECKING:
    from rdservice.services import Services

EXTENSION = "rdservice"
"""The key in `app.extensions` under which `create_app` keeps the services."""


def services() -> "Services":
    """Return the services of this process (settings, pool, token memory, …)."""
    return cast("Services", current_app.extensions[EXTENSION])


def request_id() -> str:
    """Return the id of this request."""
    if "request_id" not in g:
        g.request_id = choose_request_id(
            request.headers.get("X-Request-ID", ""), believe=services().settings.trusted_proxies > 0
        )
    return cast(str, g.request_id)


def choose_request_id(given: str, *, believe: bool) -> str:
    """Return the `X-Request-ID` of a trusted proxy if it has a plausible form, else a new id.

    An id from a client would let it write log lines under the id of another request.
    """
    if believe and re.fullmatch(r"[A-Za-z0-9-]{8,64}", given):
        return given
    # The id must be unique but may be guessable. Reading the operating system's random numbers releases the
    # interpreter's lock, which costs a busy process a quarter of its throughput.
    return f"{random.getrandbits(128):032x}"


def client_address() -> str:
    """Return the client's address: the outermost one that TRUSTED_PROXIES allows to trust."""
    return request.remote_addr or "unknown"


def requested_path() -> str:
    """Return path and query of this request, encoded as in a link to it."""
    path = quote(request.path, safe="/:@!$&'()*+,;=~")
    query = request.query_string.decode("ascii", "replace")
    return f"{path}?{query}" if query else path


def prefers_html() -> bool:
    """Return whether the client is a browser: it prefers HTML to JSON and does not accept just anything."""
    offered = ["application/json", "application/problem+json", "text/html"]
    return request.accept_mimetypes.best_match(offered) == "text/html"


def query_text(name: str) -> str | None:
    """Return the query parameter `name`; None when it is missing.

    Raises InvalidField when it occurs twice, or is not percent-encoded UTF-8.
    """
    given = request.args.getlist(name)
    if len(given) > 1:
        # Another program that reads this URL, such as a proxy, may use a different one of them.
        raise errors.InvalidField(f"{name} is given more than once.", extra={"field": name})
    # Werkzeug keeps invalid UTF-8 as it is, so %FF would be the same as %25FF.
    if given and "%" in given[0] and not _is_utf8(request.query_string):
        raise errors.InvalidField(f"{name} is not percent-encoded UTF-8.", extra={"field": name})
    return given[0] if given else None


def _is_utf8(query: bytes) -> bool:
    try:
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        return False
    return True


def json_body() -> Any:
    """Return the decoded body. Raises UnsupportedMediaType or BadRequest when it is not JSON (RFC 8259).

    Strict: UTF-8, no duplicate members, no NaN. Other parsers may read such input differently.
    """
    if not request.is_json:
        raise errors.UnsupportedMediaType("Send JSON with 'Content-Type: application/json'.")
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise errors.UnsupportedMediaType("Send the body without Content-Encoding.")
    try:
        return json.loads(
            request.get_data().decode(), object_pairs_hook=_members, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        raise errors.BadRequest("The body is not valid JSON in UTF-8, or has a duplicate member.") from None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
