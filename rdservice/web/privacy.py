"""Erasing a person over HTTP."""

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from rdservice import errors, privacy
from rdservice.web import guard
from rdservice.web.context import json_body, services

bp = Blueprint("privacy", __name__)


@bp.post("/rd/privacy/erase")
@guard.requires("privacy:erase")
def erase() -> ResponseReturnValue:
    """Erase the person with the e-mail address of the body from all that is kept here."""
    body = json_body()
    if not isinstance(body, dict):
        raise errors.BadRequest('Send a JSON object, such as {"email": "ana@example.com"}.')
    erased = privacy.erase(services(), body.get("email"), by=guard.author())
    return jsonify(privacy.report(erased))
