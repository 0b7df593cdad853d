"""`flask privacy`: requests of the people whose data this is."""

import sys

import click

from rdservice.cli import progress
from rdservice.cli.confirmation import confirm, yes_option
from rdservice.cli.connection import author, errors_in_one_line, transaction
from rdservice.cli.json_output import print_json
from rdservice.cli.translated_help import Group
from rdservice.data_protection import erasure
from rdservice.errors import InvalidField
from rdservice.leads.parameters import check_email
from rdservice.text.terminal import language, tell
from rdservice.web.http.context import services

privacy_group = Group("privacy", help="Erase a person's data (LGPD).")


@privacy_group.command("erase")
@click.argument("email", required=False)
@yes_option
def erase(email: str | None, yes: bool) -> None:
    """Erase a person from all that this service keeps.

    Then searches all tables as proof. Without EMAIL it asks for the address; with - it reads it from standard input,
    so that no shell history holds it. Prints JSON. RD Station keeps the person: delete the lead there first. Exit
    status 1: not proven, repeat it.

    \b
    Examples:
      flask privacy erase
      echo ana@example.com | flask privacy erase - --yes
    """
    if email is None:
        email = click.prompt(tell("E-mail"), err=True)
    elif email == "-":
        email = sys.stdin.readline().strip()
    try:
        check_email(email)
    except InvalidField as error:
        raise click.UsageError(error.told(language())) from error
    with transaction() as conn:
        rows = erasure.rows_to_search(conn)
    # The question does not repeat the address: people who see the terminal need not know it.
    confirm(tell("Erase this person from all that this service keeps?"), yes=yes)
    with errors_in_one_line(), progress.shown(tell("Searching"), rows) as on_rows:
        erased = erasure.erase(services(), email, by=author(), on_rows=on_rows)
    print_json(erasure.report(erased))
    if not erased.proven:
        raise SystemExit(1)
