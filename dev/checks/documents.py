"""`python -m dev.checks.documents [--check]`: write the generated parts of the documents.

What stands in `docs/` between `<!-- made by scripts/fix: NAME -->` and `<!-- end -->`, and the drawings. With `--check`
nothing is written, and the exit status is 1 when something is out of date.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

from dev.documents import drawing, findings, tables
from dev.documents.tables import DocumentsError, Language

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PARTS: dict[str, Callable[[Language], list[str]]] = {
    "settings": tables.settings,
    "errors": tables.error_codes,
    "states": tables.states,
    "last errors": tables.last_errors,
    "findings": findings.findings,
    "commands": tables.commands,
    "metrics": tables.metrics,
    "alerts": tables.alerts,
}
BLOCK = re.compile(
    r"(?<=^<!-- made by scripts/fix: )([a-z ]+)( -->\n).*?(?=^<!-- end -->$)", re.MULTILINE | re.DOTALL
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.checks.documents", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit status 1 when something differs"
    )
    check: bool = parser.parse_args(arguments).check
    try:
        made = list(_made())
    except DocumentsError as error:
        print(error, file=sys.stderr)
        return 1
    changed = [(file, text) for file, text in made if not file.exists() or file.read_text("utf-8") != text]
    for file, text in changed:
        if not check:
            file.write_text(text, "utf-8")
        print(f"{file.relative_to(ROOT)} {'is out of date: run scripts/fix' if check else 'was written'}")
    return 1 if check and changed else 0


def with_made_parts(text: str, language: Language) -> str:
    """Return a document with its generated parts up to date. Raises DocumentsError for an unknown part."""

    def made(match: re.Match[str]) -> str:
        name = match[1]
        if name not in PARTS:
            raise DocumentsError(f"no part is called {name}: choose from {', '.join(PARTS)}")
        return f"{name}{match[2]}\n" + "\n".join(PARTS[name](language)) + "\n\n"

    return BLOCK.sub(made, text)


def _made() -> Iterator[tuple[Path, str]]:
    for language in get_args(Language):
        for file in sorted((DOCS / language).rglob("*.md")):
            yield file, with_made_parts(file.read_text("utf-8"), language)
        for name, picture in drawing.drawings(language):
            yield DOCS / language / "pictures" / name, picture


if __name__ == "__main__":
    sys.exit(main())
