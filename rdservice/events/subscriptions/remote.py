"""An account's subscriptions to lead events at RD Station.

See https://developers.rdstation.com/reference/webhooks. Ours are those whose address is on this service; the secret in
the address tells to which account here a subscription belongs.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

from rdservice import errors
from rdservice.account_calls.failures import call_once, refusal
from rdservice.events.payloads import EVENT_TYPES, EventType
from rdservice.events.subscriptions import store
from rdservice.rdstation.client import ApiResponse, RDStation
from rdservice.services import Services
from rdservice.text.catalogue import message

PATH = "/rd/webhooks/"
RETRY_S = 5.0


class Call(Protocol):
    """Makes a call with a valid access token, as `AccountCalls.send` does. Raises RdServiceError."""

    def __call__(self, send: Callable[[str], ApiResponse], *, refresh_on_401: bool = True) -> ApiResponse: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A subscription whose address is on this service. `event_type` is None for a type that this service ignores."""

    uuid: str
    event_type: EventType | None
    secret: str = field(repr=False)

    @property
    def secret_hash(self) -> bytes:
        return store.hash_of(self.secret)


class Remote:
    """The subscriptions of one account of RD Station."""

    def __init__(self, rdstation: RDStation, call: Call, public_origin: str) -> None:
        self._rdstation = rdstation
        self._call = call
        self._prefix = public_origin + PATH

    @classmethod
    def of(cls, services: Services, account_id: str) -> "Remote":
        """Return the subscriptions of a connected account. Calls use its token and its rate budget."""

        def call(send: Callable[[str], ApiResponse], *, refresh_on_401: bool = True) -> ApiResponse:
            return services.account_calls.send(account_id, send, refresh_on_401=refresh_on_401)

        return cls(services.rdstation, call, services.settings.public_origin)

    @classmethod
    def with_token(cls, services: Services, access_token: str) -> "Remote":
        """Return the subscriptions of the account to which a token belongs that is not stored."""

        def call(send: Callable[[str], ApiResponse], *, refresh_on_401: bool = True) -> ApiResponse:  # noqa: ARG001
            return call_once(lambda: send(access_token))

        return cls(services.rdstation, call, services.settings.public_origin)

    def list(self) -> list[Hook]:
        """Return the subscriptions whose address is on this service. Raises RdServiceError."""
        response = self._call(self._rdstation.webhooks)
        body = response.json()
        listed = body.get("webhooks") if isinstance(body, dict) else body
        if response.status != HTTPStatus.OK or not isinstance(listed, list):
            raise _failed(response)
        return [hook for entry in listed if (hook := self._hook(entry)) is not None]

    def create(self, secret: str, event_type: EventType) -> str:
        """Subscribe the address with this secret to events of one type; return RD Station's ID of the subscription.

        Raises RdServiceError.
        """
        url = self._prefix + secret
        # RD Station also responds with 401 if its test request to the address fails.
        response = self._call(
            lambda token: self._rdstation.create_webhook(token, url, event_type), refresh_on_401=False
        )
        body = response.json()
        uuid = body.get("uuid") if isinstance(body, dict) else None
        if response.status not in (HTTPStatus.OK, HTTPStatus.CREATED) or not isinstance(uuid, str):
            raise _failed(response)
        return uuid

    def delete(self, uuid: str) -> None:
        """Delete a subscription; one that does not exist counts as deleted. Raises RdServiceError."""
        response = self._call(lambda token: self._rdstation.delete_webhook(token, uuid))
        if not (200 <= response.status < 300 or response.status == HTTPStatus.NOT_FOUND):
            raise _failed(response)

    def _hook(self, entry: Any) -> Hook | None:
        if not isinstance(entry, dict):
            return None
        uuid, url, event_type = entry.get("uuid"), entry.get("url"), entry.get("event_type")
        if not isinstance(uuid, str) or not isinstance(url, str) or not url.startswith(self._prefix):
            return None
        known = next((one for one in EVENT_TYPES if one == event_type), None)
        return Hook(uuid=uuid, event_type=known, secret=url.removeprefix(self._prefix))


def _failed(response: ApiResponse) -> errors.RdServiceError:
    if response.status == HTTPStatus.FORBIDDEN:
        return refusal(response)
    return errors.RdStationFailed(
        message("RD Station did not change the subscriptions as requested (HTTP %(status)s). Try again."),
        values={"status": response.status},
        retry_after_s=RETRY_S,
    )
