"""`flask webhooks`: RD Station's subscriptions to lead events."""

from collections.abc import Iterable
from typing import Any

import click
from flask.cli import AppGroup

from rdservice.cli.connection import author, check, errors_in_one_line, transaction
from rdservice.cli.json_output import as_json_option, print_json, time_or_null
from rdservice.events.subscriptions import manage, store
from rdservice.events.subscriptions.store import Subscription
from rdservice.notices import Notice
from rdservice.tokens.store import DEFAULT_ACCOUNT
from rdservice.web.http.context import services

webhooks_group = AppGroup("webhooks", help="Make, end and list subscriptions to lead events.")
of_account = click.option(
    "--account", "account_id", default=DEFAULT_ACCOUNT, show_default=True, help="The account's name here."
)


@webhooks_group.command("subscribe")
@of_account
def subscribe(account_id: str) -> None:
    """Let RD Station deliver an account's lead events.

    Those are conversions and opportunities. Makes both subscriptions with a new secret address, unless they are
    there. Safe to repeat.

    \b
    Example:
      flask webhooks subscribe --account default
    """
    check()
    with errors_in_one_line():
        done = manage.subscribe(services(), account_id, by=author())
    click.echo(f"{account_id}: {'subscribed' if done.changed else 'was subscribed already'}")
    _warn(done.warnings)


@webhooks_group.command("unsubscribe")
@of_account
def unsubscribe(account_id: str) -> None:
    """Let RD Station deliver no more of them.

    Safe to repeat.

    \b
    Example:
      flask webhooks unsubscribe --account default
    """
    check()
    with errors_in_one_line():
        done = manage.unsubscribe(services(), account_id, by=author())
    click.echo(f"{account_id}: {'unsubscribed' if done.changed else 'was not subscribed'}")
    _warn(done.warnings)


@webhooks_group.command("list")
@as_json_option
def list_subscriptions(as_json: bool) -> None:
    """List the accounts with subscriptions.

    With RD Station's ids of these.

    \b
    Example:
      flask webhooks list --json
    """
    with transaction() as conn:
        found = store.list_all(conn)
    if as_json:
        print_json([_shown(row) for row in found])
        return
    for row in found:
        ids = " ".join(f"{event_type}={uuid}" for event_type, uuid in sorted(row.subscribed.items()))
        click.echo(
            f"{row.account_id}  {_state(row)}  since {row.created_at:%Y-%m-%d %H:%M} UTC  {ids or '-'}"
        )
    if not found:
        click.echo("No account's lead events are subscribed.", err=True)


def _warn(notices: Iterable[Notice]) -> None:
    for notice in notices:
        click.echo(f"Warning: {notice.text}", err=True)


def _shown(row: Subscription) -> dict[str, Any]:
    return {
        "account_id": row.account_id,
        "state": _state(row),
        "created_at": time_or_null(row.created_at),
        "subscribed": dict(row.subscribed),
    }


def _state(row: Subscription) -> str:
    if not row.current:
        # Another RD Station account is connected by now.
        return "void"
    return "under way" if row.complete_at is None else "in force"
