"""The keyed hashes by which the audit remembers whom an erasure was about, so that it can be repeated on a backup.

A hash is made of each identifier under each encryption key. So it can be compared with a restored backup as long as one
of those keys is in TOKEN_ENCRYPTION_KEYS, and no more once all of them are gone.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rdservice.access.audit import Action
from rdservice.cache.person import Person
from rdservice.encryption import KeyRing

ACTIONS: tuple[Action, ...] = ("person_erased", "erasure_reapplied")
"""The actions whose entries have hashes, in their detail `person`."""
PURPOSE = "erased person"


class NoExport(ValueError):
    """The text is no export of the audit. `line` is None if the text as a whole is meant."""

    def __init__(self, line: int | None = None) -> None:
        super().__init__("not an export of the audit")
        self.line = line


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """An erasure of an export. `hashes` is empty if a version without hashes made it."""

    entry: int
    erased_at: datetime
    hashes: tuple[str, ...] = field(repr=False)


def hashes(keys: KeyRing, person: Person) -> list[str]:
    """Return the hashes of the addresses and UUIDs by which the person was found."""
    return [
        hashed
        for identifier in sorted((*person.addresses, *person.uuids))
        for hashed in keys.keyed_hashes(PURPOSE, identifier)
    ]


@dataclass(frozen=True, slots=True)
class ErasedPeople:
    """The people of some erasures, recognized by hashes."""

    keys: KeyRing = field(repr=False)
    until: dict[str, datetime] = field(repr=False)

    @classmethod
    def of(cls, keys: KeyRing, erasures: Iterable[Erasure]) -> "ErasedPeople":
        until: dict[str, datetime] = {}
        for erasure in erasures:
            for hashed in erasure.hashes:
                until[hashed] = max(erasure.erased_at, until.get(hashed, erasure.erased_at))
        return cls(keys, until)

    def erased_at(self, identifier: str) -> datetime | None:
        """Return when the person with this identifier was last erased, or None."""
        found = (self.until.get(hashed) for hashed in self.keys.keyed_hashes(PURPOSE, identifier))
        return max((moment for moment in found if moment is not None), default=None)


def can_be_matched(keys: KeyRing, erasure: Erasure) -> bool:
    """Return whether one of the keys under which the erasure's hashes were made is there."""
    return any(hashed.partition(".")[0] in keys.key_ids for hashed in erasure.hashes)


def notes(erasures: Sequence[Erasure]) -> list[str]:
    """Return sentences about erasures that cannot be matched."""
    missing = {hashed.partition(".")[0] for erasure in erasures for hashed in erasure.hashes}
    told = []
    if missing:
        told.append(
            "The erasures under not_repeated were made with encryption keys that TOKEN_ENCRYPTION_KEYS lacks"
            f" ({', '.join(sorted(missing))}). Put the keys back at the end of the list, then run this again."
        )
    if not all(erasure.hashes for erasure in erasures):
        told.append(
            "An earlier version made some erasures under not_repeated and did not note whom they were about. Repeat"
            " them by hand with 'flask privacy erase'."
        )
    return told


def read_export(text: str) -> list[Erasure]:
    """Return the erasures in an export of the audit, as `flask audit list --json` prints it, or one entry per line.

    Raises NoExport.
    """
    return [found for line, entry in _entries(text) for found in _erasures(entry, line)]


def _entries(text: str) -> Iterator[tuple[int | None, Any]]:
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = None
    if whole is not None:
        for entry in whole if isinstance(whole, list) else [whole]:
            yield None, entry
        return
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise NoExport
    for number, line in lines:
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError):
            raise NoExport(number) from None


def _erasures(entry: Any, line: int | None) -> Iterator[Erasure]:
    try:
        action, details = entry["action"], entry["details"]
        if action not in ACTIONS or "reapplied" in details:
            return
        moment = datetime.fromisoformat(details.get("erased_at", entry["happened_at"]))
        found = details.get("person", [])
        whole = isinstance(found, list) and all(isinstance(hashed, str) for hashed in found)
        if moment.tzinfo is None or not whole:
            raise NoExport(line)
        yield Erasure(entry=int(entry["entry"]), erased_at=moment, hashes=tuple(found))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise NoExport(line) from None
