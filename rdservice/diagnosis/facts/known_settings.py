"""The settings for the diagnosis: their problems, the values that are still usable, and a masked view of all."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psycopg
import psycopg.conninfo

from rdservice.config import notify_urls
from rdservice.config.problems import Problem, SettingsError
from rdservice.config.settings import ROOT, Settings, collect_sources, is_production
from rdservice.diagnosis.facts.fingerprints import SHORTEST, described
from rdservice.encryption import key_id

SECRETS = (
    "RDSTATION_CLIENT_SECRET",
    "SECRET_KEY",
    "TOKEN_ENCRYPTION_KEYS",
    "METRICS_TOKEN",
    "NOTIFY_URLS",
    "DATABASE_URL",
)
# Placeholders for invalid values, so that the valid ones can be used. Nothing is ever sent or decrypted with them: see
# `KnownSettings.usable`.
STAND_INS = {
    "RDSTATION_CLIENT_ID": "00000000-0000-0000-0000-000000000000",
    "RDSTATION_CLIENT_SECRET": "stand-in-for-a-broken-client-secret",
    "RDSTATION_REDIRECT_URI": "https://stand-in.invalid/rd/callback",
    "DATABASE_URL": "postgres://stand-in.invalid/stand-in",
    "SECRET_KEY": "0" * 32,
    "TOKEN_ENCRYPTION_KEYS": base64.urlsafe_b64encode(bytes(32)).decode(),
}
CALLING = frozenset(
    {
        "RDSTATION_CLIENT_ID",
        "RDSTATION_CLIENT_SECRET",
        "RDSTATION_API_URL",
        "TOKEN_ENCRYPTION_KEYS",
        "DATABASE_URL",
    }
)
"""The variables that a call to RD Station needs. Even a call with a valid token may lead to a refresh."""

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
"""The form of a client id of the RD Station App Store."""


@dataclass(frozen=True, kw_only=True)
class KnownSettings:
    """The settings that could be read. `settings` has placeholders for variables in `broken`: check `usable` first."""

    values: Mapping[str, str] = field(repr=False)
    problems: tuple[Problem, ...]
    settings: Settings
    broken: frozenset[str]

    def usable(self, *variables: str) -> bool:
        """Return whether all of these variables have valid values."""
        return self.broken.isdisjoint(variables)

    @property
    def client_mixed_up(self) -> Literal["swapped", "id_form"] | None:
        """What the form of the client id suggests: it is swapped with the secret, or it is not an app's client id.

        None when the form is right. The account page of RD Station shows other ids and tokens, which are not an app's
        credentials.
        """
        if not self.usable("RDSTATION_CLIENT_ID") or UUID.fullmatch(self.settings.client_id):
            return None
        return "swapped" if any(map(UUID.fullmatch, self.settings.client_secrets)) else "id_form"

    @property
    def can_call(self) -> bool:
        """Whether the settings are sufficient to call RD Station."""
        return self.usable(*CALLING)


def collect(environ: Mapping[str, str]) -> KnownSettings:
    """Read the settings from all sources, as every process of the service does. Never raises SettingsError."""
    problems: list[Problem] = []
    try:
        values: Mapping[str, str] = collect_sources(environ)
    except SettingsError as error:
        problems += map(_without_home, error.problems)
        values = {name: value for name, value in environ.items() if value.strip()}
    try:
        settings = Settings.from_mapping(values)
        broken: frozenset[str] = frozenset()
    except SettingsError as error:
        problems += error.problems
        broken = frozenset(problem.variable for problem in error.problems if problem.variable)
        # A variable without a placeholder has a default.
        sound = {name: value for name, value in values.items() if name not in broken}
        settings = Settings.from_mapping(
            sound | {name: value for name, value in STAND_INS.items() if name in broken}
        )
    return KnownSettings(values=values, problems=tuple(problems), settings=settings, broken=broken)


def of_running(settings: Settings) -> KnownSettings:
    """Return the settings in effect in a running process, even if its files and environment have changed since."""
    values = {
        "RDSTATION_CLIENT_ID": settings.client_id,
        "RDSTATION_CLIENT_SECRET": ",".join(settings.client_secrets),
        "RDSTATION_REDIRECT_URI": settings.redirect_uri,
        "RDSTATION_CACHE_TTL": str(settings.cache_ttl_s),
        "RDSTATION_API_URL": settings.api_url,
        "RDSTATION_SCOPE": settings.scope,
        "RDSTATION_RATE_LIMIT": str(settings.rate_limit),
        "TRUSTED_PROXIES": str(settings.trusted_proxies),
        "DATABASE_URL": settings.database_url,
        "SECRET_KEY": settings.secret_key,
        "TOKEN_ENCRYPTION_KEYS": ",".join(key.decode() for key in settings.encryption_keys),
        "METRICS_TOKEN": ",".join(settings.metrics_tokens),
        "RDSERVICE_ENV": "production" if settings.production else "development",
    }
    return KnownSettings(values=values, problems=(), settings=settings, broken=frozenset())


def _without_home(problem: Problem) -> Problem:
    """Shorten the path of a file: the name of a home directory is often a person's."""
    if "file" not in problem.facts:
        return problem
    path = str(problem.facts["file"]).replace(f"{ROOT}/", "").replace(f"{Path.home()}/", "~/")
    return replace(problem, facts={**problem.facts, "file": path})


def masked(known: KnownSettings) -> dict[str, Any]:
    """Return every setting as JSON: plain ones with the value in effect, secrets with length and fingerprint only."""
    settings = known.settings
    plain = {
        "RDSTATION_CLIENT_ID": _client_id(settings.client_id),
        "RDSTATION_REDIRECT_URI": settings.redirect_uri,
        "RDSTATION_CACHE_TTL": settings.cache_ttl_s,
        "RDSTATION_API_URL": settings.api_url,
        "RDSTATION_SCOPE": settings.scope,
        "RDSTATION_RATE_LIMIT": settings.rate_limit,
        "TRUSTED_PROXIES": settings.trusted_proxies,
        "RDSERVICE_ENV": "production" if settings.production else "development",
    }
    variables: dict[str, Any] = {
        name: _state(known, name) | ({"value": value} if known.usable(name) else {})
        for name, value in plain.items()
    }
    variables["DATABASE_URL"] = _state(known, "DATABASE_URL") | _database(known)
    variables["RDSTATION_CLIENT_SECRET"] = _state(known, "RDSTATION_CLIENT_SECRET") | {
        "entries": [described(part) for part in _entries(known, "RDSTATION_CLIENT_SECRET")]
    }
    variables["TOKEN_ENCRYPTION_KEYS"] = _state(known, "TOKEN_ENCRYPTION_KEYS") | _keys(known)
    variables["SECRET_KEY"] = _state(known, "SECRET_KEY") | {
        "entries": [described(part) for part in _entries(known, "SECRET_KEY")]
    }
    # No fingerprint: people make this value up, so the fingerprint could help to guess it.
    variables["METRICS_TOKEN"] = _state(known, "METRICS_TOKEN") | {
        "entries": [{"length": len(part)} for part in _entries(known, "METRICS_TOKEN")]
    }
    variables["NOTIFY_URLS"] = _state(known, "NOTIFY_URLS") | {
        "entries": [{"target": notify_urls.label(url)} for url in settings.notify_urls]
    }
    return {
        "usable": not known.problems,
        "production": is_production(known.values),
        "variables": variables,
    }


def secrets_in(known: KnownSettings) -> set[str]:
    """Return every secret of the settings, whole and in parts. No output may contain any of them."""
    texts = {known.values.get(name, "").strip() for name in SECRETS}
    texts |= {part.strip() for text in texts for part in text.split(",")}
    texts |= notify_urls.secrets_in(known.settings.notify_urls)
    texts |= {key.decode() for key in known.settings.encryption_keys if known.usable("TOKEN_ENCRYPTION_KEYS")}
    if known.usable("DATABASE_URL"):
        texts.add(str(_conninfo(known).get("password") or ""))
    return texts


def _state(known: KnownSettings, name: str) -> dict[str, Any]:
    # Never shows the value of an invalid variable: a secret pasted into the wrong variable is a common mistake.
    return {"set": bool(known.values.get(name, "").strip()), "valid": known.usable(name)}


def _entries(known: KnownSettings, name: str) -> list[str]:
    return [part.strip() for part in known.values.get(name, "").split(",") if part.strip()]


def _client_id(value: str) -> Any:
    # Any other long text may be the secret, swapped with the id.
    return value if UUID.fullmatch(value) or len(value) < SHORTEST else described(value)


def _keys(known: KnownSettings) -> dict[str, Any]:
    if not known.usable("TOKEN_ENCRYPTION_KEYS"):
        return {}
    return {"key_ids": [key_id(key) for key in known.settings.encryption_keys]}


def _database(known: KnownSettings) -> dict[str, Any]:
    if not known.usable("DATABASE_URL"):
        return {}
    parts = _conninfo(known)
    return {name: parts.get(name) for name in ("host", "port", "dbname", "user", "sslmode")}


def _conninfo(known: KnownSettings) -> dict[str, Any]:
    return dict(psycopg.conninfo.conninfo_to_dict(known.settings.database_url))
