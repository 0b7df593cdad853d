"""The `flask` commands."""

from flask import Flask

from rdservice.cli.accounts import accounts_group
from rdservice.cli.audit import audit_group
from rdservice.cli.encryption import encryption_group
from rdservice.cli.keys import keys_group
from rdservice.cli.leads import leads_group
from rdservice.cli.notifications import notifications_group
from rdservice.cli.operators import operators_group
from rdservice.cli.privacy import privacy_group
from rdservice.cli.release import release
from rdservice.cli.settings import settings_group
from rdservice.cli.webhooks import webhooks_group

COMMANDS = (
    release,
    operators_group,
    keys_group,
    accounts_group,
    leads_group,
    audit_group,
    notifications_group,
    encryption_group,
    privacy_group,
    settings_group,
    webhooks_group,
)


def register(app: Flask) -> None:
    """Give `app` the commands."""
    for command in COMMANDS:
        app.cli.add_command(command)
