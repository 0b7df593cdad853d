"""Turns every error into a response: `application/problem+json` (RFC 9457), or a page if the client prefers HTML."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import psycopg.errors
from flask import Flask, Response, jsonify, make_response, render_template, request
from werkzeug.exceptions import BadHost, HTTPException

from rdservice.database import outage
from rdservice.database.pool import UNAVAILABLE
from rdservice.errors import (
    BadRequest,
    DatabaseUnavailable,
    NotFound,
    RdServiceError,
    TooManyRequests,
    Unauthorized,
)
from rdservice.web.http.context import prefers_html, request_id
from rdservice.web.text.problem_texts import page_text

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
DATABASE_RETRY_S = 5
SCHEMA_BEHIND = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedObject,
)
"""Errors that PostgreSQL raises when migrations are missing."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An error response. `detail` is English and says what to do; pages show the text of `code` in their language."""

    status: int
    code: str
    title: str
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, str | int | float] = field(default_factory=dict)


FRAMEWORK = {
    400: (BadRequest.code, BadRequest.title, "The request is malformed. Check its parameters and its body."),
    401: (
        Unauthorized.code,
        Unauthorized.title,
        "Send an API key as 'Authorization: Bearer rdk_…', or log in.",
    ),
    404: (
        NotFound.code,
        NotFound.title,
        "There is nothing at this address. /openapi.json lists all routes.",
    ),
    405: (
        "method_not_allowed",
        "Method not allowed",
        "This address supports other methods: see the Allow header.",
    ),
    413: (
        "payload_too_large",
        "Payload too large",
        "A request body may have at most 64 KiB, a webhook delivery 512 KiB.",
    ),
    415: (
        "unsupported_media_type",
        "Unsupported media type",
        "Send JSON with 'Content-Type: application/json'.",
    ),
    429: (TooManyRequests.code, TooManyRequests.title, "Wait for the time in Retry-After."),
}
"""Errors that Flask and Werkzeug raise: status to code, title and detail."""


def init_app(app: Flask) -> None:
    """Register the handlers that turn every error of `app` into a problem."""
    app.register_error_handler(RdServiceError, on_service_error)
    app.register_error_handler(HTTPException, on_http_exception)
    for unavailable in UNAVAILABLE:
        app.register_error_handler(unavailable, on_database_unavailable)
    for behind in SCHEMA_BEHIND:
        app.register_error_handler(behind, on_schema_behind)
    app.register_error_handler(Exception, on_unexpected)


def on_service_error(error: RdServiceError) -> Response:
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return response_of(
        Problem(
            status=error.status,
            code=error.code,
            title=error.title,
            detail=error.detail,
            headers=headers,
            extra=error.extra,
        )
    )


def on_http_exception(error: HTTPException) -> Response | HTTPException:
    """Convert an error of the framework. Replaces its sentences, which quote the request."""
    if error.response is not None or error.code is None or error.code < 400:
        return error
    if error.code in FRAMEWORK:
        code, title, detail = FRAMEWORK[error.code]
    else:
        code = BadRequest.code if error.code < 500 else RdServiceError.code
        title = error.name
        detail = "The request cannot be served in this form."
    kept = {"Allow", "Retry-After", "WWW-Authenticate"}
    headers = {name: value for name, value in error.get_headers() if name in kept}
    if error.code == HTTPStatus.UNAUTHORIZED:
        headers.setdefault("WWW-Authenticate", "Bearer")
    return response_of(Problem(status=error.code, code=code, title=title, detail=detail, headers=headers))


def on_database_unavailable(error: Exception) -> Response:
    outage.log.warning("database unavailable: %s", type(error).__name__, exc_info=error)
    return on_service_error(
        DatabaseUnavailable(
            "The database does not respond. Try again in a moment; if the error persists, check DATABASE_URL and the"
            " server.",
            retry_after_s=DATABASE_RETRY_S,
        )
    )


def on_schema_behind(error: Exception) -> Response:
    log.error("the database lacks what this version needs: run 'flask release'", exc_info=error)
    return on_service_error(
        DatabaseUnavailable(
            "The database lacks tables that this version needs. Run 'flask release'.",
            retry_after_s=DATABASE_RETRY_S,
        )
    )


def on_unexpected(error: Exception) -> Response:
    log.error("unexpected error", exc_info=error)
    return on_service_error(
        RdServiceError("Something unexpected went wrong. The log has the cause under this request_id.")
    )


def response_of(problem: Problem) -> Response:
    """Return `problem` as JSON, or as a page for browsers."""
    # With an invalid Host header, a page could not build its links.
    if prefers_html() and not isinstance(request.routing_exception, BadHost):
        text = page_text(problem.code)
        page = render_template("problem.html", problem=problem, text=text, request_id=request_id())
        response = make_response(page, problem.status)
    else:
        response = jsonify(
            {
                **problem.extra,
                "type": f"urn:rdservice:problem:{problem.code}",
                "title": problem.title,
                "status": problem.status,
                "detail": problem.detail,
                "code": problem.code,
                "request_id": request_id(),
            }
        )
        response.status_code = problem.status
        response.mimetype = MEDIA_TYPE
    response.headers.extend(problem.headers)
    return response
