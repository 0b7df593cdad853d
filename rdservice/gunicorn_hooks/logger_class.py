"""Formats gunicorn's log lines like all others, and removes what it quotes from requests."""

import logging
import os
import re

from gunicorn import glogging
from gunicorn.config import Config

from rdservice.config.problems import SettingsError
from rdservice.config.settings import Settings, is_production
from rdservice.logs.formatting import configure_logging, formatter, formatter_without_settings

REFUSED = re.compile(r"(Invalid request from ip=\S+): .*", re.DOTALL)
FAILED = "Error handling request"


class ServerLog(glogging.Logger):
    """The value of gunicorn's setting `logger_class`."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        # gunicorn's DEBUG lines contain the path of every request.
        self.error_log.setLevel(max(self.error_log.level, logging.INFO))
        for handler in self.error_log.handlers:
            handler.setFormatter(_formatter())
        if _unquoted not in self.error_log.filters:
            self.error_log.addFilter(_unquoted)


def _formatter() -> logging.Formatter:
    try:
        settings = Settings.load()
        # Also formats warnings and crashes of the master process, which does not load the application.
        configure_logging(settings)
        return formatter(settings)
    except SettingsError:
        # gunicorn logs its first lines before `on_starting`, which reports the problems and exits.
        return formatter_without_settings(production=is_production(os.environ))


def _unquoted(record: logging.LogRecord) -> bool:
    """Cut off what gunicorn quotes from a request: headers with keys and cookies, URLs with e-mail addresses."""
    message = record.getMessage()
    if message.startswith(FAILED):
        record.msg, record.args = FAILED, ()
    elif found := REFUSED.fullmatch(message):
        record.msg, record.args = found[1], ()
    return True
