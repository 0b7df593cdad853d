"""How far long work is, on standard error: a bar on a terminal, else a line every few seconds, for logs."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from rdservice.database.progress import OnRows
from rdservice.text.terminal import tell

SAY_EVERY_S = 5.0


@contextmanager
def shown(label: str, total: int, *, unit: str = "") -> Iterator[OnRows]:
    """Yield what to call with numbers of `unit` (rows, unless given) that were done, of `total`.

    `label` and `unit` are in the terminal's language.
    """
    unit = unit or tell("rows")
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
            values = {"label": label, "done": seen, "total": total, "unit": unit}
            click.echo(tell("%(label)s: %(done)s of %(total)s %(unit)s", **values), err=True)

    yield say
