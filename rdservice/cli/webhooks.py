"""`flask webhooks`: RD Station's subscriptions to lead events."""

from typing import Any

import click

from rdservice.cli.connection import author, check, errors_in_one_line, transaction
from rdservice.cli.json_output import as_json_option, print_json, time_or_null
from rdservice.cli.translated_help import Group, option
from rdservice.cli.warnings import warn
from rdservice.events.subscriptions import manage, store
from rdservice.events.subscriptions.store import Subscription
from rdservice.text.catalogue import message
from rdservice.text.terminal import tell
from rdservice.tokens.store import DEFAULT_ACCOUNT
from rdservice.web.http.context import services

webhooks_group = Group("webhooks", help="Make, end and list subscriptions to lead events.")
of_account = option(
    "--account",
    "account_id",
    default=DEFAULT_ACCOUNT,
    show_default=True,
    help="The account's id in this service.",
)


@webhooks_group.command("subscribe")
@of_account
def subscribe(account_id: str) -> None:
    """Have RD Station deliver an account's lead events.

    Subscribes to conversions and opportunities, at a new secret address, unless both subscriptions exist. Safe to
    repeat.

    \b
    Example:
      flask webhooks subscribe --account default
    """
    check()
    with errors_in_one_line():
        done = manage.subscribe(services(), account_id, by=author())
    result = tell("subscribed") if done.changed else tell("was subscribed already")
    click.echo(f"{account_id}: {result}")
    warn(done.warnings)


@webhooks_group.command("unsubscribe")
@of_account
def unsubscribe(account_id: str) -> None:
    """End an account's subscriptions to lead events.

    Safe to repeat.

    \b
    Example:
      flask webhooks unsubscribe --account default
    """
    check()
    with errors_in_one_line():
        done = manage.unsubscribe(services(), account_id, by=author())
    result = tell("unsubscribed") if done.changed else tell("was not subscribed")
    click.echo(f"{account_id}: {result}")
    warn(done.warnings)


@webhooks_group.command("list")
@as_json_option
def list_subscriptions(as_json: bool) -> None:
    """List the accounts with subscriptions.

    Shows RD Station's ids of the subscriptions.

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
        since = tell("since %(time)s", time=f"{row.created_at:%Y-%m-%d %H:%M} UTC")
        click.echo(f"{row.account_id}  {tell(_state(row))}  {since}  {ids or '-'}")
    if not found:
        click.echo(tell("No account's lead events are subscribed."), err=True)


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
        return message("void")
    return message("under way") if row.complete_at is None else message("in force")
