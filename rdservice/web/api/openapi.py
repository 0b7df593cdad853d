"""The description of all routes in OpenAPI 3.1, for programs and for tools that make clients."""

from pathlib import Path

from flask import Blueprint, Response

from rdservice.web.http import guard

bp = Blueprint("openapi", __name__)

DOCUMENT = Path(__file__).with_name("openapi.json").read_bytes()
"""The JSON document as it is served, read once."""


@bp.get("/openapi.json")
@guard.public
def document() -> Response:
    """Answer the OpenAPI document of this service."""
    return Response(DOCUMENT, mimetype="application/json")
