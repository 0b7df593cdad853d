"""`python -m dev.checks.sizes`: no module is long, few stand loose in `rdservice/`, and the READMEs are short."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LONGEST_MODULE = 400
MOST_LOOSE_MODULES = 6
LONGEST_README = 200
CODE = ("rdservice", "worker", "scripts", "dev", "sandbox")


def mistakes(root: Path) -> list[str]:
    """Return a line for each limit that the tree under `root` exceeds."""
    found = [
        f"{file.relative_to(root)} has {count} lines, {LONGEST_MODULE} at most"
        for folder in CODE
        for file in sorted((root / folder).rglob("*.py"))
        if (count := _lines(file)) > LONGEST_MODULE
    ]
    loose = [file.name for file in (root / "rdservice").glob("*.py") if file.name != "__init__.py"]
    if len(loose) > MOST_LOOSE_MODULES:
        found.append(f"{len(loose)} modules stand loose in rdservice/, {MOST_LOOSE_MODULES} at most")
    found += [
        f"{name} has {count} lines, {LONGEST_README} at most"
        for name in ("README.md", "README.pt-BR.md")
        if (count := _lines(root / name)) > LONGEST_README
    ]
    return found


def _lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def main() -> int:
    found = mistakes(ROOT)
    print(*found, sep="\n", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
