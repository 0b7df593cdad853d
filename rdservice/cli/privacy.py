"""`flask privacy`: requests of the people whose data this is."""

import sys

import click
from flask.cli import AppGroup

from rdservice.cli import progress
from rdservice.cli.confirmation import confirm, yes_option
from rdservice.cli.connection import author, errors_in_one_line, transaction
from rdservice.cli.json_output import print_json
from rdservice.data_protection import erasure
from rdservice.errors import InvalidField
from rdservice.leads.parameters import check_email
from rdservice.web.http.context import services

privacy_group = AppGroup("privacy", help="Erase a person who asks for it (LGPD).")


@privacy_group.command("erase")
@click.argument("email", required=False)
@yes_option
def erase(email: str | None, yes: bool) -> None:
    """Erase a person from all that this service keeps.

    Afterwards all tables are searched as proof. EMAIL is asked for where it is left out, and read from standard input
    for -, so that it stands in no history of commands. Prints JSON. RD Station keeps the person: delete the lead there
    first. Exit status 1: not proven, repeat it.

    \b
    Examples:
      flask privacy erase
      echo ana@example.com | flask privacy erase - --yes
    """
    if email is None:
        email = click.prompt("E-mail", err=True)
    elif email == "-":
        email = sys.stdin.readline().strip()
    try:
        check_email(email)
    except InvalidField as error:
        raise click.UsageError(error.detail) from error
    with transaction() as conn:
        rows = erasure.rows_to_search(conn)
    # The address is not repeated: who looks over a shoulder, or later at the terminal, need not know it.
    confirm("Erase this person from all that this service keeps?", yes=yes)
    with errors_in_one_line(), progress.shown("Searching", rows) as on_rows:
        erased = erasure.erase(services(), email, by=author(), on_rows=on_rows)
    print_json(erasure.report(erased))
    if not erased.proven:
        raise SystemExit(1)
