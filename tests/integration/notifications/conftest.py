"""Receivers of notifications, and accounts in trouble."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from rdservice.config.settings import Settings
from rdservice.notifications.notifier import Notifier
from rdservice.notifications.targets import SendFailed, Target
from rdservice.services import Services
from tests.support.accounts import connect_account
from tests.support.odd_server import OddServer, odd_server, respond_with

Conn = psycopg.Connection[Any]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Receiver:
    """A webhook's receiver: `url` is for NOTIFY_URLS."""

    def __init__(self, server: OddServer) -> None:
        self._server = server
        self.url = f"json://{server.url.removeprefix('http://')}/hook"

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What has arrived, oldest first."""
        bodies = [data.partition(b"\r\n\r\n")[2] for data in self._server.received]
        return [json.loads(body) for body in bodies if body]


class Outbox:
    """Notifiers of any number of processes whose messages are kept instead of sent."""

    def __init__(self, services: Services, settings: Settings) -> None:
        self._services, self._settings = services, settings
        self.bodies: list[str] = []
        self.titles: list[str] = []
        self.failing: str | None = None
        self.notifier = self.another()

    def another(self) -> Notifier:
        return Notifier(self._services.pool, self._settings, self._services.metrics, send=self._send)

    @property
    def targets(self) -> list[Target]:
        return list(self.notifier._targets.values())

    @property
    def counted(self) -> dict[str, int]:
        """The attempts of all processes that this test has counted, by result."""
        return {
            dict(labels)["result"]: int(value)
            for (name, labels), value in self._services.metrics.current().items()
            if name == "rdstation_notifications_total" and value
        }

    def _send(self, target: Target, title: str, body: str) -> None:
        if self.failing:
            raise SendFailed(self.failing)
        self.titles.append(title)
        self.bodies.append(body)

    def look(self) -> list[str]:
        """Let all be done that is due now; return the messages that went out."""
        before = len(self.bodies)
        self.notifier.compare()
        while self.notifier.send_next():
            pass
        return self.bodies[before:]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that accepts everything."""
    with odd_server(respond_with(OK)) as server:
        yield Receiver(server)


@pytest.fixture
def notified(variables: dict[str, str], receiver: Receiver) -> Settings:
    """Settings with `receiver` as the only one to be told."""
    return Settings.from_mapping(variables | {"NOTIFY_URLS": receiver.url})


@pytest.fixture
def trouble(services: Services, conn: Conn) -> Callable[..., None]:
    """Puts accounts into a state that needs a person."""

    def make(*accounts: str, name: str | None = None) -> None:
        for account in accounts:
            connect_account(services, account_id=account, due=False)
            conn.execute(
                "UPDATE rdstation_tokens SET status = 'reauthorization_required', last_error = 'revoked', name = %s"
                " WHERE account_id = %s",
                [name, account],
            )

    return make


@pytest.fixture
def outbox(services: Services, notified: Settings) -> Outbox:
    return Outbox(services, notified)
