"""Processor time and memory of running processes, from /proc (proc(5))."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Memory(NamedTuple):
    """In bytes. `resident` counts a page for each process that uses it, `proportional` (PSS) divides it among them."""

    resident: int
    proportional: int


def children(pid: int) -> set[int]:
    """The process ids of the direct children of `pid`."""
    return {child for child, parent in _parents() if parent == pid}


def tree(pid: int) -> set[int]:
    """The process ids of `pid`, its children, their children, and so on."""
    parents = dict(_parents())
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time that these processes have used together, in user and system mode. Ended ones count nothing."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = stat_fields(pid)
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(pids: Iterable[int]) -> Memory:
    """Memory that these processes use together. One that has ended, as PostgreSQL's own do, uses none."""
    resident = proportional = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in lines:
            name, _, value = line.partition(":")
            if name == "Rss":
                resident += int(value.split()[0]) * 1024
            elif name == "Pss":
                proportional += int(value.split()[0]) * 1024
    return Memory(resident, proportional)


def _parents() -> Iterable[tuple[int, int]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                yield int(folder.name), int(stat_fields(int(folder.name))[1])
            except (FileNotFoundError, ProcessLookupError):
                continue


def stat_fields(pid: int) -> list[str]:
    """The fields of proc(5) from `state` on; the name before them may hold spaces and parentheses."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
