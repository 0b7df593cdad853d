"""RD Station's error responses, in every form that its clients handle.

Types and messages: https://developers.rdstation.com/reference/mensagens-de-erro-rdsm; forms: the official Ruby client,
lib/rdstation/error/formatter.rb.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sandbox.messages import ApiResponse, Request, json_response

ErrorShape = Literal["object", "list", "bare", "text"]
RateLimitShape = Literal["errors", "error", "message"]

MESSAGES = {
    "UNAUTHORIZED": "Invalid token.",
    "ACCESS_DENIED": "Wrong credentials provided.",
    "EXPIRED_CODE_GRANT": "The authorization code grant has expired.",
    "INVALID_REFRESH_TOKEN": "The provided refresh token is invalid or was revoked.",
    "BAD_REQUEST": "Could not parse the body of the request according to the provided Content-Type.",
    "UNSUPPORTED_MEDIA_TYPE": "The payload is in a format not supported by this method on the target resource.",
    "RESOURCE_NOT_FOUND": "The resource couldn't be found.",
    "METHOD_NOT_ALLOWED": "The method is not allowed on the target resource.",
    "CONFLICTING_FIELD": "The payload contains an attribute that was used to identify the resource.",
    "EMAIL_ALREADY_IN_USE": "The email is already in use.",
    "FORBIDDEN": "Forbidden.",
    "PAYLOAD_TOO_LARGE": "The payload is too large.",
    "TOO_MANY_REQUESTS": "API usage limit exceeded.",
    "INTERNAL_SERVER_ERROR": "Service temporarily unavailable.",
    "ERROR": "The request could not be answered.",
}
TYPE_OF_STATUS = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "RESOURCE_NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    429: "TOO_MANY_REQUESTS",
    500: "INTERNAL_SERVER_ERROR",
}
EXPIRED_CHALLENGE = (
    'Bearer realm="https://api.rd.services/", error="expired_token", '
    'error_description="The access token expired"'
)


class ApiError(Exception):
    """An error with one pair of `error_type` and `error_message`."""

    def __init__(
        self,
        status: int,
        error_type: str,
        message: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(error_type)
        self.status = status
        self.pair = {
            "error_type": error_type,
            "error_message": message or MESSAGES.get(error_type, error_type),
        }
        self.headers = dict(headers or {})

    def response(self, shape: ErrorShape, /) -> ApiResponse:
        """Return the error as an HTTP response with a body of the given form."""
        if shape == "text":
            headers = {"Content-Type": "text/plain; charset=utf-8", **self.headers}
            return ApiResponse(status=self.status, headers=headers, body=self.pair["error_message"].encode())
        bodies: dict[str, object] = {
            "object": {"errors": self.pair},
            "list": {"errors": [self.pair]},
            "bare": self.pair,
        }
        return json_response(bodies[shape], self.status, self.headers)


class ValidationError(ApiError):
    """A 400 that names the invalid parameter and what is wrong with it. Its form does not depend on the settings."""

    def __init__(
        self, errors: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> None:
        super().__init__(400, "BAD_REQUEST")
        self.errors = errors

    def response(self, _shape: ErrorShape, /) -> ApiResponse:
        return json_response({"errors": self.errors}, self.status)


def json_body(request: Request) -> dict[str, Any]:
    """Return the body as a JSON object. Raises ApiError: 415 for another Content-Type, else 400."""
    if request.media_type != "application/json":
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE")
    body = request.json_object()
    if body is None:
        raise ApiError(400, "BAD_REQUEST")
    return body


def not_found(message: str | None = None) -> ApiError:
    return ApiError(404, "RESOURCE_NOT_FOUND", message)


def cannot_be_null(name: str) -> ValidationError:
    """Return the error for a missing member of the body; `path` as in `body.client_secret`."""
    return ValidationError(
        [{"error_type": "CANNOT_BE_NULL", "error_message": "Cannot be null.", "path": f"body.{name}"}]
    )


def invalid_option(path: str, options: Sequence[str]) -> ValidationError:
    """Return the error for a value outside a closed list; `path` as in `$.event_type`."""
    return ValidationError(
        [
            {
                "error_type": "INVALID_OPTION",
                "error_message": "Must be one of the valid options.",
                "path": path,
                "validation_rules": {"valid_options": list(options)},
            }
        ]
    )


def expired_access_token(*, behind_amazon_gateway: bool) -> ApiError:
    """Return the 401 for an expired access token. Amazon's gateway renames the header that tells so."""
    name = "x-amzn-remapped-www-authenticate" if behind_amazon_gateway else "WWW-Authenticate"
    return ApiError(401, "UNAUTHORIZED", headers={name: EXPIRED_CHALLENGE})


def rate_limited(
    shape: RateLimitShape, error_shape: ErrorShape, *, limit: int, remaining_s: int, retry_after: int | None
) -> ApiResponse:
    """Return a 429. `limit`: the allowed number of requests; `remaining_s`: seconds until the next one is allowed;
    `retry_after` (seconds): adds that header, which RD Station documents for another of its products only."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if shape == "errors":
        return ApiError(429, "TOO_MANY_REQUESTS", headers=headers).response(error_shape)
    if shape == "error":
        body = {
            "error": MESSAGES["TOO_MANY_REQUESTS"],
            "max": limit,
            "usage": limit,
            "remaining_time": remaining_s,
        }
        return json_response(body, 429, headers)
    headers |= {"ratelimit-limit-quotas": str(limit), "retry-after-quotas": str(remaining_s)}
    return json_response({"message": MESSAGES["TOO_MANY_REQUESTS"]}, 429, headers)
