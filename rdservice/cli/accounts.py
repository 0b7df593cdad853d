"""`flask accounts`: the connected accounts, for programs and terminals."""

from datetime import datetime
from typing import Any

import click

from rdservice.accounts.disconnect import disconnect as disconnect_account
from rdservice.accounts.rename import rename as rename_account
from rdservice.cli.confirmation import confirm, yes_option
from rdservice.cli.connection import author, check, errors_in_one_line, transaction
from rdservice.cli.json_output import as_json_option, print_json, time_or_null
from rdservice.cli.translated_help import Group
from rdservice.cli.warnings import warn
from rdservice.text.terminal import tell
from rdservice.tokens import attempts, store
from rdservice.tokens.attempts import Attempt
from rdservice.tokens.store import AccountState
from rdservice.web.http.context import services

accounts_group = Group("accounts", help="List, show, renew, rename and disconnect RD Station accounts.")

MOST_ACCOUNTS = 100_000
MOST_ATTEMPTS = 10


@accounts_group.command("list")
@as_json_option
def list_accounts(as_json: bool) -> None:
    """List all accounts with their states.

    \b
    Example:
      flask accounts list --json
    """
    with transaction() as conn:
        found = store.list_accounts(conn, limit=MOST_ACCOUNTS)
    if as_json:
        print_json([_shown(account) for account in found])
        return
    for account in found:
        until = tell("valid until %(time)s", time=_minute(account.expires_at))
        also = tell("also connected as %(accounts)s", accounts=", ".join(account.same_account))
        facts = [account.account_id, account.name or "-", account.status, until]
        click.echo("  ".join([*facts, also] if account.same_account else facts))
    if not found:
        click.echo(tell("No account is connected yet."), err=True)


@accounts_group.command("show")
@click.argument("account_id", default=store.DEFAULT_ACCOUNT)
@as_json_option
def show(account_id: str, as_json: bool) -> None:
    """Show one account and its latest renewals.

    Without ACCOUNT_ID: 'default'. No token is ever shown. Exit status 1: there is no such account.

    \b
    Examples:
      flask accounts show
      flask accounts show branch-2 --json
    """
    with transaction() as conn:
        account = store.account_state(conn, account_id)
        recent = attempts.recent(conn, account_id, limit=MOST_ATTEMPTS)
    if account is None:
        raise click.ClickException(
            tell(
                "No account '%(account)s' is connected. 'flask accounts list' shows all.", account=account_id
            )
        )
    if as_json:
        print_json(_shown(account) | {"attempts": [_shown_attempt(attempt) for attempt in recent]})
        return
    for line in _lines(account, recent):
        click.echo(line)


@accounts_group.command("refresh")
@click.argument("account_id", default=store.DEFAULT_ACCOUNT)
def refresh(account_id: str) -> None:
    """Renew an account's tokens now.

    Prints the outcome: stored, superseded (another process was faster), transient, refused. Exit status 0: the tokens
    are fresh. 1: they are not; 'flask accounts show' tells why.

    \b
    Example:
      flask accounts refresh branch-2
    """
    check()
    with errors_in_one_line():
        result = services().access_tokens.refresh_now(account_id, by=author())
    click.echo(f"{account_id}: {result}")
    if result not in ("stored", "superseded"):
        raise SystemExit(1)


@accounts_group.command("disconnect")
@click.argument("account_id")
@yes_option
def disconnect(account_id: str, yes: bool) -> None:
    """Remove an account here and revoke it at RD Station.

    Both belong together, so there is no command for one of them: tokens removed here alone would live on, and tokens
    revoked there alone would be renewed in vain. Where RD Station does not confirm, or where another account here
    is connected to the same RD Station account and would lose its tokens too, they are removed here and a warning says
    that they were not revoked. To connect again an operator opens /rd/login.

    \b
    Examples:
      flask accounts disconnect branch-2
      flask accounts disconnect branch-2 --yes
    """
    check()
    question = tell("Remove the tokens of '%(account)s' and revoke them at RD Station?", account=account_id)
    confirm(question, yes=yes)
    with errors_in_one_line():
        removed = disconnect_account(services(), account_id, by=author())
    click.echo(
        tell("%(account)s is disconnected and revoked at RD Station.", account=account_id)
        if removed.revoked
        else tell("%(account)s is disconnected.", account=account_id)
    )
    warn(removed.warnings)


@accounts_group.command("rename")
@click.argument("old")
@click.argument("new")
def rename(old: str, new: str) -> None:
    """Give an account another name in this service.

    For a name that an older table brought along and that does not fit into addresses, such as shop/centre. Everything
    that is stored about the account moves with it: tokens, lead events, subscriptions. Nothing changes at RD Station.
    From then on, programs must use the new name. NEW must have 1 to 200 printable characters and no slash, and no
    account may have it. Exit status 1: nothing was changed.

    \b
    Example:
      flask accounts rename shop/centre shop-centre
    """
    check()
    with errors_in_one_line():
        rename_account(services(), old, new, by=author())
    click.echo(tell("%(old)s is called %(new)s from now on.", old=old, new=new))


def _lines(account: AccountState, recent: list[Attempt]) -> list[str]:
    is_refused = account.status == "reauthorization_required"
    due_at = account.second_look_at if is_refused else account.due_at
    values = {
        tell("Account"): account.account_id,
        tell("Name"): account.name or "-",
        tell("Also connected as"): ", ".join(account.same_account) or "-",
        tell("Status"): account.status,
        tell("Valid until"): _minute(account.expires_at),
        tell("Next renewal"): _minute(due_at)
        if due_at
        else tell("none until the account is connected again"),
        tell("Last error"): account.last_error or "-",
        tell("Failures"): account.failures,
    }
    width = max(map(len, values))
    lines = [f"{label:{width}}  {value}" for label, value in values.items()]
    if recent:
        lines += ["", tell("Latest renewals")]
    for attempt in recent:
        status = "" if attempt.http_status is None else f" HTTP {attempt.http_status}"
        error = "" if attempt.error is None else f" {attempt.error}"
        lease = tell("lease %(number)s", number=attempt.claim_no)
        outcome = attempt.outcome or tell("no outcome")
        lines.append(f"  {_minute(attempt.started_at)}  {lease}  {attempt.reason}  {outcome}{status}{error}")
    return lines


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _shown(account: AccountState) -> dict[str, Any]:
    return {
        "account_id": account.account_id,
        "name": account.name,
        "status": account.status,
        "expires_at": time_or_null(account.expires_at),
        "next_renewal": time_or_null(account.due_at),
        "last_error": account.last_error,
        "failures": account.failures,
        "same_account_as": account.same_account,
    }


def _shown_attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "claim": attempt.claim_no,
        "started_at": time_or_null(attempt.started_at),
        "reason": attempt.reason,
        "outcome": attempt.outcome,
        "http_status": attempt.http_status,
        "error": attempt.error,
    }
