"""What a caller of the cache wants, and which stored content and failures may be the response."""

from collections.abc import Callable
from dataclasses import dataclass, field

from rdservice import errors
from rdservice.cache import table
from rdservice.cache.entries import Content, Failure
from rdservice.cache.memory import Entry, Name, Version
from rdservice.tokens.store import StoredToken

Fetch = Callable[[float], Content]
"""Fetches content. The argument is a deadline: no call begins after that monotonic time. Raises FetchFailed."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """The request of a caller, for the account as `token` shows it."""

    token: StoredToken
    name: Name
    key: bytes
    fetch: Fetch = field(repr=False)
    max_age_s: float
    known: Entry | None
    strict: bool = False
    """Whether the caller gave `max_age_s`: it waits for RD Station instead of accepting older content."""

    @property
    def flight(self) -> bytes:
        """The key of the single flight: callers that accept the same content share one."""
        return self.key + repr(self.max_age_s).encode() if self.strict else self.key

    @property
    def failure_s(self) -> float:
        """The age in seconds up to which a recorded failure may be the response."""
        return self.max_age_s if self.strict else table.CEILING_S

    @property
    def version(self) -> Version:
        return version_of(self.token)

    @property
    def refused(self) -> bool:
        """Whether RD Station has refused the account's authorization: stale content must not hide that."""
        return self.token.status == "reauthorization_required"

    def may_serve_old(self, row: table.Row) -> bool:
        """Return whether stale content may be served before a call to RD Station.

        A refused authorization is never hidden by stale content.
        """
        failure = row.last_failure
        return not self.strict and not self.refused and (failure is None or failure.stale)

    def still_counts(self, failure: Failure) -> bool:
        """Return whether a recorded failure still counts: a refused authorization does not after a new one."""
        return self.refused or failure.code != errors.ReauthorizationRequired.code


def version_of(token: StoredToken) -> Version:
    """Return the version of the account whose row is `token`."""
    return token.connection_id, token.cache_epoch
