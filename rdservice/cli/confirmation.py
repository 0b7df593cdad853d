"""Asking before a command destroys something: on a terminal a question, for programs the option --yes."""

import sys

import click

from rdservice.cli.translated_help import option
from rdservice.text.terminal import tell

yes_option = option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal to ask at.")


def confirm(question: str, *, yes: bool) -> None:
    """Return when the answer is yes, or `--yes` was given.

    Leaves with status 1 when the answer is no, and with 2 when nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(
            tell("This command asks before it acts, and there is no terminal to ask at. Give --yes.")
        )
    click.confirm(question, abort=True, err=True)
