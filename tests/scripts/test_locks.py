"""The pinned requirements: complete, consistent with each other, and free of the machine that made them."""

import re
from pathlib import Path

import pytest

from scripts.compile_locks import LOCKS

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"^(?P<name>[a-z0-9._-]+)==(?P<version>\S+)(?P<marker> ; [^\\]+)? \\$")


def pins(lock: str) -> dict[str, str]:
    lines = (ROOT / f"{lock}.txt").read_text().splitlines()
    return {match["name"]: match["version"] for line in lines if (match := PIN.match(line))}


def asked_for(lock: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / f"{lock}.in").read_text().splitlines())
    return [line.partition("[")[0].lower() for line in lines if line and not line.startswith("-")]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_pinned_with_hashes(lock: str) -> None:
    text = (ROOT / f"{lock}.txt").read_text()
    assert set(asked_for(lock)) <= set(pins(lock))
    entries = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(pins(lock))
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


@pytest.mark.parametrize("lock", LOCKS)
def test_no_address_or_path_of_a_machine_is_in_a_lock(lock: str) -> None:
    assert not re.search(r"://|--index|--find-links|--trusted|[ =]/", (ROOT / f"{lock}.txt").read_text())


def test_the_larger_sets_hold_the_smaller_ones_in_the_same_versions() -> None:
    deployment, local, development = (pins(lock).items() for lock in LOCKS)
    assert deployment <= local <= development


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_that_is_asked_for_has_its_reason(lock: str) -> None:
    for line in (ROOT / f"{lock}.in").read_text().splitlines():
        assert line.startswith(("#", "-r ")) or re.search(r"\S\s+# \S", line), line
