"""Receives lead events from RD Station. Only the secret in the URL authenticates it."""

from flask import Blueprint, Flask, current_app, jsonify
from flask.typing import ResponseReturnValue

from rdservice.access import throttle
from rdservice.database.pool import transaction
from rdservice.errors import RdServiceError
from rdservice.events import intake, payloads
from rdservice.events.intake import Lanes, Taken, UnknownSecret
from rdservice.events.payloads import Delivery
from rdservice.web.http import bodies, guard
from rdservice.web.http.context import client_address, json_body, services

bp = Blueprint("webhooks", __name__)

MAX_BODY_BYTES = 512 * 1024
"""Enough for an array of events; one has a few kilobytes."""
LANES = "rdservice_webhook_lanes"


def init_app(app: Flask) -> None:
    """Prepare `app` for the routes of `bp`."""
    app.extensions[LANES] = Lanes()


@bp.post("/rd/webhooks/<secret>")
@bodies.takes(MAX_BODY_BYTES)
@guard.public
def receive(secret: str) -> ResponseReturnValue:
    """Store one delivery, and respond after the commit."""
    metrics = services().metrics
    try:
        taken = intake.receive(services(), current_app.extensions[LANES], secret, _delivery())
    except UnknownSecret:
        metrics.webhook_events("refused", 1)
        _count_refused_secret()
        raise
    except RdServiceError:
        metrics.webhook_events("refused", 1)
        raise
    metrics.webhook_events("stored", taken.stored)
    metrics.webhook_events("late", taken.late)
    metrics.webhook_events("duplicate", taken.duplicates)
    metrics.webhook_events("refused", taken.refused)
    return jsonify(_told(taken))


def _delivery() -> Delivery | RdServiceError:
    """Return the delivery in the body, or the error to report to a caller that knows a valid secret."""
    try:
        return payloads.read(json_body())
    except RdServiceError as error:
        return error


def _count_refused_secret() -> None:
    """Count a wrong secret like a refused API key. Raises TooManyRequests when this address has sent too many."""
    limits = throttle.key_limits(services().settings.secret_key, client_address())
    with transaction(services().pool) as conn:
        throttle.count_attempt(conn, limits)


def _told(taken: Taken) -> dict[str, int]:
    return {
        "stored": taken.stored,
        "late": taken.late,
        "duplicates": taken.duplicates,
        "refused": taken.refused,
    }
