"""The guides for changing a secret, followed with real processes that renew and serve all the time."""

import json
import signal
from typing import Any

import psycopg
import pytest
import requests
from cryptography.fernet import Fernet

from rdservice.config.settings import EXIT_CONFIG
from rdservice.encryption import key_id
from rdservice.services import Services
from tests.support.accounts import attempts_of, connect_account, row, stored_pair
from tests.support.deliveries import add, event, open_address
from tests.support.key_changes import COLUMNS, key_ids_in, upload
from tests.support.pairs import park
from tests.support.processes import Processes
from tests.support.rolling import Deployment
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

Conn = psycopg.Connection[Any]
LIFETIME_S = 5
BUSY = ("busy-1", "busy-2", "busy-3")
TOKEN_PATHS = [f"/rd/tokens/{account}/access-token" for account in BUSY]


def connect_busy_accounts(services: Services, sandbox: SandboxProcess) -> None:
    """Connect accounts whose tokens must be renewed every few seconds."""
    sandbox.patch(access_token_lifetime=LIFETIME_S, rate_limit=None)
    for account in BUSY:
        connect_account(services, sandbox, account, lifetime_s=LIFETIME_S)


def wait_for_renewals(conn: Conn) -> None:
    """Wait until every busy account was renewed once more."""
    before = _last_claims(conn)
    wait_until(
        lambda: all(lease > before[account] for account, lease in _last_claims(conn).items()),
        "all busy accounts are renewed",
        seconds=40,
    )


def _last_claims(conn: Conn) -> dict[str, int]:
    return {account: int(row(conn, account)["stored_claim"]) for account in BUSY}


def outcomes(conn: Conn) -> set[tuple[str | None, str | None]]:
    """Return outcome and error of all finished attempts of busy accounts."""
    return {found for account in BUSY for found in attempts_of(conn, account)} - {(None, None)}


def test_an_encryption_key_is_changed_as_the_guide_says_and_nobody_notices(
    processes: Processes,
    connected: Services,
    sandbox: SandboxProcess,
    conn: Conn,
    authorized: dict[str, str],
) -> None:
    old, new = processes.variables["TOKEN_ENCRYPTION_KEYS"], Fernet.generate_key().decode()
    # An account that is not renewed meanwhile, and one with a kept pair whose uploaded one is a bad one.
    connect_account(connected, sandbox, "quiet", due=False)
    add(connected, open_address(connected, "quiet"), event())
    connect_account(connected, sandbox, "kept", due=False)
    upload(connected, "kept")
    conn.execute(
        "UPDATE rdstation_tokens SET retry_at = rd_now() + interval '1 hour' WHERE account_id = 'kept'"
    )
    park(connected, "quiet")
    connect_busy_accounts(connected, sandbox)
    kept = conn.execute("SELECT access_token FROM rdstation_replaced_tokens").fetchone()
    assert kept is not None

    of_quiet = ["/rd/tokens/quiet/access-token", "/rd/events?account_id=quiet"]
    paths = [*TOKEN_PATHS, *of_quiet, "/rd/leads?account_id=busy-1"]
    deployment = Deployment(processes, paths, authorized)
    deployment.replace(RDSTATION_CACHE_TTL="1")
    wait_for_renewals(conn)
    with deployment.called():
        for keys in (f"{old},{new}", f"{new},{old}"):
            deployment.replace(TOKEN_ENCRYPTION_KEYS=keys, RDSTATION_CACHE_TTL="1")
            wait_for_renewals(conn)
        assert key_ids_in(conn, "rdstation_tokens") == {key_id(old.encode()), key_id(new.encode())}
        said = processes.flask("encryption", "rotate", "--json", TOKEN_ENCRYPTION_KEYS=f"{new},{old}")
        assert json.loads(said[said.index("{") :])["first_key_is_enough"]
        for table in COLUMNS:
            assert key_ids_in(conn, table) == {key_id(new.encode())}, table
        wait_for_renewals(conn)
        deployment.replace(TOKEN_ENCRYPTION_KEYS=new, RDSTATION_CACHE_TTL="1")
        wait_for_renewals(conn)
        conn.execute(
            "UPDATE rdstation_tokens SET refresh_after = rd_now(), retry_at = NULL"
            " WHERE account_id IN ('quiet', 'kept')"
        )
        wait_until(
            lambda: attempts_of(conn, "quiet")[-1:] == [("stored", None)], "the quiet account is renewed"
        )
        wait_until(
            lambda: attempts_of(conn, "kept")[-1:] == [("stored", None)], "the kept pair is back, and renewed"
        )

    assert deployment.problems == []
    assert {status for _, status in deployment.responses} == {200}
    assert {path for path, _ in deployment.responses} == set(paths)
    assert outcomes(conn) == {("stored", None)}
    assert [found[0] for found in attempts_of(conn, "kept")] == ["refused", "stored"]
    assert set(sandbox.calls()["token_refresh"]) == {"200", "401"}
    assert sandbox.calls()["token_refresh"]["401"] == 1
    for trouble in ("TOKEN_ENCRYPTION_KEYS lacks", "key_missing", "damaged", "fetched anew"):
        assert trouble not in deployment.logs


def test_the_new_key_alone_is_told_clearly_and_loses_nothing(
    processes: Processes,
    connected: Services,
    sandbox: SandboxProcess,
    conn: Conn,
    authorized: dict[str, str],
) -> None:
    old, new = processes.variables["TOKEN_ENCRYPTION_KEYS"], Fernet.generate_key().decode()
    connect_account(connected, sandbox, "acme")
    before = stored_pair(connected, conn, "acme")
    old_id = key_id(old.encode())

    web = processes.web(TOKEN_ENCRYPTION_KEYS=new)
    worker = processes.worker(TOKEN_ENCRYPTION_KEYS=new)
    assert worker.ended() == EXIT_CONFIG
    assert f"refresh_token of account 'acme' needs key {old_id}" in worker.log
    response = requests.get(f"{web.url}/rd/tokens/acme/access-token", headers=authorized, timeout=20)
    assert (response.status_code, response.json()["code"]) == (503, "token_unreadable")
    assert old_id in response.json()["detail"]
    assert stored_pair(connected, conn, "acme") == before
    assert sandbox.calls()["token_refresh"] == {}

    five_minutes_later(conn)
    deployment = Deployment(processes, ["/rd/tokens/acme/access-token"], authorized)
    deployment.replace(TOKEN_ENCRYPTION_KEYS=f"{new},{old}")
    wait_until(lambda: attempts_of(conn, "acme")[-1:] == [("stored", None)], "the account is renewed")


def five_minutes_later(conn: Conn) -> None:
    """Let the time pass for which workers pass over what one of them could not open."""
    conn.execute(
        "UPDATE rdstation_tokens SET undecryptable_until = undecryptable_until - interval '5 minutes'"
    )


def test_a_row_without_its_key_is_put_off_while_all_others_are_renewed(
    processes: Processes, connected: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    foreign = Fernet.generate_key().decode()
    for number in range(5):
        connect_account(connected, sandbox, f"account-{number}", due=False)
    before = row(conn, "account-2")
    processes.flask(
        "encryption",
        "rotate",
        TOKEN_ENCRYPTION_KEYS=f"{foreign},{processes.variables['TOKEN_ENCRYPTION_KEYS']}",
    )
    after = row(conn, "account-2")
    for number in (0, 1, 3, 4):
        connect_account(connected, sandbox, f"account-{number}", due=False)
    assert before["refresh_token"] != after["refresh_token"]
    sandbox.patch(latency_ms=500, rotate_refresh_tokens=True)
    conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now()")

    worker = processes.worker()
    worker.wait_until_it_says(f"refresh_token of account 'account-2' needs key {key_id(foreign.encode())}")
    others = [f"account-{number}" for number in (0, 1, 3, 4)]
    wait_until(
        lambda: all(attempts_of(conn, account_id) == [("stored", None)] for account_id in others),
        "all others are renewed",
    )
    assert worker.runs
    assert attempts_of(conn, "account-2") == [("released", "key_missing")]
    unchanged = after.keys() - {"now", "refresh_after", "due_at", "attempted_at", "undecryptable_until"}
    left = row(conn, "account-2")
    assert {name: left[name] for name in unchanged} == {name: after[name] for name in unchanged}

    worker.send(signal.SIGTERM)
    assert worker.ended() == 0
    processes.worker(TOKEN_ENCRYPTION_KEYS=f"{processes.variables['TOKEN_ENCRYPTION_KEYS']},{foreign}")
    five_minutes_later(conn)
    wait_until(
        lambda: attempts_of(conn, "account-2")[-1] == ("stored", None), "a worker with the key renews it"
    )


def test_the_client_secret_is_changed_without_a_failed_renewal(
    processes: Processes,
    connected: Services,
    sandbox: SandboxProcess,
    conn: Conn,
    authorized: dict[str, str],
) -> None:
    old, new = processes.variables["RDSTATION_CLIENT_SECRET"], "client-secret-that-is-new"
    connect_busy_accounts(connected, sandbox)
    sandbox.patch(client_secrets=[old])
    deployment = Deployment(processes, TOKEN_PATHS, authorized)
    deployment.replace()
    wait_for_renewals(conn)

    def refused() -> int:
        return int(sandbox.calls()["token_refresh"].get("401", 0))

    with deployment.called():
        deployment.replace(RDSTATION_CLIENT_SECRET=f"{new},{old}")
        wait_for_renewals(conn)
        wait_for_renewals(conn)
        in_vain = refused()
        # The new secret is tried first and is not accepted yet: one try more, no failure.
        assert in_vain > 0
        sandbox.patch(client_secrets=[old, new])
        wait_for_renewals(conn)
        sandbox.patch(client_secrets=[new])
        wait_for_renewals(conn)
        # Exchanges that had begun under the earlier setting are over by now.
        settled = refused()
        wait_for_renewals(conn)
        assert refused() == settled
        deployment.replace(RDSTATION_CLIENT_SECRET=new)
        wait_for_renewals(conn)

    assert deployment.problems == []
    assert {status for _, status in deployment.responses} == {200}
    assert outcomes(conn) == {("stored", None)}
    assert conn.execute(
        "SELECT count(*) FROM rdstation_client_credentials WHERE refused_since IS NOT NULL"
    ).fetchone() == (0,)
    assert conn.execute("SELECT count(*) FROM rdstation_client_credentials").fetchone() == (3,)
    assert old not in deployment.logs
    assert new not in deployment.logs
