"""What survives, how the program starts and ends, and use by several threads."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.integration.sandbox.conftest import CLIENT_ID, Core
from tests.support.sandbox_process import REPOSITORY, SandboxProcess


def post_token(sandbox: SandboxProcess, **presented: str) -> requests.Response:
    body = {"client_id": CLIENT_ID, "client_secret": "client-secret", **presented}
    return requests.post(f"{sandbox.url}/auth/token", json=body, timeout=10)


def get(sandbox: SandboxProcess, path: str, access_token: str) -> requests.Response:
    headers = {"Authorization": f"Bearer {access_token}"}
    return requests.get(f"{sandbox.url}{path}", headers=headers, timeout=10)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_everything_that_was_answered_survives_a_stop_and_a_kill(tmp_path: Path, how: str) -> None:
    sandbox = SandboxProcess(tmp_path / "state.db")
    end = getattr(sandbox, how)
    with sandbox:
        sandbox.patch(rotate_refresh_tokens=True, leads=42)
        used = sandbox.pair()["refresh_token"]
        revoked = sandbox.pair("account-2")
        sandbox.revoke("account-2")
        open_code = sandbox.code("account-3")
        bearer = {"Authorization": f"Bearer {sandbox.pair()['access_token']}"}
        subscription = {"event_type": "WEBHOOK.CONVERTED", "url": "http://127.0.0.1:9/hook"}
        hook = requests.post(
            f"{sandbox.url}/integrations/webhooks", json=subscription, headers=bearer, timeout=10
        )
        contact = requests.patch(
            f"{sandbox.url}/platform/contacts/email:nova@example.com",
            json={"name": "Nova"},
            headers=bearer,
            timeout=10,
        )
        url = sandbox.url
        pair = post_token(sandbox, refresh_token=used).json()
        end()
        sandbox.start()

        assert sandbox.url == url
        assert sandbox.report()["settings"]["leads"] == 42
        assert get(sandbox, "/marketing/account_info", pair["access_token"]).status_code == 200
        assert post_token(sandbox, refresh_token=used).status_code == 401
        assert post_token(sandbox, refresh_token=pair["refresh_token"]).status_code == 200
        assert post_token(sandbox, refresh_token=revoked["refresh_token"]).status_code == 401
        assert get(sandbox, "/marketing/account_info", revoked["access_token"]).status_code == 401
        assert post_token(sandbox, code=open_code).status_code == 200
        assert post_token(sandbox, code=open_code).json()["errors"]["error_type"] == "EXPIRED_CODE_GRANT"
        hooks = get(sandbox, "/integrations/webhooks", pair["access_token"]).json()
        assert hooks == {"webhooks": [hook.json()]}
        again = get(sandbox, "/platform/contacts/email:nova@example.com", pair["access_token"])
        assert again.json() == contact.json()


def test_a_kill_right_after_many_rotations_at_once_loses_no_answered_token(tmp_path: Path) -> None:
    with SandboxProcess(tmp_path / "state.db") as sandbox:
        sandbox.patch(rotate_refresh_tokens=True)
        tokens = [str(sandbox.pair(f"account-{number}")["refresh_token"]) for number in range(2, 10)]

        def rotate(token: str) -> str:
            for _ in range(20):
                token = post_token(sandbox, refresh_token=token).json()["refresh_token"]
            return token

        with ThreadPoolExecutor(len(tokens)) as pool:
            answered = list(pool.map(rotate, tokens))
        sandbox.kill()
        sandbox.start()
        assert {post_token(sandbox, refresh_token=token).status_code for token in answered} == {200}
        assert {post_token(sandbox, refresh_token=token).status_code for token in tokens} == {401}


def test_counters_start_anew_and_spent_faults_stay_spent(tmp_path: Path) -> None:
    core = Core(tmp_path / "state.db")
    core.patch(faults=[{"operation": "account_info", "kind": "status", "status": 500, "count": 2}])
    token = core.pair()["access_token"]
    assert core.get("/marketing/account_info", token).status == 500
    core.reopen()
    assert not any(core.calls().values())
    statuses = [core.get("/marketing/account_info", token).status for _ in range(2)]
    assert statuses == [500, 200]
    core.sandbox.close()


def test_the_state_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    state = tmp_path / "new" / "state.db"
    previous = os.umask(0)
    try:
        with SandboxProcess(state) as sandbox:
            sandbox.pair()
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.parent.iterdir()}
    finally:
        os.umask(previous)
    assert modes["state.db"] == 0o600
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(state.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_with_status_0_even_while_calls_are_under_way(
    tmp_path: Path, number: signal.Signals
) -> None:
    with SandboxProcess(tmp_path / "state.db") as sandbox, ThreadPoolExecutor(1) as pool:
        sandbox.patch(faults=[{"operation": "*", "kind": "timeout"}])
        hanging = pool.submit(get, sandbox, "/marketing/account_info", "x")
        while not sandbox.report()["in_flight"]:
            assert not hanging.done()
        os.kill(sandbox.pid, number)
        assert sandbox.stop(timeout_s=5) == 0
        assert isinstance(hanging.exception(5), requests.ConnectionError)


def run(state: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SANDBOX_")}
    return subprocess.run(
        [sys.executable, "-m", "sandbox", "--state", str(state)],
        cwd=REPOSITORY,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_without_a_registered_app_it_says_what_to_set(tmp_path: Path) -> None:
    ended = run(tmp_path / "state.db", SANDBOX_CLIENT_ID="client-id")
    assert ended.returncode == 78
    assert "SANDBOX_CLIENT_SECRET, SANDBOX_REDIRECT_URI" in ended.stderr
    assert "SANDBOX_CLIENT_ID" not in ended.stderr


def test_two_sandboxes_do_not_share_a_state_file(tmp_path: Path) -> None:
    with SandboxProcess(tmp_path / "state.db"):
        ended = run(
            tmp_path / "state.db",
            SANDBOX_CLIENT_ID="client-id",
            SANDBOX_CLIENT_SECRET="client-secret",
            SANDBOX_REDIRECT_URI="http://localhost/rd/callback",
        )
    assert ended.returncode == 69
    assert "another sandbox is using" in ended.stderr


def test_it_says_where_it_listens_in_one_line_and_writes_no_secret(tmp_path: Path) -> None:
    environment = {
        "SANDBOX_CLIENT_ID": CLIENT_ID,
        "SANDBOX_CLIENT_SECRET": "client-secret",
        "SANDBOX_REDIRECT_URI": "http://localhost/rd/callback",
    }
    program = subprocess.Popen(
        [sys.executable, "-m", "sandbox", "--state", str(tmp_path / "state.db"), "--verbose"],
        cwd=REPOSITORY,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    url = program.stdout.readline().split()[-1]
    body: dict[str, Any] = {"client_id": CLIENT_ID, "client_secret": "client-secret", "code": "a-secret-code"}
    assert requests.post(f"{url}/auth/token?code=a-secret-code", json=body, timeout=10).status_code == 401
    requests.get(
        f"{url}/platform/segmentations", headers={"Authorization": "Bearer a-secret-token"}, timeout=10
    )
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(
            b"GET /a-secret-\xff HTTP/1.1\r\nHost: x\r\nA-Secret Header: a-secret-value\r\n\r\n"
        )
        assert b" 400 " in connection.recv(1_000)
    program.terminate()
    output, log = program.communicate(timeout=10)
    assert output == ""
    assert log.splitlines() == ["POST token_exchange 401", "GET segmentations_list 401"]


def test_several_threads_may_use_one_core(core: Core) -> None:
    core.patch(rotate_refresh_tokens=True, rate_limit=None)
    shared = core.pair()["refresh_token"]
    tokens = [core.pair(f"account-{number}")["refresh_token"] for number in range(2, 6)]

    def rotate(token: str) -> str:
        for _ in range(50):
            token = core.token(refresh_token=token).json()["refresh_token"]
        return token

    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(rotate, tokens))
        winners = list(pool.map(lambda _: core.token(refresh_token=shared).status, range(8)))
    assert sorted(winners) == [200] + [401] * 7
    assert {core.token(refresh_token=token).status for token in ends} == {200}
    assert core.calls()["token_refresh"] == {"200": 4 * 50 + 1 + 4, "401": 7}
