"""The command `scripts/debug_rdstation_integration.py`: runs the diagnosis, writes the file, prints the findings."""

import argparse
import contextlib
import io
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TextIO

from rdservice.diagnosis.report import summary
from rdservice.diagnosis.report.build import Report, diagnose
from rdservice.diagnosis.report.report_file import NAME, CannotWrite, ReportFile
from rdservice.text import terminal
from rdservice.text.terminal import tell

EXIT_WELL = 0
EXIT_NEEDS_A_PERSON = 1
EXIT_COULD_NOT_RUN = 2

STANDARD_OUTPUT = "-"


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status: 0 all is well, 1 a person must act, 2 the diagnosis could not run."""
    options = _parser().parse_args(arguments)
    # Discards log lines and libpq's warnings, which may name accounts. The report contains what matters.
    logging.getLogger().addHandler(logging.NullHandler())
    logging.captureWarnings(True)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if options.output == STANDARD_OUTPUT:
            report = _diagnosed(options)
            with contextlib.suppress(BrokenPipeError):
                sys.stdout.buffer.write(report.to_bytes())
                sys.stdout.flush()
            _say(sys.stderr, report, [])
        else:
            with _file(options.output) as file:
                report = _diagnosed(options)
                file.write(report.to_bytes())
            _say(sys.stdout, report, [str(file.path)])
    except KeyboardInterrupt:
        return _failed(tell("Interrupted; nothing was written."))
    except CannotWrite as error:
        elsewhere = tell("Choose another place with --output PATH, or '--output -' for the terminal.")
        return _failed(f"{error} {elsewhere}")
    except Exception as error:  # noqa: BLE001 - reported without its message, which may hold a secret
        where = "".join(traceback.format_tb(error.__traceback__))
        failed = tell("The diagnosis itself failed:")
        return _failed(f"{failed}\n{where}{type(error).__qualname__}")
    return EXIT_NEEDS_A_PERSON if report.needs_a_person else EXIT_WELL


def _diagnosed(options: argparse.Namespace) -> Report:
    return diagnose(
        os.environ,
        account=options.account,
        try_refresh=not options.no_refresh,
        offline=options.offline,
    )


@contextlib.contextmanager
def _file(output: str | None) -> Iterator[ReportFile]:
    """Yield the report's file, with its place reserved. Raises CannotWrite."""
    try:
        file = ReportFile(Path.cwd() / (output or NAME))
    except FileNotFoundError:
        raise CannotWrite(tell("The current folder is gone.")) from None
    with file.reserved():
        yield file


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="debug_rdstation_integration.py",
        description=tell(
            "Find out what is wrong with the connection to RD Station. Writes %(name)s in the current folder, without"
            " secrets. Exit status: 0 all is well, 1 something needs a person, 2 could not run.",
            name=NAME,
        ),
    )
    parser.add_argument(
        "--account",
        metavar="NAME",
        help=tell("the account with which RD Station is tried (default: 'default', or the only one)"),
    )
    parser.add_argument(
        "--no-refresh", action="store_true", help=tell("do not try to renew the account's tokens")
    )
    parser.add_argument(
        "--offline",
        action="store_true",
        help=tell("do not ask RD Station and do not test the network: the database only"),
    )
    parser.add_argument(
        "--output",
        metavar="PATH",
        help=tell(
            "where to write, in place of %(name)s; '-' for standard output, and the summary on standard error",
            name=NAME,
        ),
    )
    return parser


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _failed(message: str) -> int:
    print(message, file=sys.stderr)
    return EXIT_COULD_NOT_RUN


def _say(stream: TextIO, report: Report, written: Sequence[str]) -> None:
    language = terminal.language()
    coloured = summary.takes_colours(stream, dict(os.environ))
    lines = summary.lines(report.findings, language, coloured=coloured)
    lines += [f"{summary.label(language, 'written')}: {path}" for path in written]
    if isinstance(stream, io.TextIOWrapper):
        # A terminal that cannot show a character must not abort the diagnosis.
        stream.reconfigure(errors="replace")
    # The file has everything, so a closed pipe does not matter.
    with contextlib.suppress(BrokenPipeError):
        print("\n".join(lines), file=stream, flush=True)
