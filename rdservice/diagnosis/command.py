"""The command of `scripts/debug_rdstation_integration.py`: diagnoses, writes the file, tells the findings."""

import argparse
import contextlib
import io
import logging
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from rdservice.diagnosis.finding import Finding, Language
from rdservice.diagnosis.report import diagnose
from rdservice.diagnosis.report_file import NAME, CannotWrite, ReportFile

EXIT_WELL = 0
EXIT_NEEDS_A_PERSON = 1
EXIT_COULD_NOT_RUN = 2

LABELS: dict[Language, dict[str, str]] = {
    "en": {
        "error": "ERROR",
        "warning": "WARNING",
        "info": "NOTE",
        "todo": "What to do",
        "well": "All is well.",
        "written": "Written",
    },
    "pt-BR": {
        "error": "ERRO",
        "warning": "AVISO",
        "info": "NOTA",
        "todo": "O que fazer",
        "well": "Tudo certo.",
        "written": "Gravado em",
    },
}


def main(arguments: Sequence[str]) -> int:
    """Return the exit status: 0 all is well, 1 something needs a person, 2 the diagnosis could not run."""
    options = _parser().parse_args(arguments)
    # What the parts of the service log, and libpq's warnings, may name accounts; what matters of it is in the report.
    logging.getLogger().addHandler(logging.NullHandler())
    logging.captureWarnings(True)
    signal.signal(signal.SIGTERM, _interrupt)
    language = preferred_language(os.environ)
    try:
        file = ReportFile(Path.cwd())
    except FileNotFoundError:
        return _failed("The current folder is gone. Run this in another one.")
    try:
        with file.reserved():
            report = diagnose(os.environ, account=options.account, try_refresh=not options.no_refresh)
            file.write(report.to_bytes())
    except KeyboardInterrupt:
        return _failed("Interrupted; nothing was written.")
    except CannotWrite as error:
        return _failed(f"{error} Run this in a folder in which you may write.")
    except Exception as error:  # noqa: BLE001 - told without its message, which could hold a secret
        where = "".join(traceback.format_tb(error.__traceback__))
        return _failed(f"The diagnosis itself failed:\n{where}{type(error).__qualname__}")
    _say([*summary(report.findings, language), f"{LABELS[language]['written']}: {file.path}"])
    return EXIT_NEEDS_A_PERSON if report.needs_a_person else EXIT_WELL


def summary(findings: Sequence[Finding], language: Language) -> list[str]:
    """Return the findings as lines for a terminal."""
    labels = LABELS[language]
    lines = [] if findings else [labels["well"], ""]
    for finding in findings:
        text = finding.text(language)
        lines += [
            f"{labels[finding.severity]}  {text.seen}",
            f"  {text.meaning}",
            f"  {labels['todo']}: {text.todo}",
            "",
        ]
    return lines


def preferred_language(environ: Mapping[str, str]) -> Language:
    """Return the language of messages (locale(7)): pt-BR where it is any Portuguese, else English."""
    locale = environ.get("LC_ALL") or environ.get("LC_MESSAGES") or environ.get("LANG") or ""
    return "pt-BR" if locale.lower().startswith("pt") else "en"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="debug_rdstation_integration.py",
        description=f"Find out what is wrong with the connection to RD Station. Writes {NAME} in the current folder, "
        "without secrets. Exit status: 0 all is well, 1 something needs a person, 2 could not run.",
    )
    parser.add_argument(
        "--account", help="the account with which RD Station is tried (default: 'default', or the only one)"
    )
    parser.add_argument("--no-refresh", action="store_true", help="do not try to renew the account's tokens")
    return parser


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _failed(message: str) -> int:
    print(message, file=sys.stderr)
    return EXIT_COULD_NOT_RUN


def _say(lines: Sequence[str]) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that lacks a character must not end the diagnosis.
        sys.stdout.reconfigure(errors="replace")
    # The file has it all: it does not matter when nobody reads on at the other end of a pipe.
    with contextlib.suppress(BrokenPipeError):
        print("\n".join(lines), flush=True)
