"""The facts from which findings are derived. None of them contains a token, a password or another secret."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from rdservice.config.problems import Problem

TokenState = Literal["readable", "plain", "key_missing", "damaged", "unknown"]
"""Whether a stored value can be decrypted. `plain`: it is not encrypted; `unknown`: no keys are configured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredValue:
    """A stored value of an account's row. `key_id`: the key that it needs, None when it is not encrypted.

    `length` and `fingerprint` (see `fingerprints`) describe the decrypted value; None when it cannot be decrypted.
    """

    key_id: str | None
    state: TokenState
    length: int | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClaims:
    """The claims of a decrypted access token (RFC 7519). None for a claim that it lacks."""

    aud: list[str] | None
    scope: list[str] | None
    exp: datetime | None
    iat: datetime | None
    notices: tuple[str, ...]
    """Codes of `rdservice.notices`: `scope_missing`, `audience_differs`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account's row. Times in seconds count from the time of reading, by the database's clock."""

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
    """None when the access token cannot be decrypted or is not a JWT."""
    generation: int = 0
    """The number of the lease that stored the tokens. It grows with each refresh."""
    leased: bool = False
    """Whether a process has the account leased and is refreshing it."""

    @property
    def values(self) -> tuple[StoredValue, StoredValue]:
        return self.access_token, self.refresh_token


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """The facts in the database's tables."""

    accounts: list[Account]
    """Accounts with problems first; at most `database_facts.MAX_ACCOUNTS`."""
    more_accounts: bool
    """Whether there are more accounts than these."""
    worker_silent_s: float | None
    """Seconds since the last heartbeat of any worker; None without one."""
    credentials_closed_for_s: float | None
    """Seconds until the next attempt while RD Station refuses the client credentials, else None."""
    key_ids: list[str] | None
    """Ids of TOKEN_ENCRYPTION_KEYS; None when that setting is invalid."""
    refused_together: int = 0
    """Accounts that RD Station refused within minutes while it renewed none; 0 if that may be a coincidence."""
    failed_notifications: tuple[str, ...] = ()
    """The last error of each delivery of the last day that its receiver has not accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The connectivity to RD Station, in three steps: name resolution, TCP connection, TLS handshake.

    Times are in milliseconds; None for a step that was not reached. Through a proxy, no step can be tested.
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
    """Why the step failed, as the system or the TLS library reports it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Seconds by which other clocks are ahead of this machine's. Negative: behind; None: unknown."""

    rdstation_s: float | None = None
    database_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The outcome of one probe.

    `result` is `ok`, `failed`, `skipped`, a `rdservice.tokens.refresh.Result` or a code of `rdservice.errors`.
    `error` is an error kind of `rdservice.rdstation.token_responses`. `reason` is an English sentence that explains the
    result, or None.
    """

    result: str
    http_status: int | None = None
    error: str | None = None
    duration_ms: int | None = None
    renewed: bool = False
    """For a call: RD Station refused the first access token, and the call was repeated after a refresh."""
    reason: str | None = None
    error_type: str | None = None
    """The `error_type` of RD Station's error body; None when the response has none, such as that of a gateway."""
    rdstation_clock_ahead_s: float | None = None
    """Seconds by which the `Date` of the response was ahead of this machine's clock; precise to a second or two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All facts from which findings are derived. What was not examined is None or empty."""

    settings_problems: tuple[Problem, ...] = ()
    database_error: str | None = None
    database_reached: bool = True
    """Whether the connection succeeded, so that `database_error` is a later error."""
    client_mixed_up: Literal["swapped", "id_form"] | None = None
    """What the form of client id and secret suggests: swapped with each other, or not an app's client id."""
    pending_migrations: tuple[str, ...] = ()
    database_read_only: bool = False
    database: DatabaseFacts | None = None
    asked_account: str | None = None
    """The account that the caller named."""
    probed_account: str | None = None
    """The account with which RD Station was probed."""
    api_url: str = "https://api.rd.services"
    required_scope: str = "contacts"
    redirect_uri: str = ""
    network: Network | None = None
    clocks: Clocks = Clocks()
    dialog: Probe | None = None
    """The consent dialog, opened as a browser would."""
    refresh: Probe | None = None
    leads: Probe | None = None
