"""How far long work is, on standard error: a bar on a terminal, else a line every few seconds, for logs."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from rdservice.stored_values import OnRows

SAY_EVERY_S = 5.0


@contextmanager
def shown(label: str, total: int) -> Iterator[OnRows]:
    """Yield what to call with numbers of rows that were done, of `total`."""
    if sys.stderr.isatty():
        with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
            yield bar.update
        return
    seen, said_at = 0, time.monotonic()

    def say(rows: int) -> None:
        nonlocal seen, said_at
        seen += rows
        if time.monotonic() - said_at >= SAY_EVERY_S:
            said_at = time.monotonic()
            click.echo(f"{label}: {seen} of {total} rows", err=True)

    yield say
