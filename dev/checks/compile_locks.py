"""Make the requirements*.txt files, with every package's hashes, from the requirements*.in files.

python -m dev.checks.compile_locks             take up changes of the .in files, keep all other versions
python -m dev.checks.compile_locks --upgrade   take the newest versions
python -m dev.checks.compile_locks --check     change nothing; fail where a .txt does not follow from its .in, or has a
                                            hash that the package index does not know
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# In this order: the versions of each file bind the next one.
LOCKS = ("requirements", "requirements-local", "requirements-dev")


def compile_lock(folder: Path, name: str, *, bound_by: str | None, upgrade: bool) -> None:
    """Write `<name>.txt` in `folder` from `<name>.in`; versions already in it are kept unless `upgrade`."""
    command = [sys.executable, "-m", "uv", "pip", "compile", f"{name}.in", "--output-file", f"{name}.txt"]
    command += ["--universal", "--python-version", "3.11", "--generate-hashes", "--quiet"]
    # Nothing of the machine that it is made on, so that every machine makes the same file.
    command += ["--no-config", "--no-emit-index-url", "--no-emit-find-links"]
    # A source package runs its own code while it is installed. pip obeys the line that this puts into the file.
    command += ["--only-binary", ":all:", "--emit-build-options"]
    command += ["--custom-compile-command", "python -m dev.checks.compile_locks"]
    if bound_by is not None:
        command += ["--constraints", f"{bound_by}.txt"]
    if upgrade:
        command.append("--upgrade")
    subprocess.run(command, cwd=folder, check=True)


def compile_all(folder: Path, *, upgrade: bool) -> None:
    bound_by = None
    for name in LOCKS:
        compile_lock(folder, name, bound_by=bound_by, upgrade=upgrade)
        bound_by = name


def outdated_locks() -> list[str]:
    """The .txt files that compiling again would change, a newer release alone being no reason."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _copy(folder, keep_hashes=True)
        compile_all(folder, upgrade=False)
        return [
            f"{name}.txt"
            for name in LOCKS
            if (folder / f"{name}.txt").read_bytes() != (ROOT / f"{name}.txt").read_bytes()
        ]


def foreign_hashes() -> list[str]:
    """The packages of the .txt files with a hash that the index does not name for their version, or without any.

    Compiling keeps the hashes that it finds, wrong ones too. Files that a release got since then are no reason.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _copy(folder, keep_hashes=False)
        compile_all(folder, upgrade=False)
        known = {name: hashes_of((folder / f"{name}.txt").read_text()) for name in LOCKS}
    return sorted(
        f"{name}.txt: {package}"
        for name in LOCKS
        for package, hashes in hashes_of((ROOT / f"{name}.txt").read_text()).items()
        if not hashes or not hashes <= known[name].get(package, set())
    )


def hashes_of(lock: str) -> dict[str, set[str]]:
    """Return the hashes of each entry of a lock's text, by `name==version`."""
    entries = re.split(r"^(?=[A-Za-z0-9][^\n]*==)", lock, flags=re.MULTILINE)[1:]
    return {entry.split()[0]: set(re.findall(r"--hash=(\S+)", entry)) for entry in entries}


def _copy(folder: Path, *, keep_hashes: bool) -> None:
    for name in LOCKS:
        shutil.copy(ROOT / f"{name}.in", folder)
        text = (ROOT / f"{name}.txt").read_text()
        if not keep_hashes:
            text = re.sub(r" \\\n +--hash=\S+", "", text)
        (folder / f"{name}.txt").write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make or check the requirements*.txt files.")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="change nothing, fail where a file is out of date")
    mode.add_argument("--upgrade", action="store_true", help="take the newest versions")
    arguments = parser.parse_args()
    if not arguments.check:
        compile_all(ROOT, upgrade=arguments.upgrade)
        return 0
    outdated = outdated_locks()
    if outdated:
        print(
            f"out of date: {', '.join(outdated)}: run `python -m dev.checks.compile_locks`", file=sys.stderr
        )
        return 1
    foreign = foreign_hashes()
    if foreign:
        print(f"hashes missing, or not of the package index: {', '.join(foreign)}", file=sys.stderr)
        return 1
    print("the requirements*.txt files follow from their .in files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
