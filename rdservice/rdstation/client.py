"""The operations of RD Station's API that this service uses, one method each.

`rdservice.rdstation.streaming` sends the requests that programs compose; nothing else connects to RD Station. Calls for
an account go through `rdservice.account_calls`.

The source of facts about the API is https://developers.rdstation.com/reference (authentication, contacts, account
info).
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import quote, urlencode

import requests
from requests.auth import AuthBase

from rdservice.config.settings import Settings
from rdservice.rdstation.deadline import CallFailed, DeadlineExceeded, Transport, WatchedTransport

WEBHOOKS_PATH = "/integrations/webhooks"
EXCHANGE_PATH = "/auth/token"
EXCHANGE_DEADLINE_S = 20.0
CALL_DEADLINE_S = 15.0
CONNECT_TIMEOUT_S = 5.0
LONGEST_WAIT_S = 86_400.0
"""Upper bound of `Retry-After`. No limit of RD Station has a window of over a day, so a longer wait is a mistake."""
MAX_RESPONSE_BYTES = 2 * 1024 * 1024

TOKEN_LIFETIME_S = 86_400
"""Documented lifetime of an access token, for responses without a usable `expires_in`."""


@dataclass(frozen=True, kw_only=True)
class ApiResponse:
    """An HTTP response of RD Station. `body` may hold tokens or personal data, so `repr` leaves it out.

    `oversized`: the body was larger than `MAX_RESPONSE_BYTES`, and `body` is empty.
    """

    operation: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    oversized: bool = False

    def json(self) -> Any:
        """Return the decoded JSON body, or None if it is not complete, valid JSON."""
        if self.oversized:
            return None
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def error_type(self) -> str | None:
        """The `error_type` (or RFC 6749 `error`) of an error body in any of the forms that RD Station uses."""
        body = self.json()
        if isinstance(body, dict) and "errors" in body:
            body = body["errors"]
        if isinstance(body, list) and body:
            body = body[0]
        if not isinstance(body, dict):
            return None
        kind = body.get("error_type") or body.get("error")
        return kind if isinstance(kind, str) else None

    @property
    def retry_after_s(self) -> float | None:
        """The `Retry-After` header in seconds, at most `LONGEST_WAIT_S`; a number or a date (RFC 9110 10.2.3)."""
        value = self.headers.get("Retry-After", "").strip()
        if re.fullmatch("[0-9]{1,100}", value):
            return min(float(value), LONGEST_WAIT_S)
        at = _moment(value)
        if at is None:
            return None
        sent = _moment(self.headers.get("Date", "")) or datetime.now(UTC)
        return min(max(0.0, (at - sent).total_seconds()), LONGEST_WAIT_S)


class TransportError(Exception):
    """RD Station did not respond. `kind` is `timeout` or `connection`.

    `sent`: the request may have reached RD Station, and so may have taken effect.
    """

    def __init__(self, operation: str, kind: str, *, sent: bool) -> None:
        super().__init__(f"{operation}: no response from RD Station ({kind})")
        self.operation = operation
        self.kind = kind
        self.sent = sent


class _Session(requests.Session):
    """A session without redirects and cookies.

    Even if told not to follow redirects, requests parses their target and reads their body, of any length. Cookies of
    one account must not be sent with the calls of another.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002
        return None


class _Bearer(AuthBase):
    """Sets the Authorization header, or none for None. Without an `auth`, requests would read a .netrc file."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class RDStation:
    """Client of the RD Station Marketing API for one app (client id). Safe to use from many threads."""

    def __init__(
        self,
        settings: Settings,
        *,
        on_call: Callable[[ApiResponse | TransportError, float], None] = lambda _outcome, _seconds: None,
        transport: Transport | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_call` gets the outcome of each call and its duration in seconds."""
        self._settings = settings
        self._on_call = on_call
        self._transport = transport or WatchedTransport()
        self._monotonic = monotonic
        self._session = new_session(self._transport)
        # Token requests are never repeated, so each has its own connection: the peer may close a kept connection at
        # the moment the request is sent.
        self._exchanges = new_session(self._transport, keeps_connections=False)

    def close(self) -> None:
        self._session.close()
        self._exchanges.close()

    def dialog_url(self, state: str) -> str:
        """Return the URL of the authorization dialog; RD Station returns `state` to the callback."""
        query = urlencode(
            {
                "client_id": self._settings.client_id,
                "redirect_uri": self._settings.redirect_uri,
                "scope": self._settings.scope,
                "state": state,
            }
        )
        return f"{self._settings.api_url}/auth/dialog?{query}"

    def open_dialog(self) -> ApiResponse:
        """Request the authorization dialog as a browser would, without authorizing anything. Raises TransportError."""
        url = self.dialog_url("diagnosis")
        return self._call("other", "GET", url.removeprefix(self._settings.api_url))

    def exchange_code(self, code: str) -> ApiResponse:
        """Exchange an authorization code (RFC 6749 4.1.3). Raises TransportError."""
        return self._token_request(
            "token_exchange",
            {"code": code, "grant_type": "authorization_code", "redirect_uri": self._settings.redirect_uri},
        )

    def refresh(self, refresh_token: str, *, second_look: bool = False) -> ApiResponse:
        """Exchange a refresh token (RFC 6749 6). Raises TransportError.

        `second_look`: RD Station has refused the token before, so that another refusal is no news for the metrics.
        """
        return self._token_request(
            "second_look" if second_look else "token_refresh",
            {"grant_type": "refresh_token", "refresh_token": refresh_token},
        )

    def account_info(self, access_token: str) -> ApiResponse:
        """Read the account of this token; the body of a 200 has `name`. Raises TransportError."""
        return self._call("account_info", "GET", "/marketing/account_info", bearer=access_token)

    def segmentations(self, access_token: str, query: Mapping[str, str | int]) -> ApiResponse:
        """List segmentations; `query` may have page, page_size and order. Raises TransportError."""
        path = f"/platform/segmentations?{urlencode(query)}"
        return self._call("segmentations_list", "GET", path, bearer=access_token)

    def segmentation_contacts(
        self, access_token: str, segmentation_id: str, query: Mapping[str, str | int]
    ) -> ApiResponse:
        """List the contacts of a segmentation; `query` may have page, page_size and order. Raises TransportError."""
        path = f"/platform/segmentations/{quote(segmentation_id, safe='')}/contacts?{urlencode(query)}"
        return self._call("contacts_list", "GET", path, bearer=access_token)

    def contact(self, access_token: str, uuid: str) -> ApiResponse:
        """Read one contact. Raises TransportError."""
        return self._call(
            "contact_get", "GET", f"/platform/contacts/{quote(uuid, safe='')}", bearer=access_token
        )

    def contact_by_email(self, access_token: str, email: str) -> ApiResponse:
        """Read the contact with this e-mail address. Raises TransportError."""
        path = f"/platform/contacts/email:{quote(email, safe='')}"
        return self._call("contact_get", "GET", path, bearer=access_token)

    def delete_contact(self, access_token: str, uuid: str) -> ApiResponse:
        """Delete the contact with this UUID; the response to success is 204. Raises TransportError."""
        return self._call(
            "other", "DELETE", f"/platform/contacts/uuid:{quote(uuid, safe='')}", bearer=access_token
        )

    def contact_fields(self, access_token: str) -> ApiResponse:
        """List the fields of the account's contacts, custom fields included. Raises TransportError."""
        return self._call("other", "GET", "/platform/contacts/fields", bearer=access_token)

    def webhooks(self, access_token: str) -> ApiResponse:
        """List the account's subscriptions to lead events. Raises TransportError."""
        return self._call("other", "GET", WEBHOOKS_PATH, bearer=access_token)

    def create_webhook(self, access_token: str, url: str, event_type: str) -> ApiResponse:
        """Subscribe `url` to lead events of one type; the response's body has `uuid`. Raises TransportError."""
        body = {
            "event_type": event_type,
            "entity_type": "CONTACT",
            "event_identifiers": [],
            "url": url,
            "http_method": "POST",
            "include_relations": ["COMPANY", "CONTACT_FUNNEL"],
        }
        return self._call("other", "POST", WEBHOOKS_PATH, json_body=body, bearer=access_token)

    def delete_webhook(self, access_token: str, uuid: str) -> ApiResponse:
        """Delete a subscription. Raises TransportError."""
        return self._call("other", "DELETE", f"{WEBHOOKS_PATH}/{quote(uuid, safe='')}", bearer=access_token)

    def revoke(self, access_token: str) -> ApiResponse:
        """Revoke the app's access to the account of this token. Raises TransportError."""
        form = {"token": access_token, "token_type_hint": "access_token"}
        return self._call("revoke", "POST", "/auth/revoke", form=form, bearer=access_token)

    def _token_request(self, operation: str, grant: dict[str, str]) -> ApiResponse:
        """Send `grant` with each client secret in turn until RD Station accepts one, all within one deadline."""
        deadline = self._monotonic() + EXCHANGE_DEADLINE_S
        for secret in self._settings.client_secrets:
            body = {"client_id": self._settings.client_id, "client_secret": secret, **grant}
            api_response = self._call(
                operation, "POST", EXCHANGE_PATH, json_body=body, deadline_s=deadline - self._monotonic()
            )
            if not is_access_denied(api_response):
                break
        return api_response

    def _call(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        json_body: Mapping[str, object] | None = None,
        form: dict[str, str] | None = None,
        bearer: str | None = None,
        deadline_s: float = CALL_DEADLINE_S,
    ) -> ApiResponse:
        def send() -> ApiResponse:
            session = self._exchanges if path == EXCHANGE_PATH else self._session
            with session.request(
                method,
                self._settings.api_url + path,
                json=json_body,
                data=form,
                auth=_Bearer(bearer),
                # The transport enforces the deadline; a read timeout at the same moment would race with it.
                timeout=(CONNECT_TIMEOUT_S, deadline_s + 1),
                allow_redirects=False,
                stream=True,
            ) as response:
                return _read(operation, response)

        if deadline_s <= 0:
            raise TransportError(operation, "timeout", sent=False)
        started = self._monotonic()
        try:
            api_response = self._transport.bounded(deadline_s, send)
        except CallFailed as failure:
            transport_error = _transport_error(operation, failure)
            if transport_error is None:
                raise
            self._on_call(transport_error, self._monotonic() - started)
            raise transport_error from failure.__cause__
        self._on_call(api_response, self._monotonic() - started)
        return api_response


def new_session(transport: Transport, *, keeps_connections: bool = True) -> requests.Session:
    """Return a session that follows no redirects, keeps no cookies, and sends through `transport`."""
    session = _Session()
    if not keeps_connections:
        session.headers["Connection"] = "close"
    session.headers.update({"Accept": "application/json", "User-Agent": "rdservice"})
    for scheme in ("http://", "https://"):
        session.mount(scheme, transport.adapter(keeps_connections=keeps_connections))
    return session


def _transport_error(operation: str, failure: CallFailed) -> TransportError | None:
    """Return the error that callers get for a failed call, or None if the failure is a bug of this service."""
    cause = failure.__cause__
    if isinstance(cause, DeadlineExceeded | requests.Timeout):
        # The kind of timeout tells nothing: a TLS handshake that hangs is a ReadTimeout too.
        return TransportError(operation, "timeout", sent=failure.sent)
    if isinstance(cause, requests.RequestException | OSError):
        return TransportError(operation, "connection", sent=failure.sent)
    return None


def is_access_denied(api_response: ApiResponse) -> bool:
    """Return whether RD Station refused the client ID or secret or, in a code exchange, possibly the code."""
    return api_response.status == 401 and api_response.error_type == "ACCESS_DENIED"


def _moment(http_date: str) -> datetime | None:
    """Return the time of an HTTP date, or None if the text is not one."""
    try:
        at = parsedate_to_datetime(http_date)
    except (ValueError, OverflowError):
        return None
    return None if at.tzinfo is None else at


def _read(operation: str, response: requests.Response) -> ApiResponse:
    body = bytearray()
    oversized = False
    for chunk in response.iter_content(16_384):
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            oversized = True
            break
    return ApiResponse(
        operation=operation,
        status=response.status_code,
        headers=response.headers,
        body=b"" if oversized else bytes(body),
        oversized=oversized,
    )
