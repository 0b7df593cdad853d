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
