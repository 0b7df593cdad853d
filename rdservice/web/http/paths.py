"""Paths of this service: those of pages and actions about an account, and those that browsers may be sent to."""

import re
from urllib.parse import quote

LOCAL_PATH = re.compile(r"/(?!/)[\x21-\x5b\x5d-\x7e]{0,2000}|/")


def login_url(account_id: str) -> str:
    """Return the path that leads to RD Station's dialog, on whatever host the operator opened the page."""
    return f"/rd/login?account_id={quote(account_id, safe='')}"


def account_path(account_id: str) -> str:
    """Return the path of the account's page."""
    return f"/accounts/{quote(account_id, safe='')}"


def refresh_path(account_id: str) -> str:
    """Return the path to which "Refresh now" is posted."""
    return f"/rd/tokens/{quote(account_id, safe='')}/refresh"


def local_path(target: str | None) -> str | None:
    """Return `target` when it is a path on this service, whatever the browser makes of it; otherwise None."""
    return target if target and LOCAL_PATH.fullmatch(target) else None
