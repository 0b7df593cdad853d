"""Serves the OpenAPI 3.1 description of all routes, for programs and for generators of clients."""

from pathlib import Path

from flask import Blueprint, Response

from rdservice.web.http import guard

bp = Blueprint("openapi", __name__)

DOCUMENT = Path(__file__).with_name("openapi.json").read_bytes()
"""The JSON document, read once."""


@bp.get("/openapi.json")
@guard.public
def document() -> Response:
    """Return the OpenAPI document of this service."""
    return Response(DOCUMENT, mimetype="application/json")
