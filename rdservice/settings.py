"""Settings: read once, checked together, immutable.

Sources, the first that names a variable wins: the process environment, the file `.env` beside `wsgi.py`, and, outside
production, `$RDSERVICE_DATA_DIR/env`, which `scripts/start` writes.
"""

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import SplitResult, urlsplit

import psycopg.conninfo
from dotenv import dotenv_values

from rdservice.notifications import targets

ROOT = Path(__file__).resolve().parent.parent
EXIT_CONFIG = 78
"""Exit status for broken settings: `EX_CONFIG` of sysexits.h."""

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
CALLBACK_PATH = "/rd/callback"
MAX_CACHE_TTL_S = 86_400
KEY_BYTES = 32
"""Length of an encryption key."""

DATABASE_HOST = re.compile(r"(?:[A-Za-z0-9._:%-]*|/[^,@]*)(?:,(?:[A-Za-z0-9._:%-]*|/[^,@]*))*")
"""Names, addresses and folders of sockets, as libpq takes them apart."""
SCOPE = re.compile(r"[a-z](?:[a-z0-9_.:-]{0,19}|[a-z_.:-]{0,59})")
"""A long one with digits is rather a secret in the wrong variable."""

KEY_RECIPE = 'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
SESSION_KEY_RECIPE = 'python -c "import secrets; print(secrets.token_hex(32))"'


class SettingsError(Exception):
    """The settings cannot be used; `problems` has one sentence for each mistake, none with a secret in it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems

    def report(self) -> str:
        """Return all problems as a list for a terminal, in English."""
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        return f"The settings cannot be used ({len(self.problems)} to mend):\n{lines}"


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
    secret_key: str = field(repr=False)
    encryption_keys: tuple[bytes, ...] = field(repr=False)
    metrics_token: str | None = field(repr=False)
    notify_urls: tuple[str, ...] = field(repr=False)
    """Where notifications go, as apprise writes it."""
    trusted_proxies: int
    production: bool

    @property
    def public_origin(self) -> str:
        """Scheme, host and port under which operators reach the service, from the redirect URI, as browsers write them:
        in lower case and without the scheme's own port."""
        parts = urlsplit(self.redirect_uri)
        host = parts.netloc.lower().removesuffix(":443" if parts.scheme == "https" else ":80")
        return f"{parts.scheme}://{host}"

    @property
    def served_over_https(self) -> bool:
        return self.public_origin.startswith("https://")

    @classmethod
    def load(cls) -> Self:
        """Read the settings of this process from all their sources.

        Raises SettingsError with every problem at once.
        """
        return cls.from_mapping(collect_sources(os.environ))

    @classmethod
    def from_mapping(cls, values: Mapping[str, str]) -> Self:
        """Check `values` (variable names to texts) and return the settings, or raise SettingsError."""
        read = _Reader(values)
        production = is_production(values)
        redirect_uri = read.required("RDSTATION_REDIRECT_URI", "https://app.example.com/rd/callback")
        client_secrets = read.client_secrets()
        read.check_redirect_uri(redirect_uri, client_secrets, production=production)
        settings = cls(
            client_id=read.client_id(),
            client_secrets=client_secrets,
            redirect_uri=redirect_uri,
            cache_ttl_s=read.integer("RDSTATION_CACHE_TTL", default=900, low=1, high=MAX_CACHE_TTL_S),
            api_url=read.api_url(production=production),
            scope=read.scope(),
            rate_limit=read.integer("RDSTATION_RATE_LIMIT", default=120, low=1, high=100_000),
            database_url=read.database_url(),
            secret_key=read.secret_key(),
            encryption_keys=read.encryption_keys(),
            metrics_token=read.text("METRICS_TOKEN"),
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
    """Return whether these variables describe a deployment: Heroku sets DYNO, others set RDSERVICE_ENV."""
    return bool(values.get("DYNO")) or values.get("RDSERVICE_ENV") == "production"


def data_dir(environ: Mapping[str, str]) -> Path:
    """Return the folder in which `scripts/start` keeps its state."""
    return Path(environ.get("RDSERVICE_DATA_DIR") or ROOT / ".data")


def collect_sources(environ: Mapping[str, str]) -> dict[str, str]:
    """Merge the environment with the settings files; an empty value counts as not set."""
    merged = _read_file(ROOT / ".env")
    merged.update((name, value) for name, value in environ.items() if value.strip())
    if is_production(merged):
        return merged
    return _read_file(data_dir(environ) / "env") | merged


def _read_file(path: Path) -> dict[str, str]:
    try:
        # Secrets may contain "${": what stands in the file is what is meant.
        values = dotenv_values(path, interpolate=False)
    except OSError as error:
        raise SettingsError([f"{path} cannot be read ({error.strerror})"]) from error
    except UnicodeDecodeError:
        # Without its cause, which holds the content.
        raise SettingsError([f"{path} cannot be read: save it in the encoding UTF-8"]) from None
    return {name: value for name, value in values.items() if value is not None and value.strip()}


class _Reader:
    """Reads single variables and collects what is wrong with them.

    Values are never quoted back: they may be secrets.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = {name: value for name, value in values.items() if _is_utf8_text(value)}
        self._undecodable = values.keys() - self._values.keys()
        self._asked: set[str] = set()
        self.problems: list[str] = []

    def text(self, name: str) -> str | None:
        self._asked.add(name)
        return self._values.get(name, "").strip() or None

    def required(self, name: str, example: str) -> str:
        value = self.text(name)
        if value is None and name not in self._undecodable:
            self._problem(name, "is not set", example)
        return value or ""

    def check_environment(self) -> None:
        name = "RDSERVICE_ENV"
        if self.text(name) not in (None, "production", "development"):
            self._problem(name, "must be production, development or not set", "production")

    def check_encoding(self) -> None:
        """Name the variables that were asked for and are no text; the others are none of ours."""
        for name in sorted(self._undecodable & self._asked):
            self.problems.append(f"{name} has a NUL or bytes that are no UTF-8. Write it anew.")

    def integer(self, name: str, *, default: int, low: int, high: int) -> int:
        value = self.text(name)
        if value is None:
            return default
        if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
            self._problem(name, f"must be a whole number from {low} to {high}", str(default))
            return default
        return int(value)

    def client_id(self) -> str:
        example = "a0b1c2d3-0000-0000-0000-000000000000"
        value = self.required("RDSTATION_CLIENT_ID", example)
        if "://" in value:
            self._problem("RDSTATION_CLIENT_ID", "holds a URL; it must be the app's client_id", example)
        elif re.search(r"\s", value):
            self._problem("RDSTATION_CLIENT_ID", "contains white space", example)
        return value

    def client_secrets(self) -> tuple[str, ...]:
        name, example = "RDSTATION_CLIENT_SECRET", "0123456789abcdef0123456789abcdef"
        value = self.required(name, example)
        secrets = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        if value and not secrets:
            self._problem(name, "holds only commas", example)
        for secret in secrets:
            if "://" in secret:
                self._problem(
                    name, "holds a URL: were the secret and RDSTATION_REDIRECT_URI swapped?", example
                )
            elif re.search(r"\s", secret):
                self._problem(name, "contains white space; several secrets are separated by commas", example)
            elif secret == self.text("RDSTATION_CLIENT_ID"):
                self._problem(name, "is the same as RDSTATION_CLIENT_ID", example)
        return secrets

    def check_redirect_uri(self, value: str, secrets: tuple[str, ...], *, production: bool) -> None:
        if not value:
            return
        name, example = "RDSTATION_REDIRECT_URI", "https://app.example.com/rd/callback"
        url = _split(value)
        if any(secret in value for secret in secrets if "://" not in secret):
            self._problem(name, "holds the client secret; it must be the callback URL", example)
        elif url is None or not url.scheme or not url.hostname:
            looks_secret = re.fullmatch(r"[0-9A-Za-z_-]{16,}", value)
            hint = "looks like a secret or an id; it must be" if looks_secret else "must be"
            self._problem(name, f"{hint} the absolute URL of {CALLBACK_PATH} on this service", example)
        elif url.scheme not in {"http", "https"}:
            self._problem(name, "must begin with https://", example)
        elif url.path != CALLBACK_PATH or url.query or url.fragment or url.username or url.password:
            self._problem(name, f"must end in {CALLBACK_PATH}, with nothing after it", example)
        elif production and url.hostname in LOCAL_HOSTS:
            self._problem(name, "names a local host, which RD Station cannot send operators back to", example)
        elif url.scheme == "http" and url.hostname not in LOCAL_HOSTS:
            self._problem(name, "must use https (http is for local hosts only)", example)

    def api_url(self, *, production: bool) -> str:
        name, example = "RDSTATION_API_URL", "https://api.rd.services"
        value = self.text(name) or example
        url = _split(value)
        if url is None or url.scheme not in {"http", "https"} or not url.hostname or url.username:
            self._problem(name, "must be an absolute http(s) URL without credentials", example)
        elif url.path.strip("/") or url.query or url.fragment:
            self._problem(name, "must have no path: only scheme, host and port", example)
        elif production and url.scheme != "https" and url.hostname not in LOCAL_HOSTS:
            self._problem(name, "must use https: tokens and the client secret travel on it", example)
        return value.rstrip("/")

    def scope(self) -> str:
        name, example = "RDSTATION_SCOPE", "contacts"
        value = self.text(name) or example
        if not all(SCOPE.fullmatch(word) for word in value.split()):
            # The scope is shown, and sent through browsers.
            self._problem(name, "must be names of scopes, in small letters, separated by spaces", example)
        return value

    def database_url(self) -> str:
        name, example = "DATABASE_URL", "postgres://user:password@host:5432/database"
        value = self.required(name, example)
        if not value:
            return value
        if not re.match(r"postgres(ql)?://", value):
            self._problem(name, "must begin with postgres:// or postgresql://", example)
            return value
        try:
            parts = psycopg.conninfo.conninfo_to_dict(value)
        except psycopg.ProgrammingError:
            # libpq's own sentence may quote the password.
            self._problem(name, "cannot be parsed (are special characters percent-encoded?)", example)
            return value
        host, port, database = (str(parts.get(part) or "") for part in ("host", "port", "dbname"))
        if not (DATABASE_HOST.fullmatch(host) and re.fullmatch(r"[0-9,]*", port)) or "@" in database:
            # A part of the password was taken for one of these, which are logged when the server is not found.
            self._problem(
                name, "has no plausible host, port or database (is the password percent-encoded?)", example
            )
        return value

    def secret_key(self) -> str:
        value = self.required("SECRET_KEY", f"the output of {SESSION_KEY_RECIPE}")
        if value and len(value) < 32:
            self._problem(
                "SECRET_KEY", "is shorter than 32 characters", f"the output of {SESSION_KEY_RECIPE}"
            )
        return value

    def encryption_keys(self) -> tuple[bytes, ...]:
        name, example = "TOKEN_ENCRYPTION_KEYS", f"the output of {KEY_RECIPE}"
        value = self.required(name, example)
        keys: list[bytes] = []
        for number, text in enumerate((part.strip() for part in value.split(",")), start=1):
            key = _fernet_key(text)
            if key is not None:
                keys.append(key)
            elif value:
                self._problem(name, f"entry {number} {_why_no_key(text)}", example)
        # The same key twice, in whatever form, is one.
        return tuple(dict.fromkeys(keys))

    def notify_urls(self) -> tuple[str, ...]:
        name, example = "NOTIFY_URLS", "mailtos://user:password@example.com?to=team@example.com"
        urls = targets.split(self.text(name) or "")
        for number, mistake in enumerate(targets.mistakes(urls), start=1):
            if mistake is not None:
                self._problem(name, f"entry {number} {mistake}", example)
        return urls

    def _problem(self, name: str, what: str, example: str) -> None:
        self.problems.append(f"{name} {what}. Example: {name}={example}")


def _is_utf8_text(value: str) -> bool:
    """Return whether `value` can be written to a database or a socket; Python keeps odd bytes as half surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def _split(value: str) -> SplitResult | None:
    try:
        url = urlsplit(value)
        # Reading the port is what makes urllib check it.
        return url if url.port is None or url.port > 0 else None
    except ValueError:
        return None


def _fernet_key(text: str) -> bytes | None:
    """Return `text` as a Fernet key: urlsafe base64 of 32 bytes, or the same bytes as 64 hexadecimal digits.

    The second form is what the secret generators of hosting platforms make.
    """
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return base64.urlsafe_b64encode(bytes.fromhex(text))
    raw = _from_base64(text)
    return base64.urlsafe_b64encode(raw) if raw is not None and len(raw) == KEY_BYTES else None


def _why_no_key(text: str) -> str:
    """Return what is wrong with an encryption key, without showing any of it."""
    if not text:
        return "is empty: there is a comma too many"
    if re.search(r"\s", text):
        return "contains white space; several keys are separated by commas"
    if re.search("[\"'`\u2018-\u201f]", text):
        return "contains a quotation mark: leave it out"
    if re.fullmatch(r"[0-9a-fA-F]+", text):
        return f"has {len(text)} hexadecimal digits, not {2 * KEY_BYTES}"
    raw = _from_base64(text) or _from_base64(text + "=" * (-len(text) % 4))
    if raw is not None and len(raw) == KEY_BYTES:
        return "lacks the = at its end: copy the whole key"
    if raw is not None:
        return f"is base64 of {len(raw)} bytes, not of {KEY_BYTES}"
    return f"is neither a Fernet key nor {2 * KEY_BYTES} hexadecimal digits"


def _from_base64(text: str) -> bytes | None:
    """Return the bytes of urlsafe (or standard) base64, None when it is none."""
    try:
        return base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
