"""`flask settings`: what this process was told."""

import sys

import click
from flask.cli import AppGroup

from rdservice.cli.json_output import as_json_option, print_json
from rdservice.config import notify_urls
from rdservice.config.settings import EXIT_CONFIG
from rdservice.notifications import targets
from rdservice.text import settings_problems, terminal
from rdservice.web.http.context import services

settings_group = AppGroup("settings", help="Check the settings.")


@settings_group.command("check")
@as_json_option
def check(as_json: bool) -> None:
    """Say whether the settings can be used.

    Shows none of the secrets. Broken settings end this command, as every other, with a list of what to correct on
    standard error and exit status 78. So does, here alone, a receiver in NOTIFY_URLS that apprise cannot use.

    \b
    Example:
      flask settings check --json
    """
    settings = services().settings
    problems = targets.unusable(settings.notify_urls)
    if problems:
        click.echo(settings_problems.report(terminal.language(), problems), err=True)
        sys.exit(EXIT_CONFIG)
    if as_json:
        print_json(
            {
                "usable": True,
                "redirect_uri": settings.redirect_uri,
                "api_url": settings.api_url,
                "scope": settings.scope,
                "client_secrets": len(settings.client_secrets),
                "encryption_key_ids": services().keys.key_ids,
                "notify": [notify_urls.label(url) for url in settings.notify_urls],
                "production": settings.production,
                "trusted_proxies": settings.trusted_proxies,
            }
        )
        return
    click.echo("The settings can be used.")
    click.echo(f"  operators come back from RD Station to {settings.redirect_uri}")
    click.echo(f"  RD Station is {settings.api_url}, scope {settings.scope}")
    click.echo(f"  client secrets: {len(settings.client_secrets)}")
    click.echo(f"  encryption keys (the first encrypts): {', '.join(services().keys.key_ids)}")
    shown = (
        ", ".join(notify_urls.label(url) for url in settings.notify_urls) or "nobody (NOTIFY_URLS is not set)"
    )
    click.echo(f"  notifications go to: {shown}")
    click.echo(
        f"  production: {'yes' if settings.production else 'no'}, proxies trusted: {settings.trusted_proxies}"
    )
