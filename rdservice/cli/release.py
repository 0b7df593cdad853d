"""`flask release`: brings the database to this version."""

import click
import psycopg
from flask.cli import with_appcontext

from rdservice.cli import progress
from rdservice.cli.connection import author, errors_in_one_line
from rdservice.cli.translated_help import Command
from rdservice.config.reader import HEX_RECIPE
from rdservice.database import migrate
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
    try:
        with psycopg.connect(
            services().settings.database_url,
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=CONNECT_TIMEOUT_S,
        ) as conn:
            applied = migrate.migrate(conn)
        with transaction(services().pool) as conn:
            plain = adoption.count_plain_rows(conn)
        with progress.shown(tell("Encrypting"), plain) as on_rows:
            encrypted = adoption.encrypt_plain_rows(
                services().pool, services().keys, by=author(), on_rows=on_rows
            )
        return applied, encrypted
    except UNAVAILABLE:
        raise
    except psycopg.Error as error:
        raise click.ClickException(
            tell(
                "The database refused what this version needs, and nothing was changed: %(reason)s. If other tables or"
                " views use an older rdstation_tokens, drop them first, then repeat.",
                reason=error.diag.message_primary,
            )
        ) from error
