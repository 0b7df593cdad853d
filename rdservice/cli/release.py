"""`flask release`: brings the database to this version."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import click
import psycopg
from flask.cli import with_appcontext

from rdservice.cli import progress
from rdservice.cli.connection import author, errors_in_one_line
from rdservice.cli.translated_help import Command
from rdservice.config.reader import HEX_RECIPE
from rdservice.database import migrate
from rdservice.database.older_table.checks import CannotAdopt, Sentence
from rdservice.database.pool import CONNECT_TIMEOUT_S, UNAVAILABLE, transaction
from rdservice.notifications import targets
from rdservice.text import settings_problems
from rdservice.text.terminal import language, tell, tell_plural
from rdservice.tokens import adoption
from rdservice.web.http.context import services


@click.command("release", cls=Command)
@with_appcontext
def release() -> None:
    """Bring the database to this version.

    Applies migrations and encrypts tokens that an older backend left. Safe to repeat, to run twice at once and to
    interrupt. Warns of receivers in NOTIFY_URLS that apprise cannot use, and in production without METRICS_TOKEN.

    \b
    Example:
      flask release
    """
    with errors_in_one_line():
        applied, encrypted = _bring_up_to_date()
        with transaction(services().pool) as conn:
            suspicious = adoption.columns_with_tokens(conn)
            _, left = adoption.count_plain_rows(conn)
    for migration in applied:
        number = f"{migration.version:04d}"
        click.echo(tell("Applied migration %(number)s %(name)s.", number=number, name=migration.name))
    if encrypted:
        click.echo(
            tell_plural(
                "Encrypted the plain tokens of %(count)s account.",
                "Encrypted the plain tokens of %(count)s accounts.",
                encrypted,
            )
        )
    if left:
        warning = tell_plural(
            "Warning: %(count)s account has values that are not plain tokens. They stay as they are, and the service"
            " cannot use them. Connect it again, or replace the values with the plain tokens and repeat.",
            "Warning: %(count)s accounts have values that are not plain tokens. They stay as they are, and the service"
            " cannot use them. Connect them again, or replace the values with the plain tokens and repeat.",
            left,
        )
        click.echo(warning, err=True)
    if suspicious:
        warning = tell(
            "Warning: these columns of the older backend seem to hold tokens in plain text: %(columns)s. Look at them."
            " When nothing needs them any more, empty them:",
            columns=", ".join(suspicious),
        )
        click.echo(f"{warning}\n{adoption.blanking(suspicious)}", err=True)
    if not applied and not encrypted:
        click.echo(tell("The database is up to date."))
    unusable = targets.unusable(services().settings.notify_urls)
    if unusable:
        click.echo(tell("Warning: no notification goes to these receivers:"), err=True)
        click.echo("\n".join(settings_problems.lines(language(), unusable)), err=True)
    if services().settings.production and not services().settings.metrics_tokens:
        click.echo(
            tell(
                "Warning: METRICS_TOKEN is not set, so nobody can read /metrics. Set it, for example to the output of:"
                " %(command)s",
                command=HEX_RECIPE,
            ),
            err=True,
        )


def _bring_up_to_date() -> tuple[list[migrate.Migration], int]:
    """Return the migrations that were applied and the number of rows that were encrypted."""
    with _refusals_with_advice():
        with psycopg.connect(
            services().settings.database_url,
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=CONNECT_TIMEOUT_S,
        ) as conn:
            applied = migrate.migrate(conn, _tell_adopted)
        with transaction(services().pool) as conn:
            plain, _ = adoption.count_plain_rows(conn)
        with progress.shown(tell("Encrypting"), plain) as on_rows:
            encrypted = adoption.encrypt_plain_rows(
                services().pool, services().keys, by=author(), on_rows=on_rows
            )
        return applied, encrypted


def _tell_adopted(sentences: list[Sentence]) -> None:
    for sentence in sentences:
        click.echo(tell(sentence.text, **sentence.values))


@contextmanager
def _refusals_with_advice() -> Iterator[None]:
    """Leave with what to do when the database, or an older table in it, does not allow this version's changes."""
    try:
        yield
    except CannotAdopt as refusal:
        raise click.ClickException(
            _with_statements(
                tell(
                    "The older table rdstation_tokens cannot be adopted as it is, and nothing was changed. %(reason)s",
                    reason=tell(refusal.sentence.text, **refusal.sentence.values),
                ),
                refusal.statements,
            )
        ) from refusal
    except migrate.ServerTooOld as error:
        raise click.ClickException(
            tell(
                "This is PostgreSQL %(version)s, and this service needs 15 or later. Nothing was changed. Upgrade the"
                " server, or set DATABASE_URL to a database on a newer one, then repeat.",
                version=error,
            )
        ) from error
    except migrate.RightsMissing as error:
        raise click.ClickException(
            _with_statements(
                tell(
                    "The user in DATABASE_URL lacks a right, and nothing was changed: %(reason)s. Let the owner of the"
                    " database grant it, then repeat:",
                    reason=error.reason,
                ),
                error.statements,
            )
        ) from error
    except migrate.TablesInUse as error:
        raise TablesInUse from error
    except UNAVAILABLE:
        raise
    except psycopg.Error as error:
        raise click.ClickException(
            tell(
                "The database refused what this version needs, and nothing was changed: %(reason)s. If an older"
                " rdstation_tokens is the cause, keep it under another name (ALTER TABLE rdstation_tokens RENAME TO"
                " older_rdstation_tokens), repeat, and upload its tokens.",
                # The message of a data exception may quote a token.
                reason=type(error).__name__
                if isinstance(error, psycopg.DataError)
                else error.diag.message_primary,
            )
        ) from error


def _with_statements(text: str, statements: list[str]) -> str:
    return "\n".join([text, *statements])


class TablesInUse(click.ClickException):
    """Ends the command with status 75 (EX_TEMPFAIL)."""

    exit_code = os.EX_TEMPFAIL

    def __init__(self) -> None:
        super().__init__(
            tell(
                "Other sessions, such as a backup, used the tables for too long, and nothing was changed. Repeat when"
                " they have ended."
            )
        )
