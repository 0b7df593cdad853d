"""`flask privacy`: requests of the people whose data this is."""

import json
import sys

import click
from flask.cli import AppGroup

from rdservice import leads, privacy
from rdservice.cli.connection import author, check, errors_in_one_line
from rdservice.errors import InvalidField
from rdservice.web.context import services

privacy_group = AppGroup("privacy", help="Requests of the people whose data this is (LGPD): erase a person.")


@privacy_group.command("erase")
@click.argument("email", required=False)
def erase(email: str | None) -> None:
    """Erase the person with the address EMAIL from all that this service keeps, and look whether it is so.

    Without EMAIL it is asked for, and with - read from standard input, so that it stands in no history of commands.
    Prints JSON. RD Station keeps the person: delete the lead there first. Exit status 1: not proven, repeat it.
    """
    if email is None:
        email = click.prompt("E-mail", err=True)
    elif email == "-":
        email = sys.stdin.readline().strip()
    try:
        leads.check_email(email)
    except InvalidField as error:
        raise click.UsageError(error.detail) from error
    check()
    with errors_in_one_line():
        erased = privacy.erase(services(), email, by=author())
    click.echo(json.dumps(privacy.report(erased), indent=2, ensure_ascii=False))
    if not erased.proven:
        raise SystemExit(1)
