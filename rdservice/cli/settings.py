"""`flask settings`: what this process was told."""

import sys

import click

from rdservice.cli.json_output import as_json_option, print_json
from rdservice.cli.translated_help import Group
from rdservice.config import notify_urls
from rdservice.config.settings import EXIT_CONFIG
from rdservice.notifications import targets
from rdservice.text import settings_problems
from rdservice.text.terminal import language, tell
from rdservice.web.http.context import services

settings_group = Group("settings", help="Check the settings.")


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
        click.echo(settings_problems.report(language(), problems), err=True)
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
    receivers = ", ".join(notify_urls.label(url) for url in settings.notify_urls)
    click.echo(tell("The settings can be used."))
    for line in (
        tell("operators come back from RD Station to %(url)s", url=settings.redirect_uri),
        tell("RD Station is %(url)s, scope %(scope)s", url=settings.api_url, scope=settings.scope),
        tell("client secrets: %(count)s", count=len(settings.client_secrets)),
        tell("encryption keys (the first encrypts): %(keys)s", keys=", ".join(services().keys.key_ids)),
        tell(
            "notifications go to: %(receivers)s",
            receivers=receivers or tell("nobody (NOTIFY_URLS is not set)"),
        ),
        tell(
            "production: %(answer)s, proxies trusted: %(count)s",
            answer=tell("yes") if settings.production else tell("no"),
            count=settings.trusted_proxies,
        ),
    ):
        click.echo(f"  {line}")
