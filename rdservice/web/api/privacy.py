"""Erases a person's data."""

import time

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from rdservice import errors
from rdservice.data_protection import erasure
from rdservice.leads.parameters import raise_invalid
from rdservice.web.http import guard
from rdservice.web.http.context import json_body, services

bp = Blueprint("privacy", __name__)

RD_STATION_S = 12.0
"""How long a request sends deletions to RD Station; one more call may then be under way. The command has no limit."""


@bp.post("/rd/privacy/erase")
@guard.requires("privacy:erase")
def erase() -> ResponseReturnValue:
    """Erase the person with the e-mail address or UUID in the body from all lead data of the service.

    And, if the body says so, from RD Station.
    """
    body = json_body()
    if not isinstance(body, dict):
        raise errors.BadRequest('Send a JSON object, such as {"email": "ana@example.com"}.')
    at_rd_station = body.get("at_rd_station", False)
    if not isinstance(at_rd_station, bool):
        raise_invalid("at_rd_station", "at_rd_station must be true or false.")
    for name in ("email", "uuid"):
        if name in body and body[name] is None:
            raise_invalid(name, f"{name} must be a text. Leave it out to send the other one.")
    erased = erasure.erase(
        services(),
        body.get("email"),
        uuid=body.get("uuid"),
        at_rd_station=at_rd_station,
        by=guard.author(),
        deadline=time.monotonic() + RD_STATION_S,
    )
    return jsonify(erasure.report(erased))
