"""How work on many rows tells how far it is."""

from collections.abc import Callable

OnRows = Callable[[int], None]
"""Told how many more rows were looked at."""


def ignore(rows: int) -> None:
    """A progress callback that does nothing."""
