"""`flask keys`: API keys of programs."""

import json
from datetime import datetime

import click
from flask.cli import AppGroup

from rdservice import audit
from rdservice.access import keys
from rdservice.cli.connection import author, transaction

keys_group = AppGroup("keys", help="API keys of programs: make, list and revoke them.")

SCOPES_HELP = "What the key may do; give it once for each scope. " + "; ".join(
    f"{scope}: {meaning}" for scope, meaning in keys.SCOPES.items()
)


@keys_group.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(list(keys.SCOPES)),
    help=SCOPES_HELP + ".",
)
def create(name: str, scopes: tuple[str, ...]) -> None:
    """Make an API key for the program NAME and print it.

    The key alone goes to standard output. It cannot be shown again.
    """
    with transaction() as conn:
        key = keys.create(conn, name, scopes, created_by=keys.COMMAND_LINE)
        audit.record(conn, author(), "key_created", subject=keys.key_id(key), name=name, scopes=list(scopes))
    click.echo("Keep this key in a safe place; it cannot be shown again:", err=True)
    click.echo(key)


@keys_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_keys(as_json: bool) -> None:
    """List all keys, revoked ones last. The secrets cannot be shown."""
    with transaction() as conn:
        found = keys.list_all(conn)
    if as_json:
        rows = [
            {
                "id": key.key_id,
                "name": key.name,
                "scopes": key.scopes,
                "created_at": key.created_at.isoformat(),
                "created_by": key.created_by,
                "last_used_at": _iso(key.last_used_at),
                "revoked_at": _iso(key.revoked_at),
            }
            for key in found
        ]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for key in found:
        used = f"last used {key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used"
        state = f"revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else used
        click.echo(f"{key.key_id}  {key.name}  [{' '.join(key.scopes)}]  {state}")
    if not found:
        click.echo("There is no key yet. Make one with 'flask keys create NAME --scope …'.", err=True)


@keys_group.command("revoke")
@click.argument("key_id", metavar="ID")
def revoke(key_id: str) -> None:
    """Refuse the key ID (8 characters, as in 'flask keys list') from now on. This cannot be undone.

    The whole key will do as well.
    """
    whole_key = keys.KEY_PATTERN.fullmatch(key_id)
    if whole_key is not None:
        key_id = whole_key[1]
    with transaction() as conn:
        known = keys.revoke(conn, key_id)
        if known:
            audit.record(conn, author(), "key_revoked", subject=key_id)
    if not known:
        # Not what was typed: it may be a whole key with a mistake in it.
        raise click.ClickException("There is no key with this ID. 'flask keys list' shows all.")
    click.echo(f"The key {key_id} is revoked; it is refused everywhere within a second.")


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
