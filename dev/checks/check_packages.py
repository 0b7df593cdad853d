"""Check that the requirements*.in files name what is imported, and nothing else.

python -m dev.checks.check_packages

Each part of the code may import what its own file names: a deployment has no package of scripts/start, and neither has
one of the tests. A package that is there only because another one needs it may be gone with that one's next release.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Part(NamedTuple):
    """Code that runs with the packages of one file; `without`: a regular expression of the folders left out."""

    requirements: str
    without: str


PARTS = (
    Part("requirements.in", r"\.venv|scripts|sandbox|tests"),
    # The first runs the tests of faults, the second makes files that are in the repository.
    Part(
        "requirements-local.in",
        r"\.venv|tests|dev/checks/run_faults\.py|dev/dashboards|dev/screenshots",
    ),
    Part("requirements-dev.in", r"\.venv"),
)


def findings(root: Path) -> list[str]:
    """Return a line for each package that is undeclared or unused under `root`, empty where all is well."""
    found: list[str] = []
    for part in PARTS:
        command = [sys.executable, "-m", "deptry", ".", "--no-ansi", "--exclude", part.without]
        command += ["--config", str(ROOT / "pyproject.toml"), "--requirements-files", part.requirements]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        lines = [line for line in done.stderr.splitlines() if " DEP0" in line]
        if done.returncode and not lines:
            raise RuntimeError(f"deptry failed:\n{done.stderr}")
        found += [f"{part.requirements}: {line.removeprefix(f'{part.requirements}: ')}" for line in lines]
    return found


def main() -> int:
    found = findings(ROOT)
    for line in found:
        print(line, file=sys.stderr)
    if found:
        print("add or remove these in the file named first, then run `python -m dev.checks.compile_locks`",
              file=sys.stderr)  # fmt: skip
        return 1
    print("the requirements*.in files name what is imported, and nothing else")
    return 0


if __name__ == "__main__":
    sys.exit(main())
