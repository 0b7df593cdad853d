"""The language of messages on a terminal. Standard library only: scripts/start asks before any package is installed."""

import os
from collections.abc import Mapping

from rdservice.text.catalogue import Language, translated, translated_plural


def language(environ: Mapping[str, str] | None = None) -> Language:
    """Return Portuguese when the locale of messages (locale(7)) is any Portuguese, else English.

    `environ`: this process's environment unless another is given.
    """
    environ = os.environ if environ is None else environ
    locale = environ.get("LC_ALL") or environ.get("LC_MESSAGES") or environ.get("LANG") or ""
    return "pt-BR" if locale.lower().startswith("pt") else "en"


def tell(text: str, /, **values: object) -> str:
    """Return the English `text` in the terminal's language, with `%(name)s` replaced by `values`."""
    return translated(language(), text, **values)


def tell_plural(singular: str, plural: str, count: int, /, **values: object) -> str:
    """Return the form for `count` in the terminal's language; `%(count)s` is the number."""
    return translated_plural(language(), singular, plural, count, **values)
