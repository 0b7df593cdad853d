"""`scripts/check`: all that must hold before the tests run. It changes nothing.

`--all` also runs what takes too long for each change: the simulation, the fault table and the benchmarks.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

CHECKS = {
    "locks follow from pyproject.toml": ["-m", "dev.checks.compile_locks", "--check"],
    "a deployment imports only its own packages": [
        "-m", "deptry", ".", "--exclude", r"\.venv|scripts|dev|sandbox|tests",
    ],
    "scripts/start imports only its own packages": [
        "-m", "deptry", ".", "--non-dev-dependency-groups", "local",
        "--exclude", r"\.venv|tests|dev/checks|dev/dashboards|dev/documents|dev/screenshots",
    ],
    "every package has a use": [
        "-m", "deptry", ".", "--non-dev-dependency-groups", "local,dev", "--exclude", r"\.venv",
    ],
    "style": ["-m", "ruff", "check", "--quiet", "."],
    "formatting": ["-m", "ruff", "format", "--check", "--quiet", "."],
    "types": ["-m", "mypy"],
    "layers": ["-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache", "--no-logo"],
    "sizes": ["-m", "dev.checks.sizes"],
    "Portuguese is complete": ["-m", "dev.checks.catalogue", "--check"],
    "documents follow from the code": ["-m", "dev.checks.documents", "--check"],
    "the dashboard follows from its panels": ["-m", "dev.dashboards", "--check"],
    "the documents build": ["-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", ".data/site"],
}  # fmt: skip
LONG_CHECKS = {
    "a simulated year": ["-m", "dev.simulation"],
    "every fault": ["-m", "dev.checks.run_faults"],
    "benchmarks": ["-m", "dev.benchmarks"],
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/check", description="Check everything but the tests.")
    parser.add_argument(
        "--all", action="store_true", help="also what takes hours: simulation, faults, benchmarks"
    )
    checks = CHECKS | (LONG_CHECKS if parser.parse_args().all else {})
    failed = [name for name, arguments in checks.items() if not holds(name, arguments)]
    if failed:
        print(
            f"\nfailed: {', '.join(failed)}. scripts/fix rewrites what is made from the code.",
            file=sys.stderr,
        )
    return bool(failed)


def holds(name: str, arguments: list[str]) -> bool:
    """Run one check; print its output if it fails."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(
        f"{'ok  ' if done.returncode == 0 else 'FAIL'} {time.monotonic() - started:5.1f} s  {name}",
        flush=True,
    )
    if done.returncode:
        print(done.stdout, file=sys.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
