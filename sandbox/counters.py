"""Counts calls by operation and result, and the calls that run at the same time."""

from __future__ import annotations

from collections import Counter
from typing import Any

OPERATIONS = (
    "token_exchange",
    "token_refresh",
    "revoke",
    "account_info",
    "segmentations_list",
    "contacts_list",
    "contact_get",
    "other",
)
NO_ANSWER = "none"


class Counters:
    """Counts since the start or the last reset. Not kept over a restart."""

    def __init__(self) -> None:
        self.calls: dict[str, Counter[str]] = {operation: Counter() for operation in OPERATIONS}
        self.in_flight = 0
        self.max_concurrent_per_refresh_token = 0
        self._flights: Counter[str] = Counter()

    def count(self, operation: str, result: str) -> None:
        """Count a call. `result`: its status, or NO_ANSWER."""
        self.calls[operation][result] += 1

    def begin(self, flight: str | None) -> None:
        """Record that a call has arrived. `flight`: identifies the refresh token that a refresh presents."""
        self.in_flight += 1
        if flight is not None:
            self._flights[flight] += 1
            at_once = self._flights[flight]
            self.max_concurrent_per_refresh_token = max(self.max_concurrent_per_refresh_token, at_once)

    def end(self, flight: str | None) -> None:
        """Record that the call that began with `flight` has ended."""
        self.in_flight -= 1
        if flight is not None:
            self._flights[flight] -= 1
            if not self._flights[flight]:
                del self._flights[flight]

    def reset(self) -> None:
        """Reset the counts, but not the calls under way."""
        self.calls = {operation: Counter() for operation in OPERATIONS}
        self.max_concurrent_per_refresh_token = max(self._flights.values(), default=0)

    def report(self) -> dict[str, Any]:
        return {
            "calls": {operation: dict(results) for operation, results in self.calls.items()},
            "in_flight": self.in_flight,
            "max_concurrent_per_refresh_token": self.max_concurrent_per_refresh_token,
        }
