"""The folder in which scripts/start keeps its state: settings it made, the lock, the first operator's credentials."""

import base64
import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dotenv import dotenv_values

from rdservice.text.terminal import tell

SANDBOX_CLIENT_ID = "sandbox-app"
MADE_ONCE: Mapping[str, Callable[[], str]] = {
    "SECRET_KEY": lambda: secrets.token_hex(32),
    # The form of a Fernet key.
    "TOKEN_ENCRYPTION_KEYS": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
}


class AlreadyRunningError(Exception):
    """Another scripts/start uses the folder. The message says where it runs."""


@dataclass(frozen=True)
class Credentials:
    """What a first-time user, or a test, needs to use the service: the contents of demo-credentials.json."""

    url: str
    email: str
    password: str = field(repr=False)
    api_key: str = field(repr=False)
    sandbox_url: str
    database_url: str = field(repr=False)


def given_settings(root: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the user set: `.env`, overridden by the environment. Empty values count as not set."""
    from_file = dotenv_values(root / ".env", interpolate=False)
    given = {name: value for name, value in from_file.items() if value and value.strip()}
    return given | {name: value for name, value in environ.items() if value.strip()}


class DataDir:
    """The folder, created with mode 700 and locked until this process ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Refuses a folder with other contents, which may be /tmp.
        if self._lock_file.exists() or not any(path.iterdir()):
            path.chmod(0o700)
        self._lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            where = self._lock_file.read_text().strip() or tell("just started")
            raise AlreadyRunningError(
                tell(
                    "scripts/start is already running on %(folder)s: %(where)s.\n"
                    "Stop that one first, or run this one beside it with RDSERVICE_DATA_DIR=another-folder"
                    " scripts/start",
                    folder=path,
                    where=where,
                )
            ) from None
        self.note_running("")

    @property
    def _lock_file(self) -> Path:
        return self.path / "lock"

    @property
    def _settings_file(self) -> Path:
        return self.path / "env"

    @property
    def _credentials_file(self) -> Path:
        return self.path / "demo-credentials.json"

    def note_running(self, url: str) -> None:
        """Record where this one runs, for the message of a second start."""
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{url or 'starting'} (process {os.getpid()})\n".encode(), 0)

    def kept_settings(self) -> dict[str, str]:
        """What an earlier start wrote with `write_settings`."""
        kept = dotenv_values(self._settings_file, interpolate=False)
        return {name: value for name, value in kept.items() if value}

    def write_settings(self, made: Mapping[str, str]) -> None:
        """Write the settings file that the service reads beneath the environment and `.env`."""
        lines = [
            "# Made by scripts/start, rewritten at each start. Set your own values in .env, which goes first."
        ]
        lines += [f"{name}='{value}'" for name, value in made.items()]
        self._replace(self._settings_file, "\n".join(lines) + "\n")

    def read_credentials(self) -> Credentials | None:
        """None before the first complete start."""
        try:
            return Credentials(**json.loads(self._credentials_file.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write_credentials(self, credentials: Credentials) -> None:
        self._replace(self._credentials_file, json.dumps(asdict(credentials), indent=2) + "\n")

    def forget_credentials(self) -> None:
        self._credentials_file.unlink(missing_ok=True)

    def _replace(self, file: Path, text: str) -> None:
        """Write the file atomically, with mode 600 from the start (mkstemp)."""
        descriptor, new = tempfile.mkstemp(prefix=f".{file.name}-", dir=self.path)
        with os.fdopen(descriptor, "w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(new, file)


def noted_url(data_dir: Path) -> str | None:
    """Return where the scripts/start of this folder runs or last ran; None if none has got that far."""
    try:
        words = (data_dir / "lock").read_text().split()
    except FileNotFoundError:
        return None
    return words[0] if words and words[0].startswith("http://") else None


def make_settings(
    kept: Mapping[str, str], given: Mapping[str, str], *, url: str, database_url: str | None
) -> dict[str, str]:
    """The settings for the file: secrets kept from an earlier start or made now, and what follows from `url`.

    `database_url` is the embedded server's, None where the user gave one. What the user gave is not copied.
    """
    made = {
        name: kept.get(name) or make()
        for name, make in MADE_ONCE.items()
        if name in kept or name not in given
    }
    if database_url is not None:
        made["DATABASE_URL"] = database_url
    if "RDSTATION_REDIRECT_URI" not in given:
        made["RDSTATION_REDIRECT_URI"] = f"{url}/rd/callback"
    if uses_sandbox(given):
        made["RDSTATION_CLIENT_ID"] = SANDBOX_CLIENT_ID
        kept_secret = kept.get("RDSTATION_CLIENT_SECRET")
        made["RDSTATION_CLIENT_SECRET"] = kept_secret or secrets.token_hex(16)
        if "RDSTATION_API_URL" in kept:
            made["RDSTATION_API_URL"] = kept["RDSTATION_API_URL"]
    return made


def uses_sandbox(given: Mapping[str, str]) -> bool:
    return "RDSTATION_CLIENT_ID" not in given


def uses_embedded_postgres(given: Mapping[str, str]) -> bool:
    return "DATABASE_URL" not in given
