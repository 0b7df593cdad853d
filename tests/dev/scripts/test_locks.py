"""The pinned requirements: complete, consistent with each other, and free of the machine that made them."""

import re
from pathlib import Path

import pytest

from dev.checks import compile_locks
from dev.checks.compile_locks import LOCKS

ROOT = Path(__file__).resolve().parents[3]
PIN = re.compile(r"^(?P<name>[a-z0-9._-]+)==(?P<version>\S+)(?P<marker> ; [^\\]+)? \\$")


def pins(lock: str) -> dict[str, str]:
    lines = (ROOT / f"{lock}.txt").read_text().splitlines()
    return {match["name"]: match["version"] for line in lines if (match := PIN.match(line))}


def asked_for(lock: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / f"{lock}.in").read_text().splitlines())
    return [re.split(r"[\[=]", line)[0].lower() for line in lines if line and not line.startswith("-")]


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


@pytest.mark.parametrize("lock", LOCKS)
def test_pip_takes_no_package_that_runs_code_of_its_own_to_be_installed(lock: str) -> None:
    assert "--only-binary :all:" in (ROOT / f"{lock}.txt").read_text().splitlines()


ENTRY = "six==1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n    # via -r requirements.in\n"


@pytest.fixture
def index_with_six(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Locks of one package; compiling keeps what it finds, as uv does, and asks an index that knows three files."""

    def compile_all(folder: Path, *, upgrade: bool) -> None:
        for name in LOCKS:
            lock = folder / f"{name}.txt"
            if "--hash" not in lock.read_text():
                lock.write_text(ENTRY.replace("bb\n", "bb \\\n    --hash=sha256:cc\n"))

    monkeypatch.setattr(compile_locks, "ROOT", tmp_path)
    monkeypatch.setattr(compile_locks, "compile_all", compile_all)
    for name in LOCKS:
        (tmp_path / f"{name}.in").write_text("six # why\n")
        (tmp_path / f"{name}.txt").write_text(ENTRY)
    return tmp_path


def test_files_that_a_release_got_later_are_no_reason_to_compile_again(index_with_six: Path) -> None:
    assert compile_locks.outdated_locks() == []
    assert compile_locks.foreign_hashes() == []


@pytest.mark.parametrize(
    "changed",
    [
        ENTRY.replace("sha256:aa", "sha256:dd"),
        ENTRY.replace("    # via", "    --hash=sha256:dd\n    # via"),
        "six==1.0\n    # via -r requirements.in\n",
    ],
    ids=["another hash", "one hash more", "no hash"],
)
def test_a_hash_that_the_index_does_not_know_or_none_at_all_is_found(
    index_with_six: Path, changed: str
) -> None:
    (index_with_six / "requirements-dev.txt").write_text(changed)
    assert compile_locks.foreign_hashes() == ["requirements-dev.txt: six==1.0"]
