"""`scripts/fix`: rewrite what scripts/check compares: style, catalogue, documents, dashboard, locks."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Order matters: the documents contain sentences of the catalogue.
FIXES = (
    ["-m", "ruff", "check", "--fix", "--quiet", "."],
    ["-m", "ruff", "format", "--quiet", "."],
    ["-m", "dev.checks.catalogue"],
    ["-m", "dev.checks.documents"],
    ["-m", "dev.dashboards"],
    ["-m", "dev.checks.compile_locks"],
)


def main() -> int:
    # Runs all of them, even after one that failed.
    statuses = [subprocess.run([sys.executable, *fix], cwd=ROOT, check=False).returncode for fix in FIXES]
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main())
