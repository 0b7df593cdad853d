"""RD Station's true state: every token that it issued and every exchange, independent of the service."""

import json
from dataclasses import dataclass, field
from typing import Any

import jwt

from dev.simulation.scheduler import Process


@dataclass(kw_only=True)
class Grant:
    """A consent. `revoked_at`: in virtual seconds."""

    number: int
    account: str
    revoked_at: float | None = None


@dataclass(kw_only=True)
class AccessToken:
    """`number` orders all tokens by time of issue. `ends_at`: in virtual seconds."""

    number: int
    grant: Grant
    ends_at: float

    def valid(self, now: float) -> bool:
        return now < self.ends_at and self.grant.revoked_at is None


@dataclass(kw_only=True)
class RefreshToken:
    """`used_up_by`: the exchange that rotated it. `refusals`: responses that refused it and reached a live process."""

    grant: Grant
    used_up_by: "Exchange | None" = None
    refusals: int = 0
    forgiven: int = 0
    """Refusals that do not count: a person requested the refresh, or the process died before recording it."""
    falsely_refused: bool = False
    """RD Station has refused it although it worked."""

    @property
    def alive(self) -> bool:
        return self.used_up_by is None and self.grant.revoked_at is None


@dataclass(kw_only=True)
class Exchange:
    """One exchange of a refresh token from its sender's view. It ends with a response, the deadline or a crash."""

    process: Process
    account: str
    refresh_token: str = field(repr=False)
    claimed_at: float
    """When its process last verified the lease, in virtual seconds."""
    sent_at: float
    ended_at: float | None = None
    settled: bool = False
    """The sender has recorded the outcome."""
    loss: str | None = None
    """Why its response could not be stored, if it cannot be recovered."""


@dataclass(kw_only=True)
class Ledger:
    """`rotating`: a refresh token is valid for one exchange."""

    start: float
    grants: dict[int, Grant] = field(default_factory=dict)
    by_account: dict[str, list[Grant]] = field(default_factory=dict)
    access_tokens: dict[str, AccessToken] = field(default_factory=dict, repr=False)
    refresh_tokens: dict[str, RefreshToken] = field(default_factory=dict, repr=False)
    codes: dict[str, str] = field(default_factory=dict)
    """Authorization code to account."""
    in_flight: dict[str, list[Exchange]] = field(default_factory=dict)
    """By refresh token: exchanges that have not ended for their sender."""
    issued: int = 0

    def took_effect(self, body: bytes, account: str, presented: str | None, by: Exchange | None) -> None:
        """Record the pair in a response of the token endpoint. `presented`: the refresh token in the request."""
        response: dict[str, Any] = json.loads(body)
        claims = jwt.decode(response["access_token"], options={"verify_signature": False})
        grant = self.grants.get(claims["grant"])
        if grant is None:
            grant = self.grants[claims["grant"]] = Grant(number=claims["grant"], account=account)
            self.by_account.setdefault(account, []).append(grant)
        self.issued += 1
        self.access_tokens[response["access_token"]] = AccessToken(
            number=self.issued, grant=grant, ends_at=claims["exp"] - self.start
        )
        given = response.get("refresh_token")
        if given is not None and given not in self.refresh_tokens:
            self.refresh_tokens[given] = RefreshToken(grant=grant)
        if presented is not None and given is not None and given != presented:
            self.refresh_tokens[presented].used_up_by = by

    def revoke(self, account: str, now: float) -> None:
        for grant in self.by_account.get(account, []):
            if grant.revoked_at is None:
                grant.revoked_at = now

    def begin(self, exchange: Exchange) -> list[Exchange]:
        """Record the start of an exchange; return other unfinished exchanges of the same refresh token."""
        under_way = self.in_flight.setdefault(exchange.refresh_token, [])
        others = list(under_way)
        under_way.append(exchange)
        return others

    def end(self, exchange: Exchange, now: float) -> None:
        if exchange.ended_at is not None:
            return
        exchange.ended_at = now
        under_way = self.in_flight[exchange.refresh_token]
        under_way.remove(exchange)
        if not under_way:
            del self.in_flight[exchange.refresh_token]

    def forget_expired(self, now: float) -> None:
        """Drop access tokens that expired two days ago. Nothing looks them up any more."""
        old = [text for text, token in self.access_tokens.items() if token.ends_at < now - 2 * 86_400]
        for text in old:
            del self.access_tokens[text]
