"""Unit tests start no process and open no socket; one that does fails by name."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

# https://docs.python.org/3/library/audit_events.html
FORBIDDEN = frozenset(
    {
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.system",
        "subprocess.Popen",
        "socket.__new__",
        "socket.connect",
        "socket.getaddrinfo",
    }
)


class _Fence:
    """An audit hook that cannot be removed: it forbids while a test is named."""

    def __init__(self) -> None:
        self.test: str | None = None
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.test is not None and event in FORBIDDEN:
            # No Exception, so that the code under test does not catch it.
            pytest.fail(f"{self.test}: {event} in a unit test; tests/integration is the place for it")


_fence = _Fence()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Session fixtures such as PostgreSQL and the sandbox are started here, and so are forbidden too."""
    return (yield from _fenced(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    return (yield from _fenced(item))


def _fenced(item: pytest.Item) -> Iterator[None]:
    _fence.test = item.nodeid
    try:
        return (yield)
    finally:
        _fence.test = None


# An earlier test of the same process may have started them: then asking for them starts nothing, and must fail too.
@pytest.fixture
def server(request: pytest.FixtureRequest) -> None:
    """Keep PostgreSQL, and what needs it, out of unit tests."""
    _out_of_reach(request)


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> None:
    """Keep databases, and what needs one, out of unit tests."""
    _out_of_reach(request)


@pytest.fixture
def sandbox(request: pytest.FixtureRequest) -> None:
    """Keep the sandbox out of unit tests."""
    _out_of_reach(request)


def _out_of_reach(request: pytest.FixtureRequest) -> None:
    pytest.fail(
        f"{request.node.nodeid}: {request.fixturename} in a unit test; tests/integration is the place for it"
    )
