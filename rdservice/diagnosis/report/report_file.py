"""Writes the report's file: readable by its owner only, and either complete or not there."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rdservice.text.terminal import tell

NAME = "rdstation_debug_info.json"
MODE = 0o600


class CannotWrite(Exception):
    """The report cannot be written. The message, in the terminal's language, says where and why."""


class ReportFile:
    """The report's file. `reserved` creates a temporary file first, so that an unwritable folder is noticed early."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._new = path.with_name(f".{path.name}-{secrets.token_hex(8)}")

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Create the temporary file, and remove it at the end if `write` has not used it. Raises CannotWrite."""
        if self.path.is_dir() and not self.path.is_symlink():
            raise CannotWrite(tell("%(path)s is a folder.", path=self.path))
        try:
            # O_EXCL guarantees a new file and follows no symbolic link.
            os.close(os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE))
        except OSError as error:
            raise CannotWrite(
                tell("%(path)s cannot be written: %(reason)s.", path=self.path, reason=error.strerror)
            ) from error
        try:
            yield
        finally:
            self._new.unlink(missing_ok=True)

    def write(self, content: bytes) -> None:
        """Replace the file at `path` with `content` atomically. Replaces a symbolic link instead of following it.

        Raises CannotWrite.
        """
        try:
            descriptor = os.open(self._new, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "wb") as out:
                # The umask may have changed the mode at creation.
                os.fchmod(out.fileno(), MODE)
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            os.replace(self._new, self.path)
        except OSError as error:
            raise CannotWrite(
                tell("%(path)s cannot be written: %(reason)s.", path=self.path, reason=error.strerror)
            ) from error
