"""`flask notifications`: what was told to whom, and a test."""

import time
from typing import Any

import click

from rdservice.access import audit
from rdservice.cli.connection import author, check, errors_in_one_line, transaction
from rdservice.cli.json_output import as_json_option, print_json, time_or_null
from rdservice.cli.translated_help import Group
from rdservice.database import pool
from rdservice.notifications import deliveries
from rdservice.notifications.deliveries import LEASE_S, Delivery
from rdservice.notifications.notifier import Notifier
from rdservice.notifications.targets import targets
from rdservice.text.terminal import tell
from rdservice.web.http.context import services

notifications_group = Group("notifications", help="List notifications, and send a test.")

MOST_LISTED = 100
LOOK_EVERY_S = 0.5


@notifications_group.command("list")
@as_json_option
def list_messages(as_json: bool) -> None:
    """List the newest notifications and their results.

    Shows the 100 newest, newest first. The service sends them when an account needs a person.

    \b
    Example:
      flask notifications list --json
    """
    with transaction() as conn:
        sent = deliveries.newest(conn, limit=MOST_LISTED)
    _print(sent, as_json=as_json)


@notifications_group.command("test")
@as_json_option
def test(as_json: bool) -> None:
    """Send a test to all targets of NOTIFY_URLS.

    Needs no worker. Exit status 1: not all of them accepted it, or there is none.

    \b
    Example:
      flask notifications test
    """
    settings = services().settings
    if not settings.notify_urls:
        raise click.ClickException(tell("NOTIFY_URLS is not set: there is nobody to send a test to."))
    check()
    with transaction() as conn:
        number = deliveries.begin_test(conn, targets(settings.notify_urls, settings.secret_key))
        audit.record(conn, author(), "notification_tested", subject=str(number))
    with errors_in_one_line():
        sent = _send(number)
    _print(sent, as_json=as_json)
    if any(delivery.outcome != "sent" for delivery in sent):
        raise SystemExit(1)


def _send(number: int) -> list[Delivery]:
    """Send what no worker sends already, and return all results."""
    notifier = Notifier(services().pool, services().settings, services().metrics)
    give_up_at = time.monotonic() + LEASE_S
    while True:
        while notifier.send_next(number):
            pass
        with pool.transaction(services().pool) as conn:
            sent = deliveries.of_notification(conn, number)
        if all(delivery.outcome for delivery in sent) or time.monotonic() > give_up_at:
            return sent
        time.sleep(LOOK_EVERY_S)


def _print(sent: list[Delivery], *, as_json: bool) -> None:
    if as_json:
        print_json([_shown(delivery) for delivery in sent])
        return
    for delivery in sent:
        result = " ".join(filter(None, (delivery.outcome or tell("waiting"), delivery.error)))
        click.echo(
            f"{delivery.created_at:%Y-%m-%d %H:%M:%S} UTC  {delivery.notification_id}  {delivery.kind}"
            f"  {delivery.label}  {result}"
        )


def _shown(delivery: Delivery) -> dict[str, Any]:
    return {
        "notification": delivery.notification_id,
        "kind": delivery.kind,
        "created_at": time_or_null(delivery.created_at),
        "target": delivery.label,
        "outcome": delivery.outcome,
        "attempts": delivery.attempts,
        "attempted_at": time_or_null(delivery.attempted_at),
        "error": delivery.error,
    }
