"""A program uploads a pair that it has uploaded before, which the service has refreshed since."""

from typing import Any

import psycopg
import pytest

from rdservice.accounts import upload as uploads
from rdservice.accounts.upload import parse_upload
from rdservice.services import Services
from rdservice.tokens.refresh import Result
from tests.support.accounts import BY, assert_sandbox_accepts, lease_one, row, stored_pair
from tests.support.pairs import kept
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def _rotating(sandbox: SandboxProcess) -> None:
    sandbox.patch(rotate_refresh_tokens=True)


def upload(services: Services, pair: dict[str, Any], **changes: Any) -> str:
    state, _ = uploads.upload(services, parse_upload(pair | changes), by=BY)
    return state.status


def refresh(services: Services, conn: Conn, times: int = 1) -> None:
    for _ in range(times):
        conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now()")
        assert services.refresher.refresh(lease_one(services)) is Result.STORED


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("verify", [True, False])
def test_a_pair_that_was_rotated_here_is_neither_stored_nor_presented_again(
    connected: Services, sandbox: SandboxProcess, conn: Conn, times: int, verify: bool
) -> None:
    pair = sandbox.pair()
    upload(connected, pair)
    refresh(connected, conn, times)
    before = row(conn) | {"now": None}
    assert upload(connected, pair, verify=verify) == "connected"
    assert row(conn) | {"now": None} == before
    assert_sandbox_accepts(sandbox, *stored_pair(connected, conn))


def test_a_pair_that_was_rotated_before_another_was_uploaded_is_known_too(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    first, second = sandbox.pair(), sandbox.pair()
    upload(connected, first)
    refresh(connected, conn)
    rotated = stored_pair(connected, conn)[1]
    upload(connected, second)
    upload(connected, first)
    assert stored_pair(connected, conn)[1] == second["refresh_token"]
    assert kept(connected, conn) == [rotated]


def test_a_newer_access_token_with_the_refresh_token_that_is_stored_is_taken(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    """The program has refreshed on its own, and RD Station has kept the refresh token."""
    sandbox.patch(rotate_refresh_tokens=False)
    pair, newer = sandbox.pair(), sandbox.pair()
    upload(connected, pair)
    refresh(connected, conn)
    upload(connected, pair | {"access_token": newer["access_token"]})
    assert stored_pair(connected, conn) == (newer["access_token"], pair["refresh_token"])
    refresh(connected, conn)


def test_the_pair_of_a_removed_account_is_a_new_one(
    connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    pair = sandbox.pair()
    upload(connected, pair)
    conn.execute("DELETE FROM rdstation_tokens")
    upload(connected, pair)
    refresh(connected, conn)
