"""`flask audit`: who did what."""

import json
from typing import Any

import click
from flask.cli import AppGroup

from rdservice import audit
from rdservice.cli.connection import check, errors_in_one_line
from rdservice.web.context import services

audit_group = AppGroup("audit", help="Who did what: entries that can only be appended.")


@audit_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_entries(as_json: bool) -> None:
    """List all entries, newest first."""
    check()
    with errors_in_one_line():
        if as_json:
            shown = [_shown(entry) for entry in audit.every(services().pool)]
            click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
            return
        for entry in audit.every(services().pool):
            who = " ".join(filter(None, (entry.actor_kind, entry.actor_name)))
            what = " ".join(filter(None, (entry.action, entry.account_id, entry.subject)))
            click.echo(f"{entry.happened_at:%Y-%m-%d %H:%M:%S} UTC  {who}  {what}  ({entry.origin})")


def _shown(entry: audit.Entry) -> dict[str, Any]:
    return {
        "entry": entry.entry_id,
        "happened_at": entry.happened_at.isoformat(),
        "action": entry.action,
        "actor": {"kind": entry.actor_kind, "id": entry.actor_id, "name": entry.actor_name},
        "origin": entry.origin,
        "request_id": entry.request_id,
        "account_id": entry.account_id,
        "subject": entry.subject,
        "details": entry.details,
    }
