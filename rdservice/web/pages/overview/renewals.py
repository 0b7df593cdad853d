"""An account's timeline: refreshes per day of the last 30 days, and the latest attempts in words."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import psycopg
from flask_babel import format_date, get_timezone

from rdservice.tokens import attempts
from rdservice.tokens.attempts import Attempt
from rdservice.web.text.datetimes import LocalTime, local_time, number_words
from rdservice.web.text.languages import gettext, ngettext
from rdservice.web.text.status_texts import attempt_words, reason_words

LATEST = 10
CUT_OFF_AFTER = timedelta(minutes=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """A day of the timeline. `tone`: ok, warn (some failed, some succeeded), bad (all failed), or none."""

    tone: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An attempt in words."""

    tone: str
    title: str
    detail: str
    started: LocalTime


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The timeline of an account. `days`: 30 days, today last."""

    days: list[Day]
    summary: str
    events: list[Event]


def read(conn: psycopg.Connection[Any], account_id: str, now: datetime) -> Timeline:
    """Return the account's timeline for this request's reader. `now`: the database's time."""
    today = now.astimezone(get_timezone()).date()
    counts: dict[date, list[int]] = defaultdict(lambda: [0, 0, 0])
    for hour in attempts.by_hour(conn, account_id):
        of_day = counts[hour.hour.astimezone(get_timezone()).date()]
        for column, number in enumerate((hour.stored, hour.refused, hour.postponed)):
            of_day[column] += number
    days = [today - timedelta(days=ago) for ago in range(attempts.KEEP_DAYS - 1, -1, -1)]
    totals = [sum(numbers) for numbers in zip(*(counts[day] for day in days), strict=True)]
    return Timeline(
        days=[_day(day, *counts[day]) for day in days],
        summary=gettext("Renewals of the last 30 days: %(numbers)s.", numbers=_numbers(*totals)),
        events=[_event(attempt, now) for attempt in attempts.recent(conn, account_id, limit=LATEST)],
    )


def _day(day: date, stored: int, refused: int, postponed: int) -> Day:
    failed = refused + postponed
    tone = "none" if not stored + failed else "ok" if not failed else "warn" if stored else "bad"
    what = _numbers(stored, refused, postponed) if tone != "none" else gettext("none")
    return Day(tone=tone, words=f"{format_date(day, 'medium')}: {what}")


def _numbers(stored: int, refused: int, postponed: int) -> str:
    return ", ".join(
        (
            ngettext("%(count)s succeeded", "%(count)s succeeded", stored, count=number_words(stored)),
            ngettext("%(count)s refused", "%(count)s refused", refused, count=number_words(refused)),
            ngettext("%(count)s postponed", "%(count)s postponed", postponed, count=number_words(postponed)),
        )
    )


def _event(attempt: Attempt, now: datetime) -> Event:
    cut_off = attempt.started_at < now - CUT_OFF_AFTER
    tone, title = attempt_words(attempt.outcome, attempt.error, cut_off=cut_off)
    return Event(
        tone=tone,
        title=title,
        detail=reason_words(attempt.reason),
        started=local_time(attempt.started_at, now),
    )
