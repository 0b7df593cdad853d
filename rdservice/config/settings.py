"""Settings: read once, checked together, immutable.

Sources, in order of precedence: the process environment; the file `.env` beside `wsgi.py`; outside production,
`$RDSERVICE_DATA_DIR/env`, which `scripts/start` writes.
"""

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from dotenv import dotenv_values

from rdservice.config.problems import Problem, SettingsError
from rdservice.config.reader import Reader

ROOT = Path(__file__).resolve().parents[2]
EXIT_CONFIG = 78
"""Exit status for invalid settings: `EX_CONFIG` of sysexits.h."""

MAX_CACHE_TTL_S = 86_400


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a process. Secrets are left out of `repr`."""

    client_id: str
    client_secrets: tuple[str, ...] = field(repr=False)
    redirect_uri: str
    cache_ttl_s: int
    api_url: str
    scope: str
    rate_limit: int
    database_url: str = field(repr=False)
    database_pool_size: int
    """Most connections of a web process; a worker has half as many."""
    secret_key: str = field(repr=False)
    encryption_keys: tuple[bytes, ...] = field(repr=False)
    metrics_tokens: tuple[str, ...] = field(repr=False)
    notify_urls: tuple[str, ...] = field(repr=False)
    """Receivers of notifications, as apprise URLs."""
    trusted_proxies: int
    production: bool

    @property
    def public_origin(self) -> str:
        """The origin under which operators reach the service, taken from the redirect URI and serialized as browsers do
        it (RFC 6454 6.2): in lower case, without the scheme's default port."""
        parts = urlsplit(self.redirect_uri)
        host = parts.netloc.lower().removesuffix(":443" if parts.scheme == "https" else ":80")
        return f"{parts.scheme}://{host}"

    @property
    def served_over_https(self) -> bool:
        return self.public_origin.startswith("https://")

    @classmethod
    def load(cls) -> Self:
        """Read the settings of this process from all sources.

        Raises SettingsError, which lists every problem.
        """
        return cls.from_mapping(collect_sources(os.environ))

    @classmethod
    def from_mapping(cls, values: Mapping[str, str]) -> Self:
        """Build the settings from `values` (variable names to raw values). Raises SettingsError with every problem."""
        read = Reader(values)
        production = is_production(values)
        client_id, client_secrets = read.client_id(), read.client_secrets()
        settings = cls(
            client_id=client_id,
            client_secrets=client_secrets,
            redirect_uri=read.redirect_uri(client_secrets, production=production),
            cache_ttl_s=read.integer("RDSTATION_CACHE_TTL", default=900, low=1, high=MAX_CACHE_TTL_S),
            api_url=read.api_url(production=production),
            scope=read.scope(),
            rate_limit=read.integer("RDSTATION_RATE_LIMIT", default=120, low=1, high=100_000),
            database_url=read.database_url(),
            database_pool_size=read.integer("DATABASE_POOL_SIZE", default=2, low=1, high=100),
            secret_key=read.secret_key(),
            encryption_keys=read.encryption_keys(),
            metrics_tokens=read.metrics_tokens(),
            notify_urls=read.notify_urls(),
            trusted_proxies=read.integer(
                "TRUSTED_PROXIES", default=1 if values.get("DYNO") else 0, low=0, high=10
            ),
            production=production,
        )
        read.check_environment()
        read.check_encoding()
        if read.problems:
            raise SettingsError(read.problems)
        return settings


def is_production(values: Mapping[str, str]) -> bool:
    """Return whether `values` describe production: DYNO is set (Heroku), or RDSERVICE_ENV is `production`."""
    return bool(values.get("DYNO")) or values.get("RDSERVICE_ENV") == "production"


def data_dir(environ: Mapping[str, str]) -> Path:
    """Return the folder in which `scripts/start` keeps its state."""
    return Path(environ.get("RDSERVICE_DATA_DIR") or ROOT / ".data")


def collect_sources(environ: Mapping[str, str]) -> dict[str, str]:
    """Merge the environment with the settings files. Empty values count as not set."""
    merged = _read_file(ROOT / ".env")
    merged.update((name, value) for name, value in environ.items() if value.strip())
    if is_production(merged):
        return merged
    return _read_file(data_dir(environ) / "env") | merged


def _read_file(path: Path) -> dict[str, str]:
    try:
        # No interpolation: a secret may contain "${".
        values = dotenv_values(path, interpolate=False)
    except OSError as error:
        facts = {"file": str(path), "error": errno.errorcode.get(error.errno or 0, "?")}
        raise SettingsError([Problem(variable=None, code="file_unreadable", facts=facts)]) from error
    except UnicodeDecodeError:
        # `from None`: the cause holds the file's content.
        problem = Problem(variable=None, code="file_not_utf8", facts={"file": str(path)})
        raise SettingsError([problem]) from None
    return {name: value for name, value in values.items() if value is not None and value.strip()}
