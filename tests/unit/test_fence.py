"""Unit tests cannot start a process or open a socket."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest


def _swallow() -> None:
    try:
        socket.socket()
    except Exception:  # noqa: BLE001 - as code that survives every error would
        return


@pytest.mark.parametrize(
    ("event", "act"),
    [
        ("socket.__new__", socket.socket),
        ("socket.__new__", lambda: socket.create_server(("127.0.0.1", 0))),
        ("socket.getaddrinfo", lambda: socket.create_connection(("localhost", 9))),
        ("socket.__new__", _swallow),
        ("subprocess.Popen", lambda: subprocess.run([sys.executable, "-V"], check=False)),
        ("os.fork", os.fork),
        ("os.system", lambda: os.system("true")),  # noqa: S605
    ],
)
def test_a_socket_or_a_process_fails_the_test_by_name(event: str, act: Callable[[], object]) -> None:
    with pytest.raises(
        pytest.fail.Exception,
        match=f"tests/unit/test_fence.py::test_a_socket_or_a_process_fails_the_test_by_name.*: {event} ",
    ):
        act()


@pytest.mark.parametrize("name", ["server", "sandbox", "database_url", "services"])
def test_fixtures_that_start_programs_are_out_of_reach(name: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(pytest.fail.Exception, match="in a unit test"):
        request.getfixturevalue(name)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_threads_are_inside_the_fence_too() -> None:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            socket.socket()
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    (error,) = failed
    assert isinstance(error, pytest.fail.Exception)
