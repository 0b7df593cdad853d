"""Paths of this service: pages and actions of an account, and valid redirect targets."""

import re
from urllib.parse import quote

from rdservice.names import account_page

# Visible ASCII without backslash: browsers treat a backslash as a slash, and drop tabs and line ends.
LOCAL_PATH = re.compile(r"/(?!/)[\x21-\x5b\x5d-\x7e]{0,2000}|/")


def login_url(account_id: str) -> str:
    """Return the path that redirects to RD Station's dialog. It has no host, so it works on the operator's one."""
    return f"/rd/login?account_id={quote(account_id, safe='')}"


def disconnect_page(account_id: str) -> str:
    """Return the path of the page that asks whether to disconnect the account."""
    path, mark, query = account_page(account_id).partition("?")
    return f"{path}/disconnect{mark}{query}"


def action_path(account_id: str, action: str) -> str:
    """Return the path to which the account's button for `action` posts."""
    path, mark, query = account_page(account_id).partition("?")
    return f"{path.replace('/accounts/', '/rd/tokens/', 1)}/{action}{mark}{query}"


def local_path(target: str | None) -> str | None:
    """Return `target` if every browser resolves it to a path on this service, else None (prevents open redirects)."""
    return target if target and LOCAL_PATH.fullmatch(target) else None
