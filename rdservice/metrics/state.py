"""What `/metrics` shows beside counts: read from the tables at the moment of the scrape."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Numbers of tokens by status, and moments in seconds since 1970, None where there is none."""

    tokens: Mapping[str, int]
    earliest_expiry: float | None
    """Of the tokens that are still renewed."""
    last_refresh_success: float | None
    worker_heartbeat: float | None


@dataclass(frozen=True, kw_only=True)
class State:
    """Tokens, workers and notifications as they are now."""

    overview: Overview
    failing_notifications: int
    """Messages of the last day that their receivers have not accepted."""
