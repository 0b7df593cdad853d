"""Receivers of notifications, and accounts in trouble."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from rdservice.config.settings import Settings
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
