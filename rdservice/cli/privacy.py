"""`flask privacy`: requests of the people whose data this is."""

import sys
from typing import TextIO

import click

from rdservice.cli import progress
from rdservice.cli.confirmation import confirm, yes_option
from rdservice.cli.connection import author, errors_in_one_line, transaction
from rdservice.cli.json_output import print_json
from rdservice.cli.translated_help import Group, option
from rdservice.data_protection import erased_people, erasure
from rdservice.data_protection.erased_people import Erasure, NoExport
from rdservice.errors import InvalidField
from rdservice.leads.parameters import UUID_FORM, check_email
from rdservice.text.terminal import language, tell
from rdservice.web.http.context import services

privacy_group = Group("privacy", help="Erase a person's data (LGPD).")


@privacy_group.command("erase")
@click.argument("person", required=False)
@option(
    "--at-rd-station",
    is_flag=True,
    help="Delete the person's leads at RD Station too, in all connected accounts. RD Station cannot restore them.",
)
@yes_option
def erase(person: str | None, at_rd_station: bool, yes: bool) -> None:
    """Erase a person from all that this service keeps.

    PERSON is an e-mail address or the UUID of a lead. Erases all events of the person's leads, whatever address they
    have, then searches all tables as proof. Without PERSON it asks; with - it reads standard input, so that no shell
    history holds it. Prints JSON. Without --at-rd-station, RD Station keeps the person: delete the lead there first.
    Exit status 1: not proven, repeat it.

    \b
    Examples:
      flask privacy erase
      echo ana@example.com | flask privacy erase - --at-rd-station --yes
    """
    if person is None:
        person = click.prompt(tell("E-mail or UUID"), err=True)
    elif person == "-":
        person = sys.stdin.readline()
    person = person.strip()
    email, uuid = (None, person) if UUID_FORM.fullmatch(person) else (person, None)
    try:
        if uuid is None:
            check_email(email)
    except InvalidField as error:
        raise click.UsageError(error.told(language())) from error
    with transaction() as conn:
        rows = erasure.rows_to_search(conn)
    # The questions do not repeat the address: people who see the terminal need not know it.
    confirm(
        tell(
            "Erase this person from all that this service keeps, and delete the leads at RD Station for good?"
        )
        if at_rd_station
        else tell("Erase this person from all that this service keeps?"),
        yes=yes,
    )
    with errors_in_one_line(), progress.shown(tell("Searching"), rows) as on_rows:
        erased = erasure.erase(
            services(), email, uuid=uuid, at_rd_station=at_rd_station, by=author(), on_rows=on_rows
        )
    print_json(erasure.report(erased))
    if not erased.proven:
        raise SystemExit(1)


@privacy_group.command("reapply")
@click.argument("file", type=click.File(encoding="utf-8"))
@yes_option
def reapply(file: TextIO, yes: bool) -> None:
    """Repeat erasures after a backup was restored.

    FILE is an output of 'flask audit list --json' from before the restoration, as it is or one entry a line; - is
    standard input. What a person left after that person's erasure stays. Prints JSON. Exit status 1: not proven, or
    some erasures cannot be repeated; the notes say why.

    \b
    Example:
      cat audit.json | flask privacy reapply - --yes
    """
    erasures = _read(file)
    with transaction() as conn:
        rows = erasure.rows_to_search(conn) * 4 // 3
    confirm(tell("Erase these people from all that this service keeps?"), yes=yes)
    with errors_in_one_line(), progress.shown(tell("Searching"), rows) as on_rows:
        erased = erasure.reapply(services(), erasures, by=author(), on_rows=on_rows)
    left_out = [one for one in erasures if not erased_people.can_be_matched(services().keys, one)]
    report = erasure.report(erased)
    report["notes"] += erased_people.notes(left_out)
    print_json({"erasures": len(erasures), "not_repeated": [one.entry for one in left_out], **report})
    if left_out or not erased.proven:
        raise SystemExit(1)


def _read(file: TextIO) -> list[Erasure]:
    try:
        return erased_people.read_export(file.read())
    except NoExport as error:
        if error.line is None:
            sentence = tell(
                "The file is not an export of the audit. Give the output of 'flask audit list --json'."
            )
        else:
            sentence = tell(
                "Line %(line)s of the file is not an entry of the audit. Give the output of 'flask audit list --json'.",
                line=error.line,
            )
        raise click.ClickException(sentence) from error
    except UnicodeDecodeError as error:
        raise click.ClickException(
            tell("The file is not UTF-8. Give the output of 'flask audit list --json'.")
        ) from error
