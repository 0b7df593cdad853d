"""Parses NOTIFY_URLS, a list of apprise URLs, which hold passwords and tokens. Does not call apprise."""

import re
from collections.abc import Sequence
from urllib.parse import unquote

from rdservice.config.problems import Code, Problem

VARIABLE = "NOTIFY_URLS"
EXAMPLE = "mailtos://user:password@example.com?to=team@example.com"
SHORTEST_PART = 10
"""Shorter parts of a URL are too short to be secrets, or are words that logs need."""

SEPARATOR = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+]*://)|\s+|,+$")
"""A comma may be part of a URL, so it separates two URLs only when a scheme follows."""
DOMAIN = re.compile(r"(?i)(?:[a-z0-9-]+\.)+[a-z]{2,}")


def split(text: str) -> tuple[str, ...]:
    """Return the URLs of a list separated by white space, or by commas before a scheme; without duplicates."""
    return tuple(dict.fromkeys(part.strip(",") for part in SEPARATOR.split(text) if part.strip(",")))


def mistake(url: str) -> Code | None:
    """Return the problem that a URL's form shows; None when only apprise can judge it."""
    if "://" in url:
        return None
    return "notify_url_e_mail" if re.fullmatch(r"[^@\s]+@[^@\s]+", url) else "notify_url_no_scheme"


def why_unusable(url: str) -> Code:
    """Return the problem of a URL that apprise refuses.

    `mistake` does not report web addresses, because apprise accepts those of some services, such as Slack's webhooks.
    """
    scheme = url.partition("://")[0].lower()
    return "notify_url_web_address" if scheme in {"http", "https"} else "notify_url_unusable"


def problem(entry: int, code: Code) -> Problem:
    """Return the problem `code` of entry number `entry` in the list, counted from 1."""
    return Problem(variable=VARIABLE, code=code, facts={"entry": entry}, example=EXAMPLE)


def label(url: str) -> str:
    """Return the scheme and, if the host is a domain name, the masked host: `jsons://ho….com`.

    Any other host is left out: many apprise URLs have a token in its place.
    """
    scheme, _, rest = url.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2].partition(":")[0]
    if not DOMAIN.fullmatch(host):
        return f"{scheme.lower()}://…"
    return f"{scheme.lower()}://{host[:2]}….{host.rpartition('.')[2]}".lower()


def secrets_in(urls: Sequence[str]) -> set[str]:
    """Return what must not appear in logs: each URL, and its parts that may be a password or a token."""
    found = set(urls)
    for url in urls:
        rest = url.partition("://")[2]
        for part in re.split(r"[/?#&=@:,]", rest):
            if len(part) >= SHORTEST_PART and not DOMAIN.fullmatch(part):
                found |= {part, unquote(part)}
        userinfo = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[0]
        if userinfo:
            found |= {userinfo, userinfo.partition(":")[2] or userinfo}
    return found
