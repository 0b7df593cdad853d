"""Times and numbers for people: in the reader's time zone and language, with the time for machines beside it.

A script that every page loads (`static/zone.js`) keeps the browser's time zone in a cookie. Without JavaScript, and
where the cookie names no zone of the IANA time zone database, times are those of São Paulo. Templates have the filters
`moment` and `number` and the function `zone_words`; code has `moment_of` and `number_words`.
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
class Moment:
    """A time for people and for machines.

    `text` is in the reader's zone and language, `full` also names the zone, `machine` is RFC 3339 in UTC. `distance`
    says how far off it is ("in 5 hours"), empty where that was not asked for.
    """

    text: str
    full: str
    machine: str
    distance: str = ""

    def __html__(self) -> Markup:
        """Return the `<time>` element for templates, with the distance behind it."""
        element = Markup('<time datetime="{}" title="{}">{}</time>').format(
            self.machine, self.full, self.text
        )
        if not self.distance:
            return element
        return element + Markup(' <span class="small">({})</span>').format(self.distance)


def init_app(app: Flask) -> None:
    """Give the templates of `app` the filters. Call after `languages.init_app`."""
    app.jinja_env.filters["moment"] = moment_of
    app.jinja_env.filters["number"] = number_words
    app.jinja_env.globals["zone_words"] = zone_words


def preferred_zone() -> tzinfo:
    """Return the time zone that this request's cookie names, else the default."""
    name = request.cookies.get(COOKIE, "")
    return (_zone(name) if ZONE_NAME.fullmatch(name) else None) or ZoneInfo(DEFAULT)


def moment_of(moment: datetime, now: datetime | None = None) -> Moment:
    """Return the aware time `moment` for this request's reader, with its distance from `now` where that is given.

    `now` is the database's, which read the moment too: this process's clock may be another.
    """
    return Moment(
        text=str(format_datetime(moment, "medium")),
        full=str(format_datetime(moment, "long")),
        machine=moment.astimezone(UTC).isoformat(timespec="seconds"),
        distance="" if now is None else distance_words(moment, now),
    )


def distance_words(moment: datetime, now: datetime) -> str:
    """Return how far `moment` is from `now` in words: "in 5 hours", "2 minutes ago", "now"."""
    if abs((moment - now).total_seconds()) < 1:
        return gettext("now")
    # By the default of 0.85, 21 hours were a day.
    distance = str(format_timedelta(moment - now, threshold=1))
    if moment > now:
        return gettext("in %(distance)s", distance=distance)
    return gettext("%(distance)s ago", distance=distance)


def number_words(number: float) -> str:
    """Return `number` with the separators of the reader's language."""
    return str(format_decimal(number))


def zone_words() -> str:
    """Return the name of the zone that this page's times are in, as people say it and as the database of zones does."""
    zone = get_timezone()
    if "/" not in str(zone) or str(zone).startswith("Etc/"):
        # UTC and its like are no place's time: people have no other name for them.
        return str(zone)
    return f"{get_timezone_name(zone, locale=get_locale())} ({zone})"


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # No such zone; a file of another kind beside the zones; the folder of a continent.
        return None
