"""The file of a report: readable by its owner alone, and there as a whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rdservice.text.terminal import tell

NAME = "rdstation_debug_info.json"
MODE = 0o600


class CannotWrite(Exception):
    """The report cannot be written there; the message says where and why."""


class ReportFile:
    """Where the report will be. A new file is made beforehand: a folder that cannot be written is known early."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._new = path.with_name(f".{path.name}-{secrets.token_hex(8)}")

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Hold a new file in the folder; whatever was not written by the end is removed. Raises CannotWrite."""
        if self.path.is_dir() and not self.path.is_symlink():
            raise CannotWrite(tell("%(path)s is a folder.", path=self.path))
        try:
            # O_EXCL makes a file of our own, and follows no symbolic link.
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
        """Put `content` there in place of whatever has the name; a symbolic link is replaced, not followed.

        Raises CannotWrite.
        """
        try:
            descriptor = os.open(self._new, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "wb") as out:
                # The mode at its making was subject to the umask.
                os.fchmod(out.fileno(), MODE)
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            os.replace(self._new, self.path)
        except OSError as error:
            raise CannotWrite(
                tell("%(path)s cannot be written: %(reason)s.", path=self.path, reason=error.strerror)
            ) from error
