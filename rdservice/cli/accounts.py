"""`flask accounts`: the connected accounts, for scripts and terminals."""

import json
from typing import Any

import click
from flask.cli import AppGroup

from rdservice import uploads
from rdservice.cli.connection import author, check, errors_in_one_line, transaction
from rdservice.tokens import attempts, store
from rdservice.tokens.store import AccountState
from rdservice.web.context import services

accounts_group = AppGroup(
    "accounts", help="Connected RD Station accounts: list, show, refresh and disconnect them."
)

MOST_ACCOUNTS = 100_000


@accounts_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_accounts(as_json: bool) -> None:
    """List all accounts with their states."""
    with transaction() as conn:
        found = store.list_accounts(conn, limit=MOST_ACCOUNTS)
    if as_json:
        click.echo(json.dumps([_shown(account) for account in found], indent=2, ensure_ascii=False))
        return
    for account in found:
        click.echo(
            f"{account.account_id}  {account.name or '-'}  {account.status}"
            f"  valid until {account.expires_at:%Y-%m-%d %H:%M} UTC"
        )
    if not found:
        click.echo("No account is connected yet.", err=True)


@accounts_group.command("show")
@click.argument("account_id", default=store.DEFAULT_ACCOUNT)
def show(account_id: str) -> None:
    """Print the state of ACCOUNT_ID and its latest refresh attempts as JSON, without any token."""
    with transaction() as conn:
        account = store.account_state(conn, account_id)
        recent = attempts.recent(conn, account_id, limit=10)
    if account is None:
        raise click.ClickException(
            f"No account {account_id!r} is connected. 'flask accounts list' shows all."
        )
    shown = _shown(account) | {
        "attempts": [
            {
                "claim": attempt.claim_no,
                "started_at": attempt.started_at.isoformat(),
                "reason": attempt.reason,
                "outcome": attempt.outcome,
                "http_status": attempt.http_status,
                "error": attempt.error,
            }
            for attempt in recent
        ]
    }
    click.echo(json.dumps(shown, indent=2, ensure_ascii=False))


@accounts_group.command("refresh")
@click.argument("account_id", default=store.DEFAULT_ACCOUNT)
def refresh(account_id: str) -> None:
    """Renew the tokens of ACCOUNT_ID now."""
    check()
    with errors_in_one_line():
        result = services().access_tokens.refresh_now(account_id, by=author())
    click.echo(f"{account_id}: {result}")
    if result not in ("stored", "superseded"):
        raise SystemExit(1)


@accounts_group.command("disconnect")
@click.argument("account_id")
def disconnect(account_id: str) -> None:
    """Remove the tokens of ACCOUNT_ID here and revoke them at RD Station."""
    check()
    with errors_in_one_line():
        removed = uploads.disconnect(services(), account_id, by=author())
    click.echo(f"{account_id} is disconnected" + (" and revoked at RD Station." if removed.revoked else "."))
    for notice in removed.warnings:
        click.echo(f"Warning: {notice.text}", err=True)


def _shown(account: AccountState) -> dict[str, Any]:
    return {
        "account_id": account.account_id,
        "name": account.name,
        "status": account.status,
        "expires_at": account.expires_at.isoformat(),
        "next_renewal": account.due_at.isoformat(),
        "last_error": account.last_error,
        "failures": account.failures,
    }
