"""`python -m worker` runs `auto_refresh_tokens` until SIGTERM or SIGINT.

Exit status: 0 after a signal, 78 (EX_CONFIG) if the settings are invalid or the encryption keys are missing.
"""

import logging
import os
import sys
import threading

from rdservice.config.problems import SettingsError
from rdservice.config.process import leave_no_core_file
from rdservice.config.settings import EXIT_CONFIG, Settings
from rdservice.encryption import KeyMissing
from rdservice.logs.formatting import configure_logging
from rdservice.notifications.notifier import Notifier
from rdservice.services import Services
from rdservice.text import settings_problems, terminal
from rdservice.worker.auto_refresh import auto_refresh_tokens
from rdservice.worker.bell import Bell, stop_on_signal
from rdservice.worker.names import NameReader

log = logging.getLogger("worker")

GIVE_UP_WRITING_S = 19.0
"""After a signal: how long a token response may wait to be stored while the database is down."""
END_AT_LATEST_S = 25.0


def main() -> int:
    leave_no_core_file()
    try:
        settings = Settings.load()
    except SettingsError as error:
        print(settings_problems.report(terminal.language(), error.problems), file=sys.stderr)
        return EXIT_CONFIG
    configure_logging(settings)
    bell = Bell()
    stop_on_signal(bell)
    services = Services.start(settings, name="worker", pool_size=pool_size(settings))
    _bound_the_end(bell, services)
    log.info("worker %s started", services.refresher.claimed_by)
    notifier = Notifier(services.pool, settings, services.metrics)
    notifier.start()
    names = NameReader(services.refresher)
    names.start()
    try:
        auto_refresh_tokens(services.refresher, bell)
    except KeyMissing as error:
        log.critical("cannot go on: %s", error)
        return EXIT_CONFIG
    finally:
        names.close()
        notifier.close()
        services.close()
    log.info("worker ended")
    return 0


def pool_size(settings: Settings) -> int:
    """Return how many connections a worker opens at most: it spends its time waiting for RD Station."""
    return max(1, settings.database_pool_size // 2)


def _bound_the_end(bell: Bell, services: Services) -> None:
    """Ensure that the process ends within `END_AT_LATEST_S` after a stop, even if something hangs."""

    def watch() -> None:
        bell.wait_for_stop()
        if services.refresher.must_end.wait(GIVE_UP_WRITING_S):
            return
        services.refresher.must_end.set()
        threading.Event().wait(END_AT_LATEST_S - GIVE_UP_WRITING_S)
        log.error("ending by force: something did not end in %.0f s", END_AT_LATEST_S)
        logging.shutdown()
        os._exit(1)

    threading.Thread(target=watch, name="end", daemon=True).start()
