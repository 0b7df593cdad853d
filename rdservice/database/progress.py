"""The progress callback of long operations on many rows."""

from collections.abc import Callable

OnRows = Callable[[int], None]
"""Receives the number of rows processed since the last call."""


def ignore(rows: int) -> None:
    """A progress callback that does nothing."""
