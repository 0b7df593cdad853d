"""The application with its commands, as `wsgi.py` puts them together."""

from flask import Flask

from rdservice import cli
from rdservice.services import Services
from rdservice.web import create_app


def app_with_commands(services: Services) -> Flask:
    app = create_app(services)
    cli.register(app)
    return app
