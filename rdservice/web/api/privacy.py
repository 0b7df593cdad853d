"""Erases a person's data."""

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from rdservice import errors
from rdservice.data_protection import erasure
from rdservice.web.http import guard
from rdservice.web.http.context import json_body, services

bp = Blueprint("privacy", __name__)


@bp.post("/rd/privacy/erase")
@guard.requires("privacy:erase")
def erase() -> ResponseReturnValue:
    """Erase the person with the e-mail address in the body from all lead data of the service."""
    body = json_body()
    if not isinstance(body, dict):
        raise errors.BadRequest('Send a JSON object, such as {"email": "ana@example.com"}.')
    erased = erasure.erase(services(), body.get("email"), by=guard.author())
    return jsonify(erasure.report(erased))
