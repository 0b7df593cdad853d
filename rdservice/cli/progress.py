"""How far long work is, on standard error: a bar on a terminal, else a line every few seconds, for logs."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from rdservice.database.progress import OnRows

SAY_EVERY_S = 5.0


@contextmanager
def shown(label: str, total: int, *, unit: str = "rows") -> Iterator[OnRows]:
    """Yield what to call with numbers of `unit` that were done, of `total`."""
    seen, begun_at = 0, time.monotonic()
    said_at = begun_at
    if sys.stderr.isatty():

        def rate(_: object) -> str:
            return f"{seen / max(time.monotonic() - begun_at, 1):.0f} {unit}/s"

        with click.progressbar(length=total, label=label, file=sys.stderr, item_show_func=rate) as bar:

            def advance(done: int) -> None:
                nonlocal seen
                seen += done
                bar.update(done)

            yield advance
        return

    def say(done: int) -> None:
        nonlocal seen, said_at
        seen += done
        if time.monotonic() - said_at >= SAY_EVERY_S:
            said_at = time.monotonic()
            click.echo(f"{label}: {seen} of {total} {unit}", err=True)

    yield say
