"""The plain facts from which findings are made. None of them holds a token, a password or another secret."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from rdservice.config.problems import Problem

TokenState = Literal["readable", "plain", "key_missing", "damaged", "unknown"]
"""Whether a stored value can be decrypted; `plain` is not encrypted, `unknown` without usable keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredValue:
    """An encrypted value of an account's row; `key_id` names the key that it needs, None when it tells none.

    `length` and `fingerprint` (see `fingerprints`) are those of the value itself, None where it cannot be read.
    """

    key_id: str | None
    state: TokenState
    length: int | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClaims:
    """What a readable access token says of itself (RFC 7519); None for what it does not say."""

    aud: list[str] | None
    scope: list[str] | None
    exp: datetime | None
    iat: datetime | None
    notices: tuple[str, ...]
    """Codes of `rdservice.notices`: `scope_missing`, `audience_differs`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account's row. Times in seconds count from the moment of reading, by the database's clock."""

    account_id: str
    status: str
    """As stored, or `expired`."""
    last_error: str | None
    failures: int
    expires_at: datetime
    life_left_s: float
    refresh_after: datetime
    retry_at: datetime | None
    retry_in_s: float
    access_token: StoredValue
    refresh_token: StoredValue
    claims: TokenClaims | None
    """None when the access token cannot be read or is no JWT."""
    generation: int = 0
    """The number of the claim that stored the tokens: it grows with each renewal."""
    leased: bool = False
    """Whether a process is renewing the account just now."""

    @property
    def values(self) -> tuple[StoredValue, StoredValue]:
        return self.access_token, self.refresh_token


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """What the tables say."""

    accounts: list[Account]
    """Those in trouble first; not all where there are many."""
    more_accounts: bool
    """Whether there are accounts beyond these."""
    worker_silent_s: float | None
    """Seconds since any worker's last heartbeat, None without one."""
    credentials_closed_for_s: float | None
    """Seconds until RD Station is asked again while it refuses the client credentials, else None."""
    key_ids: list[str] | None
    """Of TOKEN_ENCRYPTION_KEYS; None without usable keys."""
    failed_notifications: tuple[str, ...] = ()
    """The last error of each notification of the last day that was not accepted by a receiver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """How far this machine gets on its way to RD Station, in three steps: name, connection, TLS.

    Times are in milliseconds, None for a step that was not reached. Through a proxy no step can be tried.
    """

    host: str
    port: int
    through_proxy: bool = False
    dns_ms: int | None = None
    tcp_ms: int | None = None
    tls_ms: int | None = None
    tls_version: str | None = None
    certificate_ends: datetime | None = None
    failed_at: Literal["dns", "tcp", "tls"] | None = None
    error: str | None = None
    """Why the step failed, in the words of the system or of the TLS library."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """By how many seconds other clocks are ahead of this machine's; negative: behind; None: not known."""

    rdstation_s: float | None = None
    database_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What came of an attempt in this run.

    `result` is `ok`, `failed`, `skipped`, a `rdservice.tokens.refresh.Result` or a code of `rdservice.errors`.
    `error` is an error kind as in `rdservice.rdstation.token_responses`. `reason` is an English sentence, where the
    result needs one.
    """

    result: str
    http_status: int | None = None
    error: str | None = None
    duration_ms: int | None = None
    renewed: bool = False
    """For a call: it was repeated with a token that was renewed because RD Station refused the first one."""
    reason: str | None = None
    error_type: str | None = None
    """The `error_type` of RD Station's error body; None where the answer has none, as that of a gateway."""
    rdstation_clock_ahead_s: float | None = None
    """By how much the `Date` of the answer was ahead of this machine's clock; precise to a second or two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that findings are made from. What was not looked at is None, or empty."""

    settings_problems: tuple[Problem, ...] = ()
    database_error: str | None = None
    database_reached: bool = True
    """Whether PostgreSQL let us in, so that `database_error` is about what came then."""
    client_mixed_up: Literal["swapped", "id_form"] | None = None
    """What the form of client id and secret says: swapped with each other, or an id that no app has."""
    pending_migrations: tuple[str, ...] = ()
    database_read_only: bool = False
    database: DatabaseFacts | None = None
    asked_account: str | None = None
    """The account that was asked for by name."""
    probed_account: str | None = None
    """The account with which RD Station was tried."""
    api_url: str = "https://api.rd.services"
    required_scope: str = "contacts"
    redirect_uri: str = ""
    network: Network | None = None
    clocks: Clocks = Clocks()
    dialog: Probe | None = None
    """The consent dialog, opened as a browser would."""
    refresh: Probe | None = None
    leads: Probe | None = None
