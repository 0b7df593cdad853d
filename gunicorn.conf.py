"""gunicorn's settings, for a deployment and for scripts/start. With PORT set gunicorn binds 0.0.0.0:$PORT by itself."""

import ctypes
import os
import signal
import sys
from typing import Any

from rdservice.config.problems import SettingsError
from rdservice.config.process import leave_no_core_file
from rdservice.config.settings import EXIT_CONFIG, Settings
from rdservice.gunicorn_hooks.logger_class import ServerLog
from rdservice.text import settings_problems, terminal

# Requests wait for RD Station and for each other's refreshes, not for the processor: few processes, many threads.
# Two processes fit into 512 MB; platforms set WEB_CONCURRENCY to suit their size.
workers = int(os.environ.get("WEB_CONCURRENCY") or 2)
# gthread, with a bound on what slow clients can hold.
worker_class = "rdservice.gunicorn_hooks.worker_class.Worker"
threads = 64

# The heartbeat's file: on a disk a busy one makes workers look dead.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - gunicorn uses mkstemp
timeout = 30
# Longer than the deadline of a call to RD Station (20 s), shorter than the 30 s that platforms leave after SIGTERM.
graceful_timeout = 25
# Longer than the 90 s for which Heroku's router keeps idle connections, so that it never sends into a closing one.
keepalive = 95

# The longest valid one has 200 characters of an account and 255 of a segmentation, at twelve bytes each.
limit_request_line = 8190
limit_request_fields = 64
limit_request_field_size = 8190
# X_Forwarded_For would look like X-Forwarded-For to the application; dropping it silently would hide who sent it.
header_map = "refuse"

# The application decides which proxies to believe (TRUSTED_PROXIES). FORWARDED_ALLOW_IPS would override the default.
forwarded_allow_ips = ""
# The application logs routes; gunicorn would log whole URLs, with people's e-mail addresses.
accesslog = None
logger_class = ServerLog
# It would be one file for all copies of the service that a user runs.
control_socket_disable = True


def on_starting(server: Any) -> None:
    """End with status 78 when the settings cannot be used; workers that fail would be started again for ever."""
    leave_no_core_file()
    try:
        Settings.load()
    except SettingsError as error:
        print(settings_problems.report(terminal.language(), error.problems), file=sys.stderr)
        raise SystemExit(EXIT_CONFIG) from None


PR_SET_PDEATHSIG = 1  # linux/prctl.h


def post_fork(server: Any, worker: Any) -> None:
    """End a worker with its master: when that was killed a worker would serve its open connections for 25 s."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def worker_exit(server: Any, worker: Any) -> None:
    """Let a worker that ends store the answers of refreshes under way and hand over what it has counted."""
    # None when the application could not be loaded, or is another one.
    application = getattr(worker, "wsgi", None)
    services = None if application is None else application.extensions.get("rdservice")
    if services is not None:
        services.close()
