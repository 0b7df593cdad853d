"""The errors that callers see: one tree, which `rdservice.web.http.problems` maps to HTTP.

`code` is one of a closed list, which docs/en/reference/errors.md documents. `detail` says what to do and never holds a
secret.
"""

from collections.abc import Mapping

from rdservice.text.catalogue import Language, translated


class RdServiceError(Exception):
    """Base class of all errors that this service reports to a caller.

    `detail` is an English sentence, and `values` replace the placeholders `%(name)s` in it. If it is marked with
    `message`, people read it in their own language. `retry_after_s` (seconds) becomes the `Retry-After` header. `extra`
    has further members of the problem document (RFC 9457).
    """

    status = 500
    code = "internal_error"
    title = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        values: Mapping[str, object] | None = None,
        retry_after_s: float | None = None,
        extra: Mapping[str, str | int | float] | None = None,
    ) -> None:
        self.sentence = detail
        self.values = dict(values or {})
        self.detail = self.told("en")
        super().__init__(self.detail)
        self.retry_after_s = retry_after_s
        self.extra = dict(extra or {})

    def told(self, language: Language) -> str:
        """Return the detail in `language`, or in English if it has no translation."""
        return translated(language, self.sentence, **self.values)


class BadRequest(RdServiceError):
    """The request is malformed: it is not JSON, or has an unreadable parameter."""

    status, code, title = 400, "bad_request", "Bad request"


class Unauthorized(RdServiceError):
    """The request has neither a valid API key nor a session."""

    status, code, title = 401, "unauthorized", "Unauthorized"


class Forbidden(RdServiceError):
    """The API key is valid but lacks the scope."""

    status, code, title = 403, "insufficient_scope", "Forbidden"


class CsrfFailed(RdServiceError):
    """The request has a session but not its CSRF token."""

    status, code, title = 403, "csrf_failed", "CSRF token missing or wrong"


class RouteForbidden(RdServiceError):
    """The route of RD Station is not available through this service."""

    status, code, title = 403, "route_forbidden", "Route not for callers"


class NotFound(RdServiceError):
    status, code, title = 404, "not_found", "Not found"


class NotConnected(RdServiceError):
    """The account has no row. `extra` has `reauthorize_url`."""

    status, code, title = 409, "not_connected", "Account not connected"


class ReauthorizationRequired(RdServiceError):
    """RD Station refused the refresh token, so an operator must authorize again. `extra` has `reauthorize_url`."""

    status, code, title = 409, "reauthorization_required", "Authorization must be renewed"


class AnotherAccount(RdServiceError):
    """The uploaded tokens belong to another RD Station account than the one that is connected under this name."""

    status, code, title = 409, "another_account", "Tokens of another RD Station account"


class PayloadTooLarge(RdServiceError):
    """The request's body is larger than its route accepts."""

    status, code, title = 413, "payload_too_large", "Payload too large"


class UnsupportedMediaType(RdServiceError):
    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


class InvalidState(RdServiceError):
    """The callback's `state` is missing, unknown, already used, over ten minutes old, or another operator's."""

    status, code, title = 400, "invalid_state", "Authorization not recognized"


class ConsentRefused(RdServiceError):
    """The operator refused the authorization in RD Station's dialog."""

    status, code, title = 403, "consent_refused", "Authorization refused"


class CodeExpired(RdServiceError):
    """RD Station refused the authorization code: it was already used or is over an hour old."""

    status, code, title = 400, "code_expired", "Authorization code expired"


class CodeRefused(RdServiceError):
    """RD Station refused the authorization code or the client secret: its response does not tell which."""

    status, code, title = 502, "code_refused", "Authorization code or client credentials refused"


class InvalidField(RdServiceError):
    """A field is missing, empty, too large or of the wrong type. `extra` has its name as `field`."""

    status, code, title = 422, "invalid_field", "Invalid field"


class TokenRefused(RdServiceError):
    """RD Station responded with 401 to the uploaded access token."""

    status, code, title = 422, "token_refused", "Token refused by RD Station"


class TooManyRequests(RdServiceError):
    """The caller is throttled, or a back-off or the rate budget delays all callers."""

    status, code, title = 429, "too_many_requests", "Too many requests"


class RdStationFailed(RdServiceError):
    """RD Station's response cannot be used."""

    status, code, title = 502, "rdstation_failed", "RD Station failed"


class RdStationUnavailable(RdServiceError):
    """RD Station cannot be reached, or a refresh takes too long. Try again later."""

    status, code, title = 503, "rdstation_unavailable", "RD Station unavailable"


class RdStationTimeout(RdServiceError):
    """RD Station did not respond in time."""

    status, code, title = 504, "rdstation_timeout", "RD Station took too long"


class CredentialsRefused(RdServiceError):
    """RD Station refuses the client ID and secrets: the settings are wrong, not the tokens."""

    status, code, title = 503, "credentials_refused", "Client credentials refused by RD Station"


class DatabaseUnavailable(RdServiceError):
    status, code, title = 503, "database_unavailable", "Database unavailable"


class TokenUnreadable(RdServiceError):
    """The configured encryption keys cannot decrypt the stored value."""

    status, code, title = 503, "token_unreadable", "Stored token cannot be decrypted"
