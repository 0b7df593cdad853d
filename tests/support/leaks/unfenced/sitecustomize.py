"""Takes the second fence away from every process that has this folder in PYTHONPATH, and lets all loggers speak.

Python imports a module of this name at its start. What is logged then is what the code has written: care at the place
of writing is all that keeps secrets out of it. RDSERVICE_TEST_BREAK names a place that fails, with secrets in reach.
"""

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from rdservice.config.settings import Settings
from rdservice.logs import formatting


def _not_redacting(_secrets: Iterable[str]) -> Callable[[str], str]:
    return lambda text: text


def _configure_for_debugging(settings: Settings) -> None:
    _configure(settings)
    for name in (None, "psycopg", "psycopg.pool", "requests", "flask", "asyncio"):
        logging.getLogger(name).setLevel(logging.DEBUG)


def _fail(*arguments: Any, **named: Any) -> NoReturn:
    in_reach = (arguments, named, dict(os.environ))
    raise LookupError(f"broken on purpose, with {len(in_reach)} things in reach")


def _break(place: str) -> None:
    if place == "view":
        from rdservice.leads import queries

        queries.lead_by_email = _fail
    elif place == "refresh":
        from rdservice.tokens.refresh import Refresher

        Refresher._exchange = _fail  # type: ignore[method-assign]
    elif place == "loop":
        from rdservice.tokens import workers

        workers.beat = _fail


_configure = formatting.configure_logging
formatting.configure_logging = _configure_for_debugging
vars(formatting)["redactor"] = _not_redacting
_break(os.environ.get("RDSERVICE_TEST_BREAK", ""))
