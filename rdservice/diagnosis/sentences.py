"""What a finding is told with: sentences by part, and those that several findings share."""

from typing import NamedTuple

from rdservice.text.catalogue import Plural, message


class Words(NamedTuple):
    """What a finding says, in one language."""

    seen: str
    meaning: str
    todo: str


class Sentences(NamedTuple):
    """The sentences of each part, in English, with places for the finding's values.

    The value `count` chooses the form of a plural.
    """

    seen: list[str | Plural]
    meaning: list[str | Plural]
    todo: list[str | Plural]


RESTART = message("Then restart web and worker.")
STILL_WORKS = message("Programs keep reading its leads for another %(left)s.")
NO_LONGER_WORKS = message("Programs no longer get its leads.")
