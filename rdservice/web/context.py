"""What views reach for: the process's services, the request's id and JSON body, the client's preferences."""

import json
import re
import secrets
from typing import TYPE_CHECKING, Any, cast

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
    """Return the id of this request: a trusted proxy's `X-Request-ID` when it has a plausible form, else a new one.

    Anyone else's would let a client put its lines into the log under the id of another request.
    """
    if "request_id" not in g:
        given = request.headers.get("X-Request-ID", "") if services().settings.trusted_proxies else ""
        g.request_id = given if re.fullmatch(r"[A-Za-z0-9-]{8,64}", given) else secrets.token_hex(16)
    return cast(str, g.request_id)


def client_address() -> str:
    """Return the client's address, which is the outermost one that TRUSTED_PROXIES lets us believe."""
    return request.remote_addr or "unknown"


def prefers_html() -> bool:
    """Return whether the client is a browser: it asks for HTML rather than for anything, or for JSON."""
    offered = ["application/json", "application/problem+json", "text/html"]
    return request.accept_mimetypes.best_match(offered) == "text/html"


def json_body() -> Any:
    """Return the decoded body. Raises UnsupportedMediaType or BadRequest when it is not JSON."""
    if not request.is_json:
        raise errors.UnsupportedMediaType("Send JSON with 'Content-Type: application/json'.")
    try:
        return json.loads(request.get_data())
    except (ValueError, RecursionError):
        raise errors.BadRequest("The body is not valid JSON.") from None
