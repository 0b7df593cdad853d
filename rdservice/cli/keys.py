"""`flask keys`: API keys of programs."""

import click

from rdservice.access import audit, keys
from rdservice.cli.confirmation import confirm, yes_option
from rdservice.cli.connection import author, transaction
from rdservice.cli.json_output import as_json_option, print_json, time_or_null
from rdservice.cli.translated_help import Group, option
from rdservice.text.terminal import tell

keys_group = Group("keys", help="Make, list and revoke the API keys of programs.")


@keys_group.command("create")
@click.argument("name")
@option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(list(keys.SCOPES)),
    help="What the key may do; give it once for each scope.",
)
@as_json_option
def create(name: str, scopes: tuple[str, ...], as_json: bool) -> None:
    """Make an API key for a program and print it.

    NAME tells you later which key it is. The key alone goes to standard output. It cannot be shown again.

    Scopes: tokens:write connects, uploads, renews and removes tokens; tokens:status shows which accounts are connected
    and until when; tokens:read gets valid access tokens; leads:read reads leads, segmentations and lead events;
    api:call calls any RD Station route through this service; privacy:erase erases a person's data.

    \b
    Example:
      flask keys create website --scope leads:read --scope tokens:status
    """
    with transaction() as conn:
        key = keys.create(conn, name, scopes, created_by=keys.COMMAND_LINE)
        audit.record(conn, author(), "key_created", subject=keys.key_id(key), name=name, scopes=list(scopes))
    click.echo(tell("Keep this key in a safe place; it cannot be shown again:"), err=True)
    if as_json:
        # In the order in which 'flask keys list' tells them.
        ordered = [scope for scope in keys.SCOPES if scope in scopes]
        print_json({"id": keys.key_id(key), "name": name.strip(), "scopes": ordered, "key": key})
    else:
        click.echo(key)


@keys_group.command("list")
@as_json_option
def list_keys(as_json: bool) -> None:
    """List all keys, revoked ones last.

    The secrets cannot be shown. The last use is noted once a minute at most.

    \b
    Example:
      flask keys list --json
    """
    with transaction() as conn:
        found = keys.list_all(conn)
    if as_json:
        print_json(
            [
                {
                    "id": key.key_id,
                    "name": key.name,
                    "scopes": key.scopes,
                    "created_at": time_or_null(key.created_at),
                    "created_by": key.created_by,
                    "last_used_at": time_or_null(key.last_used_at),
                    "revoked_at": time_or_null(key.revoked_at),
                }
                for key in found
            ]
        )
        return
    for key in found:
        click.echo(f"{key.key_id}  {key.name}  [{' '.join(key.scopes)}]  {_state(key)}")
    if not found:
        click.echo(tell("There is no key yet. Make one with 'flask keys create NAME --scope …'."), err=True)


@keys_group.command("revoke")
@click.argument("key_id", metavar="ID")
@yes_option
def revoke(key_id: str, yes: bool) -> None:
    """Refuse a key from now on; this cannot be undone.

    ID is the 8 characters of 'flask keys list'; the whole key will do as well. Exit status 1: there is no such key.

    \b
    Example:
      flask keys revoke abcdefgh --yes
    """
    whole_key = keys.KEY_PATTERN.fullmatch(key_id)
    if whole_key is not None:
        key_id = whole_key[1]
    with transaction() as conn:
        known = keys.record(conn, key_id)
    if known is None:
        # Not what was typed: it may be a whole key with a mistake in it.
        raise click.ClickException(tell("There is no key with this ID. 'flask keys list' shows all."))
    confirm(tell("Refuse the key %(key)s of '%(name)s' from now on?", key=key_id, name=known.name), yes=yes)
    with transaction() as conn:
        keys.revoke(conn, key_id)
        audit.record(conn, author(), "key_revoked", subject=key_id)
    click.echo(tell("The key %(key_id)s is revoked and refused everywhere within a second.", key_id=key_id))


def _state(key: keys.KeyRecord) -> str:
    if key.revoked_at:
        return tell("revoked %(time)s", time=f"{key.revoked_at:%Y-%m-%d %H:%M}")
    if key.last_used_at:
        return tell("last used %(time)s", time=f"{key.last_used_at:%Y-%m-%d %H:%M}")
    return tell("never used")
