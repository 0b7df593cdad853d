"""scripts/start as a user meets it: real processes, real signals."""

import os
import shlex
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import requests

from tests.support.local_processes import command_line, wait_until_gone
from tests.support.local_start import READY_SECONDS, Start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


Starter = Callable[..., Start]


def accounts_of(run: Start) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {run.credentials['api_key']}"}
    response = requests.get(f"{run.credentials['url']}/rd/tokens", headers=headers, timeout=10)
    return {account["account_id"]: account["status"] for account in response.json()["accounts"]}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Runs scripts/start, by default on tmp_path/data and any free port."""
    runs: list[Start] = []

    def run(data_dir: Path = tmp_path / "data", **environment: str) -> Start:
        runs.append(Start(data_dir, tmp_path / f"output-{len(runs)}", **({"PORT": "0"} | environment)))
        return runs[-1]

    yield run
    for one in runs:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.wait(timeout=30)


def test_one_command_gives_a_service_that_can_be_used_at_once(start: Starter, tmp_path: Path) -> None:
    run = start(tmp_path / "data folder").wait_until_ready()
    known = run.credentials
    assert set(known) == {"url", "email", "password", "api_key", "sandbox_url", "database_url"}
    assert known["url"] in run.output
    assert requests.get(f"{known['url']}/readyz", timeout=10).status_code == 200
    assert requests.get(f"{known['sandbox_url']}/_sandbox", timeout=10).status_code == 200
    # Something to look at, and room for the user's own account.
    assert accounts_of(run) == {"demo": "connected"}
    with psycopg.connect(known["database_url"]) as conn:
        [calls] = conn.execute("SELECT count(*) FROM rdstation_cache WHERE account_id = 'demo'").fetchall()
    assert calls[0] >= 3

    # The line for pasting: taken apart as a shell would, because curl may be missing here.
    [line] = [line for line in run.output.splitlines() if line.startswith("curl ")]
    words = shlex.split(line)
    headers = dict(words[i + 1].split(": ") for i, word in enumerate(words) if word == "-H")
    response = requests.post(words[3], data=words[words.index("-d") + 1], headers=headers, timeout=30)
    assert response.status_code == 200, response.text
    assert response.json()["account_id"] == "default"

    for private in ("env", "demo-credentials.json", "lock", "sandbox/state.db"):
        assert stat.S_IMODE((run.data_dir / private).stat().st_mode) == 0o600, private
    assert stat.S_IMODE(run.data_dir.stat().st_mode) == 0o700


def test_it_speaks_portuguese_where_the_terminal_does_and_brings_no_removed_account_back(
    start: Starter,
) -> None:
    run = start(LC_ALL="pt_BR.UTF-8").wait_for("Ctrl-C encerra tudo")
    assert "O serviço está pronto" in run.output
    headers = {"Authorization": f"Bearer {run.credentials['api_key']}"}
    response = requests.delete(f"{run.credentials['url']}/rd/tokens/demo", headers=headers, timeout=30)
    assert response.status_code == 200
    run.end(signal.SIGTERM)
    assert accounts_of(start().wait_until_ready()) == {}


@pytest.fixture
def _hang_up_is_heard() -> Iterator[None]:
    """Programs started under nohup, as the tests may be, ignore SIGHUP, and so do their children."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("_hang_up_is_heard")
def test_every_signal_ends_everything_and_the_next_start_keeps_what_there_was(start: Starter) -> None:
    kept = ("email", "password", "api_key", "sandbox_url")
    first = None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL):
        run = start().wait_until_ready()
        first = first or run.credentials
        assert {name: run.credentials[name] for name in kept} == {name: first[name] for name in kept}
        headers = {"Authorization": f"Bearer {first['api_key']}"}
        response = requests.get(f"{run.credentials['url']}/rd/tokens", headers=headers, timeout=10)
        assert response.status_code == 200
        status = run.end(number)
        assert status == (-signal.SIGKILL if number == signal.SIGKILL else 0), run.output


def test_a_signal_in_the_middle_of_starting_ends_everything_too(start: Starter) -> None:
    assert start().wait_for("Starting PostgreSQL").end(signal.SIGTERM) == 0
    assert start().wait_for("Preparing the database").end(signal.SIGKILL) == -signal.SIGKILL
    start().wait_until_ready()


def test_a_child_that_dies_is_started_again(start: Starter) -> None:
    run = start().wait_until_ready()
    url = run.credentials["url"]
    for words in ("gunicorn", "-m worker", "-m sandbox", "postgres -D"):
        old = run.child(words)
        os.kill(old, signal.SIGKILL)
        assert wait_until_gone([old], seconds=10) == set()
        give_up = time.monotonic() + 20
        while not any(words in command_line(pid) for pid in run.children()):
            assert time.monotonic() < give_up, run.output
            time.sleep(0.05)
    give_up = time.monotonic() + 20
    while requests.get(f"{url}/readyz", timeout=10).status_code != 200:
        assert time.monotonic() < give_up, run.output
        time.sleep(0.1)
    assert requests.get(f"{run.credentials['sandbox_url']}/_sandbox", timeout=10).status_code == 200


def test_two_copies_run_beside_each_other_but_not_on_one_folder(start: Starter, tmp_path: Path) -> None:
    runs = [start(tmp_path / name, PORT="") for name in ("one", "other")]
    urls = {run.wait_until_ready().credentials["url"] for run in runs}
    assert len(urls) == 2

    again = start(tmp_path / "one", PORT="")
    assert again.process.wait(timeout=30) == 69
    assert "already running" in again.output
    assert runs[0].credentials["url"] in again.output


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(start: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = start(PORT=str(port))
        assert run.process.wait(timeout=READY_SECONDS) == 69
    assert f"port {port} is taken" in run.output
    assert "PORT=8001 scripts/start" in run.output


def test_nobody_is_given_access_when_the_app_of_rd_station_is_the_users_own(start: Starter) -> None:
    secret = "b" * 32
    run = start(RDSTATION_CLIENT_ID="a" * 36, RDSTATION_CLIENT_SECRET=secret).wait_until_ready()
    assert not (run.data_dir / "demo-credentials.json").exists()
    assert "operators create" in run.output
    assert not any("sandbox" in command_line(pid) for pid in run.children())
    written = (run.data_dir / "env").read_text()
    assert secret not in written + run.output
    assert "RDSTATION_API_URL" not in written


def test_settings_of_a_deployment_are_refused(start: Starter) -> None:
    run = start(RDSERVICE_ENV="production")
    assert run.process.wait(timeout=READY_SECONDS) == 78
    assert "Procfile" in run.output
