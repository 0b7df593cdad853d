"""The worker's thread that asks for the names of RD Station accounts until they are known.

It cannot delay refreshes: it shares only the connection pool with them, and holds no connection during a call.
"""

import logging
import threading

import psycopg
from psycopg_pool import PoolTimeout

from rdservice.database import outage
from rdservice.database.pool import transaction
from rdservice.tokens import identity
from rdservice.tokens.refresh import Refresher

log = logging.getLogger(__name__)

LOOK_EVERY_S = 10.0
MOST_AT_ONCE = 20
"""Names that are asked for at one look, so that many accounts without a name cannot use up RD Station's limits."""
END_WITHIN_S = 10.0


class NameReader:
    """Asks for names that are missing or due. Any number of processes may run one."""

    def __init__(self, refresher: Refresher) -> None:
        self._refresher = refresher
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="names", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Start nothing new, and wait up to END_WITHIN_S for the call under way."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(END_WITHIN_S)

    def read_next(self) -> bool:
        """Ask for one name; return whether there was one to ask for."""
        with transaction(self._refresher.pool) as conn:
            account_id = identity.take_unnamed(conn)
        if account_id is None:
            return False
        identity.settle(self._refresher.pool, self._refresher.keys, self._refresher.rdstation, account_id)
        return True

    def _run(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            try:
                for _ in range(MOST_AT_ONCE):
                    if self._stop.is_set() or not self.read_next():
                        break
            except (psycopg.Error, PoolTimeout) as error:
                outage.log.warning("names wait for the database (%s)", type(error).__name__)
            except Exception:
                # An error with one account must not stop the next ones.
                log.exception("a name was not read")
