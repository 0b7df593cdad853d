"""`flask operators`: who may log in."""

import json
import sys

import click
from flask.cli import AppGroup

from rdservice import audit
from rdservice.access import operators, passwords, sessions
from rdservice.cli.connection import author, transaction
from rdservice.errors import InvalidField

operators_group = AppGroup("operators", help="People who may log in: add, list and remove them.")

password_from_stdin = click.option(
    "--password-stdin",
    is_flag=True,
    help="Read the password from the first line of standard input instead of asking for it.",
)


@operators_group.command("create")
@click.argument("email")
@password_from_stdin
def create(email: str, password_stdin: bool) -> None:
    """Add an operator who logs in as EMAIL.

    Asks for the password twice; it must have 12 characters or more.
    """
    password_hash = _hash(_read_password(password_stdin))
    with transaction() as conn:
        operator = operators.create(conn, email, password_hash)
        if operator is not None:
            audit.record(conn, author(), "operator_created", subject=operator.email)
    if operator is None:
        raise click.ClickException(
            f"{email} is an operator already. Use 'flask operators reset-password {email}' to set a new password."
        )
    click.echo(f"{operator.email} may log in now.")


@operators_group.command("reset-password")
@click.argument("email")
@password_from_stdin
def reset_password(email: str, password_stdin: bool) -> None:
    """Set a new password for EMAIL and end all of that operator's sessions."""
    password_hash = _hash(_read_password(password_stdin))
    with transaction() as conn:
        operator_id = operators.reset_password(conn, email, password_hash)
        ended = 0 if operator_id is None else sessions.end_all(conn, operator_id)
        if operator_id is not None:
            audit.record(conn, author(), "password_reset", subject=operators.normalize_email(email))
    if operator_id is None:
        raise _unknown(email)
    click.echo(f"The password of {email} was changed; sessions ended: {ended}.")


@operators_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_operators(as_json: bool) -> None:
    """List the operators."""
    with transaction() as conn:
        found = operators.list_all(conn)
    if as_json:
        rows = [
            {
                "email": operator.email,
                "created_at": operator.created_at.isoformat(),
                "password_changed_at": operator.password_changed_at.isoformat(),
            }
            for operator in found
        ]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for operator in found:
        click.echo(f"{operator.email}  since {operator.created_at:%Y-%m-%d}")
    if not found:
        click.echo("There is no operator yet. Add one with 'flask operators create EMAIL'.", err=True)


@operators_group.command("remove")
@click.argument("email")
def remove(email: str) -> None:
    """Remove the operator EMAIL and end all of that operator's sessions."""
    with transaction() as conn:
        removed = operators.remove(conn, email)
        if removed:
            audit.record(conn, author(), "operator_removed", subject=operators.normalize_email(email))
    if not removed:
        raise _unknown(email)
    click.echo(f"{email} may no longer log in.")


def _read_password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    password: str = click.prompt("Password", hide_input=True, confirmation_prompt="Once more", err=True)
    return password


def _hash(password: str) -> str:
    try:
        return passwords.hash_password(password)
    except InvalidField as error:
        raise click.ClickException(error.detail) from error


def _unknown(email: str) -> click.ClickException:
    return click.ClickException(f"{email} is no operator. 'flask operators list' shows who is.")
