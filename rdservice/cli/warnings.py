"""Warnings of an action that succeeded, for people at a terminal."""

from collections.abc import Iterable

import click

from rdservice.notices import Notice
from rdservice.text.terminal import language, tell


def warn(notices: Iterable[Notice]) -> None:
    """Print each warning to standard error."""
    for notice in notices:
        click.echo(tell("Warning: %(warning)s", warning=notice.told(language())), err=True)
