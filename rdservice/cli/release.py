"""`flask release`: brings the database to this version."""

import os

import click
import psycopg
from flask.cli import with_appcontext

from rdservice import database
from rdservice.tokens import adoption
from rdservice.web.context import services


@click.command("release")
@with_appcontext
def release() -> None:
    """Apply migrations and encrypt tokens that an older backend left.

    Safe to repeat, to run twice at once and to interrupt.
    """
    try:
        with psycopg.connect(
            services().settings.database_url,
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=database.CONNECT_TIMEOUT_S,
        ) as conn:
            applied = database.migrate(conn)
        encrypted = adoption.encrypt_plain_rows(services().pool, services().keys)
    except database.UNAVAILABLE as error:
        click.echo(
            "Error: The database cannot be reached. Check DATABASE_URL and whether the server runs, then try again.",
            err=True,
        )
        raise SystemExit(os.EX_TEMPFAIL) from error
    except psycopg.Error as error:
        raise click.ClickException(
            f"The database refused what this version needs, and nothing was changed: {error.diag.message_primary}."
            " If other tables or views use an older rdstation_tokens, drop them first, then repeat."
        ) from error
    for migration in applied:
        click.echo(f"Applied migration {migration.version:04d} {migration.name}.")
    if encrypted:
        click.echo(f"Encrypted the plain tokens of {encrypted} accounts.")
    if not applied and not encrypted:
        click.echo("The database is up to date.")
