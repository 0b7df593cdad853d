"""The database for commands: its absence is one clear line, not a traceback."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from psycopg import Connection

from rdservice.access import audit
from rdservice.database import outage, pool
from rdservice.database.connection import reason
from rdservice.database.migrate import pending_migrations
from rdservice.errors import RdServiceError
from rdservice.text.terminal import language, tell
from rdservice.web.http.context import services


class DatabaseUnreachable(click.ClickException):
    """Ends a command with status 75 (EX_TEMPFAIL)."""

    exit_code = os.EX_TEMPFAIL

    def __init__(self, reason: str) -> None:
        super().__init__(
            tell(
                "The database cannot be reached. Check DATABASE_URL and whether the server runs, then try again."
                " The reason: %(reason)s",
                reason=reason,
            )
        )


def author() -> audit.Author:
    """Return who runs this command, for the audit."""
    context, names = click.get_current_context(), []
    while context.parent is not None:
        names.append(str(context.info_name))
        context = context.parent
    return audit.command_line(" ".join(["flask", *reversed(names)]))


@contextmanager
def transaction() -> Iterator[Connection[Any]]:
    """Yield a connection inside a transaction, for use in a `flask` command.

    Leaves with status 75 (EX_TEMPFAIL) when the database cannot be reached, and with 1 when its tables are missing or
    when what was asked for is refused (RdServiceError).
    """
    with errors_in_one_line(), pool.transaction(services().pool) as conn:
        if pending_migrations(conn):
            raise click.ClickException(
                tell("The database is not prepared for this version. Run 'flask release'.")
            )
        yield conn


def check() -> None:
    """Leave as `transaction` does when the database cannot be used now."""
    with transaction():
        return


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Leave with status 75 when the database cannot be reached inside the block, with 1 on an RdServiceError."""
    # Failed attempts are told in one line below.
    outage.log.setLevel(logging.ERROR)
    try:
        yield
    except pool.UNAVAILABLE as error:
        raise DatabaseUnreachable(reason(error)) from error
    except RdServiceError as error:
        raise click.ClickException(error.told(language())) from error
