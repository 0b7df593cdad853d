"""Asking before a command destroys something: on a terminal a question, for programs the option --yes."""

import sys

import click

yes_option = click.option(
    "--yes", is_flag=True, help="Do not ask. Needed where there is no terminal to ask at."
)


def confirm(question: str, *, yes: bool) -> None:
    """Return when the answer is yes, or `--yes` was given.

    Leaves with status 1 when the answer is no, and with 2 when nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("Nobody can be asked whether this is meant: there is no terminal. Give --yes.")
    click.confirm(question, abort=True, err=True)
