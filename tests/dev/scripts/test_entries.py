"""The programs that people call: each hands its arguments to the set-up, which runs on a Python that is new enough."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.local import bootstrap

ROOT = Path(__file__).resolve().parents[3]
ENTRIES = sorted(
    file.relative_to(ROOT).as_posix()
    for folder in ("scripts", "dev")
    for file in (ROOT / folder).iterdir()
    if file.is_file() and not file.suffix
)


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The entries in a folder with spaces, before a set-up that only prints what it was given."""
    folder = tmp_path_factory.mktemp("copies") / "a path with spaces"
    for name in (*ENTRIES, "scripts/local/run"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "scripts" / "local" / "bootstrap.py").write_text("import sys\nprint(sys.argv[1:])\n")
    return folder


def test_every_program_of_the_set_up_has_one_entry(copies: Path) -> None:
    programs = [call(copies / entry).stdout.split("'")[1] for entry in ENTRIES]
    assert sorted(programs) == sorted(bootstrap.PROGRAMS) == sorted(bootstrap.PACKAGES)
    assert {entry for entry in ENTRIES if entry.startswith("dev/")} == {"dev/drill", "dev/monitor"}


@pytest.mark.parametrize("module", bootstrap.PROGRAMS.values())
def test_every_program_of_the_set_up_is_there(module: str) -> None:
    assert importlib.util.find_spec(module) is not None


@pytest.mark.parametrize("entry", ENTRIES)
def test_arguments_arrive_as_they_were_given(copies: Path, entry: str) -> None:
    done = call(copies / entry, "--one", "two words", "")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(", '--one', 'two words', '']\n")


def test_without_a_python_that_is_new_enough_it_says_what_to_install(copies: Path, tmp_path: Path) -> None:
    dirname = shutil.which("dirname")
    assert dirname is not None
    (tmp_path / "dirname").symlink_to(dirname)
    # It is there and refuses to run, as a version manager's may.
    (tmp_path / "python3.11").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3.11").chmod(0o700)
    done = call(copies / "scripts" / "start", PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (69, "")
    assert "Python 3.11 or newer is needed" in done.stderr
    assert "apt-get install python3" in done.stderr


def call(entry: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(entry), *arguments],
        cwd="/",
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
