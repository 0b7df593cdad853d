"""The sentences of a finding, by part, and sentences that several findings share."""

from typing import NamedTuple

from rdservice.text.catalogue import Plural, message


class Words(NamedTuple):
    """The text of a finding in one language."""

    seen: str
    meaning: str
    todo: str


class Sentences(NamedTuple):
    """The English sentences of each part, with placeholders for the finding's values.

    The value `count` selects the plural form.
    """

    seen: list[str | Plural]
    meaning: list[str | Plural]
    todo: list[str | Plural]


RESTART = message("Then restart web and worker.")
STILL_WORKS = message("Programs keep reading its leads for another %(left)s.")
NO_LONGER_WORKS = message("Programs no longer get its leads.")
