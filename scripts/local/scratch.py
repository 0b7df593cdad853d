"""Shared by programs with their own PostgreSQL: a temporary folder, and an orderly end."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from scripts.local.child_process import STOP_SIGNALS


class StopRequested(BaseException):
    """A signal requested the end. Not an Exception, so that no handler treats it as a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def heed_stop_signals() -> None:
    """Let SIGINT, SIGTERM and SIGHUP (unless it is ignored, as under nohup) raise StopRequested in the main thread."""
    for number in STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _request_stop)


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Yield a new folder in TMPDIR or /var/tmp, which is removed at the end.

    Not /tmp, which may be in memory: the disk is part of what is measured.
    """
    parent = os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108 - see mkdtemp
    folder = Path(tempfile.mkdtemp(prefix=f"rdservice-{purpose}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _request_stop(number: int, _frame: FrameType | None) -> None:
    for other in STOP_SIGNALS:  # one is enough: the next would interrupt the orderly end
        signal.signal(other, signal.SIG_IGN)
    signal.alarm(0)
    raise StopRequested(number)
