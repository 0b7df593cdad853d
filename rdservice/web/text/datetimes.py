"""Formats times and numbers in the reader's time zone and language.

A script on every page (`static/zone.js`) stores the browser's time zone in a cookie. Without JavaScript, or if the
cookie names no zone of the IANA time zone database, times are in São Paulo's zone. Templates use the filters
`local_time` and `number` and the function `zone_words`; code uses `local_time` and `number_words`.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel.dates import get_timezone_name
from flask import Flask, request
from flask_babel import format_datetime, format_decimal, format_timedelta, get_locale, get_timezone
from markupsafe import Markup

from rdservice.web.text.languages import gettext

COOKIE = "rdservice_zone"
DEFAULT = "America/Sao_Paulo"
ZONE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,30}(/[A-Za-z0-9_+-]{1,30}){0,2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTime:
    """A time as a page shows it.

    `text` is in the reader's zone and language, `full` also names the zone, `machine` is RFC 3339 in UTC. `distance` is
    relative to now ("in 5 hours"), or empty.
    """

    text: str
    full: str
    machine: str
    distance: str = ""

    def __html__(self) -> Markup:
        """Return the `<time>` element for templates, followed by the distance."""
        element = Markup('<time datetime="{}" title="{}">{}</time>').format(
            self.machine, self.full, self.text
        )
        if not self.distance:
            return element
        return element + Markup(' <span class="small">({})</span>').format(self.distance)


def init_app(app: Flask) -> None:
    """Register the filters for templates. Call after `languages.init_app`."""
    app.jinja_env.filters["local_time"] = local_time
    app.jinja_env.filters["number"] = number_words
    app.jinja_env.globals["zone_words"] = zone_words


def preferred_zone() -> tzinfo:
    """Return the time zone that this request's cookie names, else the default."""
    name = request.cookies.get(COOKIE, "")
    return (_zone(name) if ZONE_NAME.fullmatch(name) else None) or ZoneInfo(DEFAULT)


def local_time(value: datetime, now: datetime | None = None) -> LocalTime:
    """Return the aware time `value` for this request's reader, with its distance if `now` is given.

    `now` must come from the same clock as `value`, usually the database's.
    """
    return LocalTime(
        text=str(format_datetime(value, "medium")),
        full=str(format_datetime(value, "long")),
        machine=value.astimezone(UTC).isoformat(timespec="seconds"),
        distance="" if now is None else distance_words(value, now),
    )


def distance_words(value: datetime, now: datetime) -> str:
    """Return the distance of `value` from `now` in words: "in 5 hours", "2 minutes ago", "now"."""
    if abs((value - now).total_seconds()) < 1:
        return gettext("now")
    # With the default threshold of 0.85, 21 hours would be a day.
    distance = str(format_timedelta(value - now, threshold=1))
    if value > now:
        return gettext("in %(distance)s", distance=distance)
    return gettext("%(distance)s ago", distance=distance)


def number_words(number: float) -> str:
    """Return `number` with the separators of the reader's language."""
    return str(format_decimal(number))


def zone_words() -> str:
    """Return the name of this page's time zone in the reader's language, with its IANA name."""
    zone = get_timezone()
    if "/" not in str(zone) or str(zone).startswith("Etc/"):
        # UTC and similar zones belong to no place and have no other name.
        return str(zone)
    return f"{get_timezone_name(zone, locale=get_locale())} ({zone})"


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # No such zone, or a file of another kind in the database, or a directory such as a continent.
        return None
