"""A language in which every translation is its English in ⟦ ⟧: text outside of them did not pass the catalogue."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from gettext import NullTranslations

from dev.checks.catalogue import forms, read
from rdservice.text import catalogue

MARKED = re.compile(r"⟦[^⟦⟧]*⟧")


class Marked(NullTranslations):
    """Stands in for the Portuguese catalogue, with the texts that it has; others stay as they are.

    Placeholders stay, so that values stand between the signs too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known = {form for one in read() for form in forms(one)}

    def gettext(self, message: str) -> str:
        return f"⟦{message}⟧" if message in self._known else message

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return self.gettext(msgid1 if n == 1 else msgid2)


@contextmanager
def spoken() -> Iterator[None]:
    """Let Portuguese be the pseudo-language until the block ends."""
    with catalogue.use(Marked()):
        yield


def unmarked(text: str) -> str:
    """Return what of `text` is outside of the signs, however deep they are nested."""
    while (rest := MARKED.sub("", text)) != text:
        text = rest
    return text
