"""Write the requirements*.txt files: the packages of pyproject.toml, pinned with their hashes.

python -m dev.checks.compile_locks             take up changes of pyproject.toml, keep all other versions
python -m dev.checks.compile_locks --upgrade   take the newest versions; any option of `uv pip compile` is one here
python -m dev.checks.compile_locks --check     change nothing; fail where a file does not follow from pyproject.toml, or
                                            has a hash that the package index does not know
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from ast import literal_eval
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# The versions of each file constrain the next.
LOCKS = {
    "requirements.txt": [],
    "requirements-local.txt": ["--group", "local", "--constraints", "requirements.txt"],
    "requirements-dev.txt": ["--group", "dev", "--constraints", "requirements-local.txt"],
}

# Keeps settings of this machine out of the files. Source packages run their own code during installation; the line that
# --emit-build-options writes makes pip refuse them.
OPTIONS = ["--universal", "--python-version", "3.11", "--generate-hashes", "--only-binary", ":all:"]
OPTIONS += ["--emit-build-options", "--no-config", "--no-emit-index-url", "--no-emit-find-links", "--quiet"]
OPTIONS += ["--custom-compile-command", "python -m dev.checks.compile_locks"]

# uv does not read pip's settings; it has these under other names.
SETTINGS = {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE"}


def settings_of_pip() -> dict[str, str]:
    """Return uv's environment variables for the settings in pip's files and environment variables."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    said = {
        key: literal_eval(value) for key, _, value in (line.partition("=") for line in listed.splitlines())
    }
    # Later sections override earlier ones.
    keys = [(f"{section}.{name}", name) for section in ("global", "install", ":env:") for name in SETTINGS]
    return {SETTINGS[name]: said[key] for key, name in keys if key in said}


def compile_locks(folder: Path, *options: str) -> None:
    """Write the locks of the folder's pyproject.toml; without `--upgrade` the versions of existing ones are kept."""
    environment = settings_of_pip() | os.environ
    for name, part in LOCKS.items():
        uv = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--output-file", name]
        command = [*uv, *part, *OPTIONS, *options]
        subprocess.run(command, cwd=folder, env=environment, check=True)


def outdated() -> list[str]:
    """Return the locks that compiling would change. New releases, and new files of a release, do not count."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shutil.copy(ROOT / "pyproject.toml", folder)
        for name in LOCKS:
            # uv keeps existing hashes, even wrong ones. Without them it asks the index.
            without_hashes = re.sub(r" \\\n +--hash=\S+", "", (ROOT / name).read_text())
            (folder / name).write_text(without_hashes)
        compile_locks(folder)
        return [name for name in LOCKS if differ((ROOT / name).read_text(), (folder / name).read_text())]


def differ(lock: str, fresh: str) -> bool:
    """Return whether a lock differs from a fresh one by more than additional hashes in the fresh one."""
    ours, theirs = ([line.removesuffix(" \\") for line in text.splitlines()] for text in (lock, fresh))
    return [line for line in theirs if line in set(ours) or "--hash=" not in line] != ours


def main(*options: str) -> int:
    if options != ("--check",):
        compile_locks(ROOT, *options)
    elif names := outdated():
        print(
            f"{', '.join(names)}: not what pyproject.toml and the package index give. Run"
            " `python -m dev.checks.compile_locks`; if that changes nothing, some hashes are foreign to the index.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
