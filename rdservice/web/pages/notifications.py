"""The page of notifications: targets, messages, open incidents, and a button that sends a test."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from flask import Blueprint, flash, redirect, url_for
from flask.typing import ResponseReturnValue

from rdservice.access import audit
from rdservice.config import notify_urls
from rdservice.database.pool import transaction
from rdservice.notifications import deliveries, incidents
from rdservice.notifications.deliveries import Delivery
from rdservice.notifications.incidents import OpenIncident
from rdservice.notifications.targets import targets
from rdservice.web.http import guard
from rdservice.web.http.context import services
from rdservice.web.pages import live
from rdservice.web.text.datetimes import LocalTime, local_time
from rdservice.web.text.languages import gettext
from rdservice.web.text.notification_texts import incident_words, kind_words, outcome_words, tone

bp = Blueprint("notifications", __name__)

MOST_MESSAGES = 30
MOST_INCIDENTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A message to one target as the page shows it."""

    label: str
    tone: str
    outcome: str
    attempted: LocalTime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message with its outcome at each target."""

    number: int
    kind: str
    created: LocalTime
    lines: list[Line]


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """An open incident."""

    account_id: str | None
    name: str | None = field(repr=False)
    words: str
    since: LocalTime
    told: bool


@bp.get("/notifications")
@guard.operator_only
def show() -> ResponseReturnValue:
    """Show the targets, the newest messages and the open incidents."""
    with transaction(services().pool) as conn:
        sent = deliveries.newest(conn, limit=MOST_MESSAGES)
        open_incidents = incidents.open_now(conn, limit=MOST_INCIDENTS)
    return live.respond(
        "notifications.html",
        "notifications_part.html",
        targets=[notify_urls.label(url) for url in services().settings.notify_urls],
        messages=_messages(sent),
        incidents=[_incident(incident) for incident in open_incidents],
    )


@bp.post("/notifications/test")
@guard.operator_only
def test() -> ResponseReturnValue:
    """Create a test message to all targets, which the worker sends. The page shows the outcome."""
    settings = services().settings
    if not settings.notify_urls:
        flash(gettext("A test cannot be sent: NOTIFY_URLS is not set."), "error")
        return redirect(url_for("notifications.show"), code=303)
    with transaction(services().pool) as conn:
        number = deliveries.begin_test(conn, targets(settings.notify_urls, settings.secret_key))
        audit.record(conn, guard.author(), "notification_tested", subject=str(number))
    flash(gettext("The worker sends the test now. Its result appears below."), "success")
    return redirect(url_for("notifications.show"), code=303)


def _messages(sent: Sequence[Delivery]) -> list[Message]:
    found = []
    for number, group in groupby(sent, key=lambda delivery: delivery.notification_id):
        of_one = list(group)
        found.append(
            Message(
                number=number,
                kind=kind_words(of_one[0].kind),
                created=local_time(of_one[0].created_at),
                lines=[_line(delivery) for delivery in of_one],
            )
        )
    return found


def _line(delivery: Delivery) -> Line:
    return Line(
        label=delivery.label,
        tone=tone(delivery.outcome, delivery.error),
        outcome=outcome_words(delivery.outcome, delivery.error, delivery.attempts),
        attempted=local_time(delivery.attempted_at) if delivery.attempted_at else None,
    )


def _incident(incident: OpenIncident) -> Incident:
    return Incident(
        account_id=incident.account_id,
        name=incident.name,
        words=incident_words(incident.kind, well=incident.well_since is not None),
        since=local_time(incident.opened_at),
        told=incident.told,
    )
