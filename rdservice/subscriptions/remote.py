"""RD Station's own list of subscriptions to an account's lead events.

https://developers.rdstation.com/reference/webhooks. Ours are those whose address is on this service; the secret in it
tells which of them belong to which account here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from rdservice import errors
from rdservice.events.payloads import EVENT_TYPES, EventType
from rdservice.rdstation import Answer, NoAnswer, RDStation
from rdservice.services import Services
from rdservice.subscriptions import store

PATH = "/rd/webhooks/"
RETRY_S = 5.0

Call = Callable[[Callable[[str], Answer]], Answer]
"""Makes a call with a live access token. Raises RdServiceError or NoAnswer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A subscription whose address is on this service. `event_type` is None for one that is not of ours."""

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
        """Return the subscriptions of the account as it is connected here, its rate budget included."""

        def call(send: Callable[[str], Answer]) -> Answer:
            def spend(access_token: str) -> Answer:
                return services.rate_budget.spend(account_id, lambda: send(access_token))

            return services.access_tokens.call(account_id, spend)

        return cls(services.rdstation, call, services.settings.public_origin)

    def list(self) -> list[Hook]:
        """Return the subscriptions whose address is on this service. Raises RdServiceError."""
        answer = self._answered(self._rdstation.webhooks)
        body = answer.json()
        listed = body.get("webhooks") if isinstance(body, dict) else body
        if answer.status != HTTPStatus.OK or not isinstance(listed, list):
            raise _failed(answer)
        return [hook for entry in listed if (hook := self._hook(entry)) is not None]

    def create(self, secret: str, event_type: EventType) -> str:
        """Let RD Station deliver events of this type to the address with this secret; return its id of that."""
        url = self._prefix + secret
        answer = self._answered(lambda token: self._rdstation.create_webhook(token, url, event_type))
        body = answer.json()
        uuid = body.get("uuid") if isinstance(body, dict) else None
        if answer.status not in (HTTPStatus.OK, HTTPStatus.CREATED) or not isinstance(uuid, str):
            raise _failed(answer)
        return uuid

    def delete(self, uuid: str) -> None:
        """End a subscription; one that is not there has ended. Raises RdServiceError."""
        answer = self._answered(lambda token: self._rdstation.delete_webhook(token, uuid))
        if not (200 <= answer.status < 300 or answer.status == HTTPStatus.NOT_FOUND):
            raise _failed(answer)

    def _answered(self, send: Callable[[str], Answer]) -> Answer:
        try:
            return self._call(send)
        except NoAnswer as error:
            if error.kind == "timeout":
                raise errors.RdStationTimeout(
                    "RD Station did not answer in time. Try again.", retry_after_s=RETRY_S
                ) from error
            raise errors.RdStationUnavailable(
                "RD Station cannot be reached. Try again.", retry_after_s=RETRY_S
            ) from error

    def _hook(self, entry: Any) -> Hook | None:
        if not isinstance(entry, dict):
            return None
        uuid, url, event_type = entry.get("uuid"), entry.get("url"), entry.get("event_type")
        if not isinstance(uuid, str) or not isinstance(url, str) or not url.startswith(self._prefix):
            return None
        known = next((one for one in EVENT_TYPES if one == event_type), None)
        return Hook(uuid=uuid, event_type=known, secret=url.removeprefix(self._prefix))


def _failed(answer: Answer) -> errors.RdStationFailed:
    if answer.status == HTTPStatus.FORBIDDEN:
        return errors.RdStationFailed(
            "RD Station answers 403: neither the app's scope nor the account's plan may allow webhooks. Check both."
        )
    return errors.RdStationFailed(
        f"RD Station did not do what was asked of its webhooks (HTTP {answer.status}). Try again.",
        retry_after_s=RETRY_S,
    )
