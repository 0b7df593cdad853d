"""Reads and checks variables one by one, and collects their problems. Starts no process and uses no network."""

import base64
import binascii
import re
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

import psycopg
import psycopg.conninfo

from rdservice.config import notify_urls
from rdservice.config.problems import Code, Problem

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
CALLBACK_PATH = "/rd/callback"
CALLBACK_EXAMPLE = f"https://app.example.com{CALLBACK_PATH}"
KEY_BYTES = 32
"""Length of an encryption key."""
SECRET_KEY_LENGTH = 32
"""Minimum length of SECRET_KEY, in characters."""

DATABASE_HOST = re.compile(r"(?:[A-Za-z0-9._:%-]*|/[^,@]*)(?:,(?:[A-Za-z0-9._:%-]*|/[^,@]*))*")
"""A list of host names, addresses and socket directories, as libpq splits it."""
SCOPE = re.compile(r"[a-z](?:[a-z0-9_.:-]{0,19}|[a-z_.:-]{0,59})")
"""A long value with digits is more likely a secret in the wrong variable."""

KEY_RECIPE = 'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
HEX_RECIPE = 'python -c "import secrets; print(secrets.token_hex(32))"'


class Reader:
    """Reads variables from `values` and adds what is wrong to `problems`, in the order of the reads."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = {name: value for name, value in values.items() if _is_utf8_text(value)}
        self._undecodable = values.keys() - self._values.keys()
        self._asked: set[str] = set()
        self.problems: list[Problem] = []

    def text(self, name: str) -> str | None:
        self._asked.add(name)
        return self._values.get(name, "").strip() or None

    def required(self, name: str, example: str | None, **facts: str) -> str:
        value = self.text(name)
        if value is None and name not in self._undecodable:
            self._problem(name, "not_set", example, **facts)
        return value or ""

    def check_environment(self) -> None:
        name = "RDSERVICE_ENV"
        if self.text(name) not in (None, "production", "development"):
            self._problem(name, "environment_unknown", "production")

    def check_encoding(self) -> None:
        """Report variables that were read and are not valid text. Variables of other programs do not matter."""
        for name in sorted(self._undecodable & self._asked):
            self._problem(name, "undecodable", None)

    def integer(self, name: str, *, default: int, low: int, high: int) -> int:
        value = self.text(name)
        if value is None:
            return default
        if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
            self._problem(name, "not_a_whole_number", str(default), low=low, high=high)
            return default
        return int(value)

    def client_id(self) -> str:
        name, example = "RDSTATION_CLIENT_ID", "a0b1c2d3-0000-0000-0000-000000000000"
        value = self.required(name, example)
        if "://" in value:
            self._problem(name, "client_id_holds_url", example)
        elif re.search(r"\s", value):
            self._problem(name, "white_space", example)
        return value

    def client_secrets(self) -> tuple[str, ...]:
        name, example = "RDSTATION_CLIENT_SECRET", "0123456789abcdef0123456789abcdef"
        value = self.required(name, example)
        secrets = self._listed(name, value, example)
        for secret in secrets:
            if "://" in secret:
                self._problem(name, "client_secret_holds_url", example)
            elif re.search(r"\s", secret):
                self._problem(name, "client_secret_white_space", example)
            elif secret == self.text("RDSTATION_CLIENT_ID"):
                self._problem(name, "client_secret_is_client_id", example)
        return secrets

    def redirect_uri(self, secrets: tuple[str, ...], *, production: bool) -> str:
        name = "RDSTATION_REDIRECT_URI"
        value = self.required(name, CALLBACK_EXAMPLE)
        code = _redirect_uri_mistake(value, secrets, production=production) if value else None
        if code is not None:
            self._problem(name, code, CALLBACK_EXAMPLE, path=CALLBACK_PATH)
        return value

    def api_url(self, *, production: bool) -> str:
        name, example = "RDSTATION_API_URL", "https://api.rd.services"
        value = self.text(name) or example
        url = _split(value)
        if url is None or url.scheme not in {"http", "https"} or not url.hostname or url.username:
            self._problem(name, "api_url_not_absolute", example)
        elif url.path.strip("/") or url.query or url.fragment:
            self._problem(name, "api_url_has_path", example)
        elif production and url.scheme != "https" and url.hostname not in LOCAL_HOSTS:
            self._problem(name, "api_url_not_https", example)
        return value.rstrip("/")

    def scope(self) -> str:
        name, example = "RDSTATION_SCOPE", "contacts"
        value = self.text(name) or example
        if not all(SCOPE.fullmatch(word) for word in value.split()):
            # Pages show the scope and browsers send it, so a secret must not get in here by mistake.
            self._problem(name, "scope_form", example)
        return value

    def database_url(self) -> str:
        name, example = "DATABASE_URL", "postgres://user:password@host:5432/database"
        value = self.required(name, example)
        if not value:
            return value
        if not re.match(r"postgres(ql)?://", value):
            self._problem(name, "database_url_scheme", example)
            return value
        try:
            parts = psycopg.conninfo.conninfo_to_dict(value)
        except psycopg.ProgrammingError:
            # libpq's own message may quote the password.
            self._problem(name, "database_url_unparsable", example)
            return value
        host, port, database = (str(parts.get(part) or "") for part in ("host", "port", "dbname"))
        if not (DATABASE_HOST.fullmatch(host) and re.fullmatch(r"[0-9,]*", port)) or "@" in database:
            # libpq took part of the password for the host, port or database name. Logs show these when a connection
            # fails.
            self._problem(name, "database_url_implausible", example)
        return value

    def secret_key(self) -> str:
        name = "SECRET_KEY"
        value = self.required(name, None, command=HEX_RECIPE)
        if value and len(value) < SECRET_KEY_LENGTH:
            self._problem(name, "secret_key_short", None, needed=SECRET_KEY_LENGTH, command=HEX_RECIPE)
        return value

    def encryption_keys(self) -> tuple[bytes, ...]:
        name = "TOKEN_ENCRYPTION_KEYS"
        value = self.required(name, None, command=KEY_RECIPE)
        keys: list[bytes] = []
        for number, text in enumerate((part.strip() for part in value.split(",")), start=1):
            key = _fernet_key(text)
            if key is not None:
                keys.append(key)
            elif value:
                code, facts = _why_no_key(text)
                self._problem(name, code, None, entry=number, command=KEY_RECIPE, **facts)
        # The same key given twice, even in different forms, counts once.
        return tuple(dict.fromkeys(keys))

    def metrics_tokens(self) -> tuple[str, ...]:
        name = "METRICS_TOKEN"
        return self._listed(name, self.text(name) or "", "0123456789abcdef0123456789abcdef")

    def notify_urls(self) -> tuple[str, ...]:
        urls = notify_urls.split(self.text(notify_urls.VARIABLE) or "")
        for number, url in enumerate(urls, start=1):
            code = notify_urls.mistake(url)
            if code is not None:
                self.problems.append(notify_urls.problem(number, code))
        return urls

    def _listed(self, name: str, value: str, example: str) -> tuple[str, ...]:
        """Return the entries of a comma-separated list, each once."""
        entries = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        if value and not entries:
            self._problem(name, "only_commas", example)
        return entries

    def _problem(self, name: str, code: Code, example: str | None, **facts: str | int) -> None:
        self.problems.append(Problem(variable=name, code=code, facts=facts, example=example))


def _is_utf8_text(value: str) -> bool:
    """Return whether `value` is valid UTF-8 without NUL. Python maps invalid bytes to lone surrogates (PEP 383)."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def _split(value: str) -> SplitResult | None:
    try:
        url = urlsplit(value)
        # urllib checks the port only when it is read.
        return url if url.port is None or url.port > 0 else None
    except ValueError:
        return None


def _redirect_uri_mistake(value: str, secrets: tuple[str, ...], *, production: bool) -> Code | None:
    url = _split(value)
    if any(secret in value for secret in secrets if "://" not in secret):
        return "redirect_uri_holds_secret"
    if url is None or not url.scheme or not url.hostname:
        looks_secret = re.fullmatch(r"[0-9A-Za-z_-]{16,}", value)
        return "redirect_uri_holds_secret" if looks_secret else "redirect_uri_not_absolute"
    if url.scheme not in {"http", "https"}:
        return "redirect_uri_not_https"
    if url.path != CALLBACK_PATH or url.query or url.fragment or url.username or url.password:
        return "redirect_uri_wrong_path"
    if production and url.hostname in LOCAL_HOSTS:
        return "redirect_uri_local_host"
    if url.scheme == "http" and url.hostname not in LOCAL_HOSTS:
        return "redirect_uri_not_https"
    return None


def _fernet_key(text: str) -> bytes | None:
    """Return `text` as a Fernet key: urlsafe base64 of 32 bytes, or the same bytes as 64 hexadecimal digits.

    Hosting platforms generate secrets in the second form.
    """
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return base64.urlsafe_b64encode(bytes.fromhex(text))
    raw = _from_base64(text)
    return base64.urlsafe_b64encode(raw) if raw is not None and len(raw) == KEY_BYTES else None


def _why_no_key(text: str) -> tuple[Code, dict[str, int]]:
    """Return the problem of an encryption key, and the facts that its sentence needs."""
    if not text:
        return "key_empty", {}
    if re.search(r"\s", text):
        return "key_white_space", {}
    if re.search("[\"'`\u2018-\u201f]", text):
        return "key_quotation_mark", {}
    if re.fullmatch(r"[0-9a-fA-F]+", text):
        return "key_hexadecimal_length", {"length": len(text), "needed": 2 * KEY_BYTES}
    raw = _from_base64(text) or _from_base64(text + "=" * (-len(text) % 4))
    if raw is not None and len(raw) == KEY_BYTES:
        return "key_incomplete", {}
    if raw is not None:
        return "key_base64_length", {"length": len(raw), "needed": KEY_BYTES}
    return "key_form", {"needed": 2 * KEY_BYTES}


def _from_base64(text: str) -> bytes | None:
    """Decode urlsafe or standard base64; return None when `text` is neither."""
    try:
        return base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
