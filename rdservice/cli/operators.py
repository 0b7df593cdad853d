"""`flask operators`: who may log in."""

import sys

import click

from rdservice.access import audit, operators, passwords, sessions
from rdservice.cli.confirmation import confirm, yes_option
from rdservice.cli.connection import author, check, transaction
from rdservice.cli.json_output import as_json_option, print_json, time_or_null
from rdservice.cli.translated_help import Group, option
from rdservice.errors import InvalidField
from rdservice.text.terminal import language, tell

operators_group = Group("operators", help="Add, list and remove the people who may log in.")

password_from_stdin = option(
    "--password-stdin",
    is_flag=True,
    help="Read the password from the first line of standard input instead of asking for it.",
)


@operators_group.command("create")
@click.argument("email")
@password_from_stdin
@as_json_option
def create(email: str, password_stdin: bool, as_json: bool) -> None:
    """Add an operator who logs in as EMAIL.

    Asks for the password twice; it must have 12 characters or more. Exit status 1: the e-mail or the password
    cannot be used, or there is such an operator already.

    \b
    Examples:
      flask operators create you@example.com
      printf '%s' "$PASSWORD" | flask operators create you@example.com --password-stdin
    """
    password_hash = _hash(_read_password(password_stdin))
    with transaction() as conn:
        operator = operators.create(conn, email, password_hash)
        if operator is not None:
            audit.record(conn, author(), "operator_created", subject=operator.email)
    if operator is None:
        raise click.ClickException(
            tell(
                "%(email)s is an operator already. Use 'flask operators reset-password %(email)s' to set a new"
                " password.",
                email=email,
            )
        )
    if as_json:
        print_json(_shown(operator))
    else:
        click.echo(tell("%(email)s may log in now.", email=operator.email))


@operators_group.command("reset-password")
@click.argument("email")
@password_from_stdin
def reset_password(email: str, password_stdin: bool) -> None:
    """Set a new password and end the operator's sessions.

    Asks for the password twice; it must have 12 characters or more. Operators who know theirs change it on the page
    /password.

    \b
    Example:
      flask operators reset-password you@example.com
    """
    password_hash = _hash(_read_password(password_stdin))
    with transaction() as conn:
        operator_id = operators.reset_password(conn, email, password_hash)
        ended = 0 if operator_id is None else sessions.end_all(conn, operator_id)
        if operator_id is not None:
            audit.record(conn, author(), "password_reset", subject=operators.normalize_email(email))
    if operator_id is None:
        raise _unknown(email)
    click.echo(
        tell("The password of %(email)s was changed; sessions ended: %(count)s.", email=email, count=ended)
    )


@operators_group.command("list")
@as_json_option
def list_operators(as_json: bool) -> None:
    """List the operators.

    \b
    Example:
      flask operators list --json
    """
    with transaction() as conn:
        found = operators.list_all(conn)
    if as_json:
        print_json([_shown(operator) for operator in found])
        return
    for operator in found:
        since = tell("since %(time)s", time=f"{operator.created_at:%Y-%m-%d}")
        click.echo(f"{operator.email}  {since}")
    if not found:
        click.echo(tell("There is no operator yet. Add one with 'flask operators create EMAIL'."), err=True)


@operators_group.command("remove")
@click.argument("email")
@yes_option
def remove(email: str, yes: bool) -> None:
    """Remove an operator and end that person's sessions.

    Exit status 1: EMAIL is no operator.

    \b
    Example:
      flask operators remove you@example.com --yes
    """
    check()
    confirm(tell("Remove the operator %(email)s?", email=email), yes=yes)
    with transaction() as conn:
        removed = operators.remove(conn, email)
        if removed:
            audit.record(conn, author(), "operator_removed", subject=operators.normalize_email(email))
    if not removed:
        raise _unknown(email)
    click.echo(tell("%(email)s may no longer log in.", email=email))


def _shown(operator: operators.Operator) -> dict[str, str | None]:
    return {
        "email": operator.email,
        "created_at": time_or_null(operator.created_at),
        "password_changed_at": time_or_null(operator.password_changed_at),
    }


def _read_password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    password: str = click.prompt(
        tell("Password"), hide_input=True, confirmation_prompt=tell("Once more"), err=True
    )
    return password


def _hash(password: str) -> str:
    try:
        return passwords.hash_password(password)
    except InvalidField as error:
        raise click.ClickException(error.told(language())) from error


def _unknown(email: str) -> click.ClickException:
    return click.ClickException(
        tell("%(email)s is no operator. 'flask operators list' shows who is.", email=email)
    )
