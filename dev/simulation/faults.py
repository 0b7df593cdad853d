"""Faults, drawn at random: those of single calls, and incidents that affect everything."""

import random
from collections import Counter
from dataclasses import dataclass
from typing import Literal

HOUR = 3600.0
DAY = 24 * HOUR

Crash = Literal["before the call", "after it took effect", "with the answer in hand", "after the store"]
Pause = Literal["before sending", "after sending"]
Outage = Literal["refused", "server error", "html", "silence"]
Refusal = Literal["false refusal", "false refusal without a name"]
"""RD Station refuses a refresh token that works: with INVALID_REFRESH_TOKEN, or with another 401."""

# Probability for one exchange, in a run of many.
RATES: dict[str, float] = {
    "latency of seconds": 0.02,
    "latency beyond the deadline": 0.003,
    "server error": 0.005,
    "false refusal": 0.001,
    "HTML instead of JSON": 0.002,
    "connection refused": 0.003,
    "request lost": 0.001,
    "answer lost": 0.0015,
    "answer cut off": 0.001,
    "gateway error after it took effect": 0.0005,
    "crash before the call": 0.0005,
    "crash after it took effect": 0.0004,
    "crash with the answer in hand": 0.0004,
    "crash after the store": 0.0005,
    "pause before sending": 0.0004,
    "pause after sending": 0.0004,
    "operator during the exchange": 0.004,
}
MANY = 20_000
"""Exchanges of a run for which RATES apply; shorter runs have up to ten times higher rates."""
COMMIT_CUT = 0.0005
"""Probability for one commit. Half of these commits take effect."""

LONGEST_OUTAGE_S = 6 * HOUR
RECOVERY_S = 3 * HOUR
"""Minimum time between two incidents that stop all refreshes. The service promises to survive six hours, not twelve."""


@dataclass(frozen=True, kw_only=True)
class Fate:
    """The faults of one call. `instead`: replaces RD Station's response, so that the call has no effect; `afterwards`:
    changes the response after the call took effect; `meddle`: a person acts on the account in the meantime.
    """

    latency_s: float
    instead: str | None = None
    afterwards: str | None = None
    crash: Crash | None = None
    pause: Pause | None = None
    pause_s: float = 0.0
    meddle: bool = False


@dataclass(kw_only=True)
class Weather:
    """The current conditions for all calls."""

    outage: Outage | None = None
    refusal: Refusal | None = None
    """What it tells everyone who refreshes a token."""
    storm: bool = False
    storm_says_when: bool = False


class Faults:
    """Draws the faults of single calls. `counts`: injected faults by name."""

    def __init__(self, dice: random.Random, exchanges: float) -> None:
        """`exchanges`: approximate number in the run."""
        factor = min(10.0, max(1.0, MANY / max(exchanges, 1.0)))
        self.counts: Counter[str] = Counter()
        self.weather = Weather()
        self._dice = dice
        self._names = list(RATES)
        self._rates = {name: rate * factor for name, rate in RATES.items()}
        self._commit_cut = COMMIT_CUT * factor
        self._total = sum(self._rates.values())

    def of_call(self, *, refresh: bool) -> Fate:
        """Draw the faults of a call. Only exchanges of refresh tokens have crashes and pauses."""
        dice, latency_s = self._dice, self._dice.uniform(0.05, 0.6)
        if self.weather.outage is not None:
            return Fate(latency_s=latency_s, instead=self._outage(self.weather.outage))
        if refresh and self.weather.refusal is not None:
            self.counts[f"{self.weather.refusal} in bulk"] += 1
            return Fate(latency_s=latency_s, instead=self.weather.refusal)
        if self.weather.storm and dice.random() < 0.9:
            self.counts["429"] += 1
            return Fate(
                latency_s=latency_s,
                instead="429 with Retry-After" if self.weather.storm_says_when else "429",
            )
        mishap = self._mishap()
        if mishap is None or (not refresh and mishap.startswith(("crash", "pause", "operator", "false"))):
            return Fate(latency_s=latency_s)
        self.counts[mishap] += 1
        return self._fate(mishap, latency_s)

    def of_commit(self) -> str | None:
        """Draw whether the connection breaks at a commit, `before` or `after` it took effect."""
        if self._dice.random() >= self._commit_cut:
            return None
        cut = self._dice.choice(["before", "after"])
        self.counts[f"connection cut {cut} the commit"] += 1
        return cut

    def _mishap(self) -> str | None:
        drawn = self._dice.random()
        if drawn >= self._total:
            return None
        for name in self._names:
            drawn -= self._rates[name]
            if drawn < 0:
                return name
        return None

    def _outage(self, kind: Outage) -> str:
        self.counts["call during an outage"] += 1
        if kind == "server error":
            return self._dice.choice(["500", "503"])
        return {"refused": "connection refused", "html": "html", "silence": "silence"}[kind]

    def _fate(self, mishap: str, latency_s: float) -> Fate:
        dice = self._dice
        if mishap == "latency of seconds":
            return Fate(latency_s=dice.uniform(1, 15))
        if mishap == "latency beyond the deadline":
            return Fate(latency_s=dice.uniform(20.5, 90))
        instead = {
            "server error": dice.choice(["500", "503"]),
            "false refusal": "false refusal",
            "HTML instead of JSON": "html",
            "connection refused": "connection refused",
            "request lost": "request lost",
        }.get(mishap)
        if instead is not None:
            return Fate(latency_s=latency_s, instead=instead)
        if mishap in ("answer lost", "answer cut off", "gateway error after it took effect"):
            return Fate(latency_s=latency_s, afterwards=mishap)
        if mishap == "operator during the exchange":
            return Fate(latency_s=dice.uniform(2, 12), meddle=True)
        kind, _, point = mishap.partition(" ")
        if kind == "crash":
            return Fate(latency_s=latency_s, crash=point)  # type: ignore[arg-type]
        return Fate(latency_s=latency_s, pause=point, pause_s=dice.choice([5, 30, 58, 70, 120, 900]))  # type: ignore[arg-type]
