"""What runs on this machine, from /proc."""

import time
from collections.abc import Iterable
from pathlib import Path

from dev.benchmarks.processes import stat_fields, tree


def descendants(pid: int) -> set[int]:
    """The process ids of all children of `pid`, their children, and so on."""
    return tree(pid) - {pid}


def command_line(pid: int) -> str:
    """Empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def wait_until_gone(pids: Iterable[int], *, seconds: float) -> set[int]:
    """Wait until none of them runs; returns those that still do after `seconds`."""
    left = set(pids)
    give_up = time.monotonic() + seconds
    while left and time.monotonic() < give_up:
        left = {pid for pid in left if _runs(pid)}
        time.sleep(0.05)
    return left


def _runs(pid: int) -> bool:
    try:
        return stat_fields(pid)[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False
