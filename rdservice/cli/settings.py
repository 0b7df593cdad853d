"""`flask settings`: what this process was told."""

import click
from flask.cli import AppGroup

from rdservice.notifications import targets
from rdservice.web.context import services

settings_group = AppGroup("settings", help="The settings of this process.")


@settings_group.command("check")
def check() -> None:
    """Say that the settings can be used; broken ones end every command with a list of what to mend (status 78)."""
    settings = services().settings
    click.echo("The settings can be used.")
    click.echo(f"  operators come back from RD Station to {settings.redirect_uri}")
    click.echo(f"  RD Station is {settings.api_url}, scope {settings.scope}")
    click.echo(f"  client secrets: {len(settings.client_secrets)}")
    click.echo(f"  encryption keys (the first encrypts): {', '.join(services().keys.key_ids)}")
    shown = ", ".join(targets.label(url) for url in settings.notify_urls) or "nobody (NOTIFY_URLS is not set)"
    click.echo(f"  notifications go to: {shown}")
    click.echo(
        f"  production: {'yes' if settings.production else 'no'}, proxies trusted: {settings.trusted_proxies}"
    )
