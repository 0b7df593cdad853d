"""The form of NOTIFY_URLS, a list of apprise's URLs, which hold passwords and tokens. apprise itself is not asked."""

import re
from collections.abc import Sequence
from urllib.parse import unquote

from rdservice.config.problems import Code, Problem

VARIABLE = "NOTIFY_URLS"
EXAMPLE = "mailtos://user:password@example.com?to=team@example.com"
SHORTEST_PART = 10
"""Shorter parts of a URL are no secrets of their own, or are words that logs need."""

SEPARATOR = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+]*://)|\s+|,+$")
"""A comma alone may stand inside of a URL: it separates only before the next scheme."""
DOMAIN = re.compile(r"(?i)(?:[a-z0-9-]+\.)+[a-z]{2,}")


def split(text: str) -> tuple[str, ...]:
    """Return the URLs of a list that white space, or commas before a scheme, separate; each once."""
    return tuple(dict.fromkeys(part.strip(",") for part in SEPARATOR.split(text) if part.strip(",")))


def mistake(url: str) -> Code | None:
    """Return what the form of a URL shows to be wrong; None where only apprise can tell."""
    if "://" in url:
        return None
    return "notify_url_e_mail" if re.fullmatch(r"[^@\s]+@[^@\s]+", url) else "notify_url_no_scheme"


def why_unusable(url: str) -> Code:
    """Return what is wrong with a URL that apprise refuses.

    A web address is no mistake by its form: apprise takes those of some services, such as Slack's webhooks.
    """
    scheme = url.partition("://")[0].lower()
    return "notify_url_web_address" if scheme in {"http", "https"} else "notify_url_unusable"


def problem(entry: int, code: Code) -> Problem:
    """Return the mistake at the place `entry` of the list, counted from 1."""
    return Problem(variable=VARIABLE, code=code, facts={"entry": entry}, example=EXAMPLE)


def label(url: str) -> str:
    """Return the scheme and, where it is a name on the Internet, the masked host: `jsons://ho….com`.

    In many of apprise's URLs a token stands in the host's place.
    """
    scheme, _, rest = url.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2].partition(":")[0]
    if not DOMAIN.fullmatch(host):
        return f"{scheme.lower()}://…"
    return f"{scheme.lower()}://{host[:2]}….{host.rpartition('.')[2]}".lower()


def secrets_in(urls: Sequence[str]) -> set[str]:
    """Return each URL and the parts of it that may be a password or a token: what no log may hold."""
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
