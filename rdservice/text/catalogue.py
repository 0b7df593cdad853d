"""Sentences in the reader's language: English as it stands in the code, Portuguese from `rdservice/translations`.

The English text is the key. `python -m dev.checks.catalogue` collects the texts that the code marks (calls of
`message`, `plural_message`, `translated`, `translated_plural`, `tell`, `tell_plural`, and of gettext's functions on
pages) and the help of the commands, and keeps the catalogue current. Standard library only: scripts/start speaks before
any package is installed.
"""

import contextlib
import gettext
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

Language = Literal["en", "pt-BR"]
LANGUAGES: tuple[Language, ...] = ("en", "pt-BR")
FOLDER = Path(__file__).resolve().parents[1] / "translations"
MACHINE_FILE = FOLDER / "pt_BR" / "LC_MESSAGES" / "messages.mo"

_replacement: gettext.NullTranslations | None = None


class Plural(NamedTuple):
    """A text whose form depends on a number."""

    singular: str
    plural: str


def message(text: str) -> str:
    """Return `text` as it is. Marks a constant that is translated later."""
    return text


def plural_message(singular: str, plural: str) -> Plural:
    """Return both forms. Marks constants that are translated later: `translated_plural(language, *forms, count)`."""
    return Plural(singular, plural)


def translated(language: Language, text: str, /, **values: object) -> str:
    """Return the English `text` in `language`, with `%(name)s` replaced by `values`.

    A text without a translation stays English. Without `values` a `%` stands for itself. Raises KeyError when a value
    is missing.
    """
    found = _catalogue(language).gettext(text) if text else ""
    return found % values if values else found


def translated_plural(language: Language, singular: str, plural: str, count: int, /, **values: object) -> str:
    """Return the form for `count` in `language`, with `%(name)s` replaced by `values`.

    `%(count)s` is the number itself, unless `values` have it in other words ("100+", "1.234").
    """
    return _catalogue(language).ngettext(singular, plural, count) % {"count": count, **values}


@contextlib.contextmanager
def use(translations: gettext.NullTranslations) -> Iterator[None]:
    """Replace the Portuguese catalogue in this process until the block ends. For tests."""
    global _replacement  # noqa: PLW0603 - one catalogue for the whole process, as gettext has it
    earlier, _replacement = _replacement, translations
    try:
        yield
    finally:
        _replacement = earlier


def _catalogue(language: Language) -> gettext.NullTranslations:
    if language == "en":
        return _english()
    return _replacement or _portuguese()


@cache
def _english() -> gettext.NullTranslations:
    return gettext.NullTranslations()


@cache
def _portuguese() -> gettext.GNUTranslations:
    with MACHINE_FILE.open("rb") as file:
        return gettext.GNUTranslations(file)
