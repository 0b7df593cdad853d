"""`flask notifications`, and what other commands say of NOTIFY_URLS."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from rdservice.config.settings import EXIT_CONFIG, Settings
from rdservice.services import Services
from tests.conftest import Clock
from tests.integration.cli.conftest import MakeRun, Run
from tests.support.odd_server import OddServer, odd_server, respond_with

Conn = psycopg.Connection[Any]
PLANTED = "planted-password-of-a-receiver"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.fixture
def receiver() -> Iterator[OddServer]:
    with odd_server(respond_with(OK)) as server:
        yield server


@pytest.fixture
def run_telling(
    run_with: MakeRun, make_services: Callable[[Settings], Services], variables: dict[str, str]
) -> Callable[..., Run]:
    """Makes a runner of commands whose NOTIFY_URLS lead to these ports."""

    def make(*ports: int) -> Run:
        urls = " ".join(f"json://user:{PLANTED}@127.0.0.1:{port}/{PLANTED}" for port in ports)
        return run_with(make_services(Settings.from_mapping(variables | {"NOTIFY_URLS": urls})))

    return make


@pytest.fixture
def run_unusable(
    run_with: MakeRun, make_services: Callable[[Settings], Services], variables: dict[str, str]
) -> Run:
    """Runs a command with a second receiver whose scheme apprise does not know."""
    urls = f"json://127.0.0.1:9/good nonsense://{PLANTED}"
    return run_with(make_services(Settings.from_mapping(variables | {"NOTIFY_URLS": urls})))


def test_a_test_is_sent_without_any_worker_and_its_result_printed(
    run_telling: Callable[..., Run], receiver: OddServer
) -> None:
    ended = run_telling(receiver.port)("notifications", "test", "--json")
    assert ended.exit_code == 0, ended.output
    [result] = json.loads(ended.stdout)
    assert (result["outcome"], result["kind"], result["attempts"]) == ("sent", "test", 1)
    assert len(receiver.received) == 1
    assert PLANTED not in ended.output


def test_the_status_tells_that_one_receiver_did_not_accept(
    run_telling: Callable[..., Run], receiver: OddServer, clock: Clock
) -> None:
    run = run_telling(receiver.port, 9)
    ended = run("notifications", "test")
    assert ended.exit_code == 1
    assert "sent" in ended.output
    assert "given_up connection" in ended.output
    listed = run("notifications", "list", "--json")
    assert {(line["outcome"], line["error"]) for line in json.loads(listed.stdout)} == {
        ("sent", None),
        ("given_up", "connection"),
    }
    assert PLANTED not in ended.output + listed.output


def test_without_receivers_there_is_nothing_to_test(run: Run) -> None:
    ended = run("notifications", "test")
    assert ended.exit_code == 1
    assert "NOTIFY_URLS is not set" in ended.output


def test_a_second_test_has_to_wait(run_telling: Callable[..., Run], receiver: OddServer) -> None:
    run = run_telling(receiver.port)
    assert run("notifications", "test").exit_code == 0
    refused = run("notifications", "test")
    assert refused.exit_code == 1
    assert "less than 30 seconds ago" in refused.output


def test_the_check_of_the_settings_shows_receivers_masked(run_telling: Callable[..., Run]) -> None:
    ended = run_telling(9)("settings", "check")
    assert ended.exit_code == 0
    assert "notifications go to: json://…" in ended.output
    assert PLANTED not in ended.output


@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize(
    ("language", "title", "said"),
    [
        ("en_GB.UTF-8", "Invalid settings (1 problem):", "entry 2 is no URL that apprise can use"),
        ("pt_BR.UTF-8", "Configurações inválidas (1 problema):", "a entrada 2 não é uma URL que o apprise"),
    ],
)
def test_the_check_of_the_settings_ends_with_78_where_apprise_cannot_use_a_receiver(
    run_unusable: Run,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    language: str,
    title: str,
    said: str,
) -> None:
    monkeypatch.setenv("LC_ALL", language)
    ended = run_unusable("settings", "check", *options)
    assert (ended.exit_code, ended.stdout) == (EXIT_CONFIG, "")
    assert ended.stderr.startswith(f"{title}\n  - NOTIFY_URLS: {said}")
    assert PLANTED not in ended.stderr


def test_a_release_warns_of_a_receiver_that_apprise_cannot_use_and_succeeds(
    run_unusable: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "en_GB.UTF-8")
    ended = run_unusable("release")
    assert (ended.exit_code, ended.stdout) == (0, "The database is up to date.\n")
    assert "Warning: no notification goes to these receivers:\n  - NOTIFY_URLS: entry 2 is" in ended.stderr
    assert PLANTED not in ended.stderr
