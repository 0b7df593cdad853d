"""`python -m dev.checks.catalogue`: bring the Portuguese catalogue up to date with the sentences in the code.

It collects what babel.cfg names and the help of the `flask` commands, writes messages.po (new sentences without a
translation, old ones left out) and compiles messages.mo. Translate what it lists in messages.po and run it again.
`--check` changes nothing: it fails when a file is not what the code yields, and when a translation is missing or has
other placeholders.
"""

import io
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.frontend import parse_mapping_cfg
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from rdservice import cli
from rdservice.cli.translated_help import help_texts
from rdservice.text.catalogue import MACHINE_FILE

ROOT = Path(__file__).resolve().parents[2]
SOURCE_FILE = MACHINE_FILE.with_suffix(".po")
KEYWORDS: dict[str, tuple[int, ...] | None] = {
    # gettext's functions, for pages.
    "_": None,
    "gettext": None,
    "ngettext": (1, 2),
    # Functions of rdservice.text.
    "message": None,
    "plural_message": (1, 2),
    "translated": (2,),
    "translated_plural": (2, 3),
    "tell": None,
    "tell_plural": (1, 2),
}
PLACEHOLDER = re.compile(r"%\((\w+)\)s")


class Stable(Catalog):
    """A catalogue without date and version in its header, so that the same sentences produce the same file."""

    @property
    def mime_headers(self) -> list[tuple[str, str]]:
        return [
            ("Language", "pt_BR"),
            ("Plural-Forms", self.plural_forms),
            ("MIME-Version", "1.0"),
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Transfer-Encoding", "8bit"),
        ]


def main(arguments: Sequence[str]) -> int:
    """Return the exit status: 0 when the catalogue is current and complete."""
    written = read()
    current = updated(written)
    if "--check" not in arguments:
        for left in sorted(str(one.id) for one in written if one.id and one.id not in current):
            print(f"Removed: {left}")
        SOURCE_FILE.write_bytes(source(current))
        MACHINE_FILE.write_bytes(compiled(current))
    found = mistakes()
    for mistake in found:
        print(mistake, file=sys.stderr)
    return 1 if found else 0


def mistakes() -> list[str]:
    """Return the problems of the two files."""
    current = updated(read())
    found = [
        f"{path.relative_to(ROOT)} is not what the code yields: run python -m dev.checks.catalogue"
        for path, content in ((SOURCE_FILE, source(current)), (MACHINE_FILE, compiled(current)))
        if path.read_bytes() != content
    ]
    for one in current:
        if not one.id:
            continue
        if not all(strings(one)):
            found.append(f"Not translated in {SOURCE_FILE.relative_to(ROOT)}: {forms(one)[0]!r}")
        elif any(names(english) != names(own) for english, own in zip(forms(one), strings(one), strict=True)):
            found.append(f"Other placeholders in the translation of {forms(one)[0]!r}")
    return found


def read() -> Catalog:
    """Read messages.po."""
    with SOURCE_FILE.open("rb") as file:
        return read_po(file, locale="pt_BR")


def updated(written: Catalog) -> Catalog:
    """Return the sentences of the code with the translations that `written` has."""
    made = Stable(
        locale="pt_BR", fuzzy=False, header_comment="# Brazilian Portuguese: see dev/checks/catalogue.py."
    )
    for text in collected():
        known = written.get(text)
        made.add(text, known.string if known is not None and known.id == text else None)
    return made


def collected() -> Iterator[str | tuple[str, ...]]:
    """Yield every sentence that the code marks, as a pair where it has a plural."""
    with (ROOT / "babel.cfg").open(encoding="utf-8") as file:
        methods, options = parse_mapping_cfg(file)  # type: ignore[no-untyped-call]
    for _file, _line, text, _comments, _context in extract_from_dir(ROOT, methods, options, KEYWORDS):
        yield text
    for command in cli.COMMANDS:
        yield from help_texts(command)


def source(catalogue: Catalog) -> bytes:
    """Return the content of messages.po."""
    file = io.BytesIO()
    write_po(file, catalogue, width=0, no_location=True, sort_output=True)
    return file.getvalue()


def compiled(catalogue: Catalog) -> bytes:
    """Return the content of messages.mo."""
    file = io.BytesIO()
    write_mo(file, catalogue)
    return file.getvalue()


def forms(one: Message) -> tuple[str, ...]:
    """Return the English text, and its plural where it has one."""
    return (one.id,) if isinstance(one.id, str) else tuple(one.id)


def strings(one: Message) -> tuple[str, ...]:
    """Return the translations of the forms."""
    return (one.string,) if isinstance(one.string, str) else tuple(one.string or ())


def names(text: str) -> set[str]:
    """Return the names of the placeholders."""
    return set(PLACEHOLDER.findall(text))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
