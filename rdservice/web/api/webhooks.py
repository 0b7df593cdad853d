"""Where RD Station delivers lead events. The secret in the address is all that tells it from anyone else."""

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
"""Room for an array of events; one has some kilobytes."""
LANES = "rdservice_webhook_lanes"


def init_app(app: Flask) -> None:
    """Prepare `app` for the routes of `bp`."""
    app.extensions[LANES] = Lanes()


@bp.post("/rd/webhooks/<secret>")
@bodies.takes(MAX_BODY_BYTES)
@guard.public
def receive(secret: str) -> ResponseReturnValue:
    """Take one delivery, and answer when it is committed."""
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
    """Return the delivery of the body, or the error that is told to those who know a secret."""
    try:
        return payloads.read(json_body())
    except RdServiceError as error:
        return error


def _count_refused_secret() -> None:
    """Raise TooManyRequests when this address sent too many wrong secrets: they count as wrong keys do."""
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
