"""`flask audit`: who did what."""

from typing import Any

import click

from rdservice.access import audit
from rdservice.cli.connection import check, errors_in_one_line
from rdservice.cli.json_output import as_json_option, print_json, time_or_null
from rdservice.cli.translated_help import Group
from rdservice.web.http.context import services

audit_group = Group("audit", help="See who did what, when and from where.")


@audit_group.command("list")
@as_json_option
def list_entries(as_json: bool) -> None:
    """List all entries, newest first.

    \b
    Example:
      flask audit list --json > audit.json
    """
    check()
    with errors_in_one_line():
        if as_json:
            print_json([_shown(entry) for entry in audit.every(services().pool)])
            return
        for entry in audit.every(services().pool):
            who = " ".join(filter(None, (entry.actor_kind, entry.actor_name)))
            what = " ".join(filter(None, (entry.action, entry.account_id, entry.subject)))
            click.echo(f"{entry.happened_at:%Y-%m-%d %H:%M:%S} UTC  {who}  {what}  ({entry.origin})")


def _shown(entry: audit.Entry) -> dict[str, Any]:
    return {
        "entry": entry.entry_id,
        "happened_at": time_or_null(entry.happened_at),
        "action": entry.action,
        "actor": {"kind": entry.actor_kind, "id": entry.actor_id, "name": entry.actor_name},
        "origin": entry.origin,
        "request_id": entry.request_id,
        "account_id": entry.account_id,
        "subject": entry.subject,
        "details": entry.details,
    }
