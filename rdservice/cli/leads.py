"""`flask leads`: all leads of a segmentation into a file."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import BinaryIO

import click

from rdservice.accounts.ids import check_account_id
from rdservice.cli import progress
from rdservice.cli.connection import author, check, errors_in_one_line
from rdservice.cli.translated_help import Group, option
from rdservice.leads.export.formats import Format
from rdservice.leads.export.paging import Position
from rdservice.leads.export.resume import NotAnExport, whole_part
from rdservice.leads.export.run import Export, Wanted
from rdservice.text.terminal import tell, tell_plural
from rdservice.tokens import store
from rdservice.web.http.context import services

leads_group = Group("leads", help="Export leads of RD Station.")


@leads_group.command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@option("--segmentation", help="Id or name. Without it: all leads.")
@option("--format", "written_as", type=click.Choice(["ndjson", "csv"]), help="Default: by FILE's ending.")
@option("--full", is_flag=True, help="The full record of each lead: a call to RD Station for each of them.")
@option("--account", "account_id", default=store.DEFAULT_ACCOUNT, show_default=True)
@option("--resume", is_flag=True, help="Go on where an export into FILE broke off.")
def export(
    file: str, segmentation: str | None, written_as: Format | None, full: bool, account_id: str, resume: bool
) -> None:
    """Write all leads of a segmentation into a file.

    FILE is - for standard output. Until it is complete it is called FILE.part. Exit status 1: the export could not
    begin, or broke off.

    \b
    Examples:
      flask leads export leads.csv
      flask leads export leads.csv --resume
      flask leads export - --segmentation 5 > leads.ndjson
    """
    if resume and file == "-":
        raise click.UsageError(tell("Standard output cannot be resumed."))
    chosen: Format = written_as or ("csv" if file.endswith(".csv") else "ndjson")
    check()
    with errors_in_one_line(), _output(file, resume=resume) as output:
        after = _after(output, chosen) if resume else None
        wanted = Wanted(
            account_id=check_account_id(services().pool, account_id),
            segmentation=segmentation,
            format=chosen,
            full=full,
            after=after,
        )
        begun = Export(services(), wanted, pause=time.sleep, timeout_s=inf, by=author())
        if after is None:
            output.write(begun.lines.head())
        else:
            _check_columns(output, begun.lines.head())
        try:
            written = _write(begun, output)
        finally:
            begun.close()
    click.echo(tell_plural("%(count)s lead exported.", "%(count)s leads exported.", written), err=True)


@contextmanager
def _output(file: str, *, resume: bool) -> Iterator[BinaryIO]:
    """Yield where to write. Only the user who runs the command may read the file: it holds people's data."""
    if file == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = Path(f"{file}.part")
    if Path(file).exists():
        raise click.ClickException(
            tell("%(file)s exists already. Give another name, or delete it.", file=file)
        )
    flags = os.O_RDWR if resume else os.O_RDWR | os.O_CREAT | os.O_EXCL
    try:
        descriptor = os.open(part, flags, 0o600)
    except FileExistsError:
        raise click.ClickException(
            tell("%(file)s is an export that broke off. Go on with --resume, or delete it.", file=part)
        ) from None
    except FileNotFoundError:
        raise click.ClickException(
            tell("There is no %(file)s; begin without --resume, in a folder that exists.", file=part)
        ) from None
    except OSError as error:
        raise click.ClickException(
            tell("%(path)s cannot be written: %(reason)s.", path=part, reason=error.strerror)
        ) from None
    with os.fdopen(descriptor, "r+b") as output:
        yield output
        output.flush()
        os.fsync(output.fileno())
    part.rename(file)


def _after(output: BinaryIO, written_as: Format) -> Position | None:
    """Cut an incomplete last line off; return the last lead that is whole."""
    try:
        end, after = whole_part(output, written_as)
    except NotAnExport:
        raise click.ClickException(
            tell("The file is no %(format)s export of this service.", format=written_as)
        ) from None
    output.seek(end)
    output.truncate()
    return after


def _check_columns(output: BinaryIO, head: bytes) -> None:
    """Refuse to go on under a header line of other columns."""
    here = output.tell()
    output.seek(0)
    same = output.read(len(head)) == head
    output.seek(here)
    if not same:
        raise click.ClickException(
            tell(
                "The file has other columns: --full was different, or the account's fields have changed. Begin it"
                " again."
            )
        )


def _write(begun: Export, output: BinaryIO) -> int:
    """Write all that comes; return how many leads."""
    written = 0
    with progress.shown(tell("Exporting"), max(begun.expected, 1), unit=tell("leads")) as on_leads:
        for batch in begun.batches():
            output.write(begun.lines.lines(batch))
            output.flush()
            written += len(batch)
            on_leads(len(batch))
    return written
