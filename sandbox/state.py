"""The state that all routes share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from sandbox.contact_book import ContactBook
from sandbox.counters import Counters
from sandbox.limits import SlidingWindows
from sandbox.settings import READERS, Settings
from sandbox.store import Store


@dataclass(frozen=True, kw_only=True)
class Client:
    """The registered app. The sandbox accepts each of `secrets`."""

    id: str
    secrets: tuple[str, ...] = field(repr=False)
    redirect_uri: str


class State:
    """The sandbox's whole state. Callers must hold the sandbox's lock."""

    def __init__(
        self, client: Client, path: Path | None, seed: int, clock: Callable[[], float] = time.time
    ) -> None:
        self.client = client
        self.seed = seed
        self.store = Store(path)
        saved = self.store.load("settings") or {}
        # Ignore settings that only an older version of the sandbox had.
        self.settings = Settings().changed({name: saved[name] for name in READERS if name in saved})
        self.counters = Counters()
        self._clock = clock
        self._start_afresh()

    def _start_afresh(self) -> None:
        self.windows = SlidingWindows()
        self.fault_dice = Random(self.seed)  # noqa: S311  (not for secrets: faults are to be repeatable)
        self._books: dict[str, ContactBook] = {}

    def now(self) -> float:
        """The sandbox's time, as Unix seconds."""
        return self._clock() + self.settings.clock_offset_s

    def change_settings(self, settings: Settings) -> None:
        """Apply settings and store them, so that they survive a restart."""
        if settings != self.settings:
            self.store.save("settings", settings.as_json())
            self.settings = settings

    def reset(self) -> None:
        """Delete everything except what the sandbox was started with."""
        self.store.forget_everything()
        self.settings = Settings()
        self.counters.reset()
        self._start_afresh()

    def book(self, account: str) -> ContactBook:
        """Return the account's contacts."""
        if account not in self._books:
            self._books[account] = ContactBook(self.seed, account, self.store)
        return self._books[account]

    def report(self) -> dict[str, Any]:
        """Return the response of `GET /_sandbox`."""
        return {"settings": self.settings.as_json(), **self.counters.report()}
