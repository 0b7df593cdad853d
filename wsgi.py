"""The web application, for gunicorn (`gunicorn wsgi:app`) and for the `flask` commands.

Each process imports this module for itself: the threads of the connection pool do not survive a fork.
"""

import os
import sys

from flask import Flask

from rdservice import cli
from rdservice.config.problems import SettingsError
from rdservice.config.process import leave_no_core_file
from rdservice.config.settings import EXIT_CONFIG, Settings
from rdservice.logs.formatting import configure_logging
from rdservice.services import Services
from rdservice.text import settings_problems, terminal
from rdservice.web import create_app


def start() -> Flask:
    """Return the application with its services started. Leaves with status 78 when the settings cannot be used."""
    leave_no_core_file()
    try:
        settings = Settings.load()
    except SettingsError as error:
        print(settings_problems.report(terminal.language(), error.problems), file=sys.stderr)
        raise SystemExit(EXIT_CONFIG) from None
    configure_logging(settings)
    # Set by the command `flask`. It shares the server's connections with the processes that run: it opens one, late.
    is_command = os.environ.get("FLASK_RUN_FROM_CLI") == "true"
    if is_command:
        services = Services.start(settings, name="command", pool_size=1, keep=0)
    else:
        services = Services.start(settings, name="web")
    app = create_app(services)
    cli.register(app)
    return app


app = start()
