"""The gauges of `/metrics`, read from the tables at each scrape."""

from collections.abc import Mapping
from dataclasses import dataclass

from rdservice.database.usage import Connections


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Number of accounts by token status, and Unix timestamps in seconds; None where there is no such time."""

    tokens: Mapping[str, int]
    earliest_expiry: float | None
    """Of the tokens that are still refreshed."""
    last_refresh_success: float | None
    worker_heartbeat: float | None


@dataclass(frozen=True, kw_only=True)
class State:
    """Tokens, workers and notifications as they are now."""

    overview: Overview
    failing_notifications: int
    """Notifications of the last day that a receiver has not accepted."""
    connections: Connections
