"""The worker's thread that compares incidents and sends notifications.

It cannot delay refreshes: it shares only the connection pool with them, and holds one connection for short moments.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from rdservice.config.settings import Settings
from rdservice.database import outage
from rdservice.database.pool import transaction, write_for_sure
from rdservice.metrics.definitions import Metrics
from rdservice.notifications import deliveries, incidents, messages, refused_together, targets
from rdservice.notifications.deliveries import Leased
from rdservice.notifications.messages import Message
from rdservice.notifications.targets import SendFailed, Target

log = logging.getLogger(__name__)

COMPARE_EVERY_S = 10.0
LOOK_EVERY_S = 2.0
"""How often it looks for due deliveries; short, because a person waits for a test."""
END_WITHIN_S = 10.0
BE_QUICK = "SET LOCAL statement_timeout = '5s'"

Send = Callable[[Target, str, str], None]


class Notifier:
    """Opens and closes incidents and sends messages. Any number of processes may run one."""

    def __init__(
        self,
        pool: ConnectionPool[psycopg.Connection[Any]],
        settings: Settings,
        metrics: Metrics,
        *,
        send: Send = targets.send,
    ) -> None:
        self._pool = pool
        self._metrics = metrics
        self._origin = settings.public_origin
        self._targets = {
            target.key: target for target in targets.targets(settings.notify_urls, settings.secret_key)
        }
        self._send = send
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Start nothing new, and wait up to END_WITHIN_S for the message that is being sent."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(END_WITHIN_S)

    def compare(self) -> None:
        """Open and close incidents, and create the message that reports them."""
        given_up = 0
        with transaction(self._pool) as conn:
            conn.execute(BE_QUICK)
            if incidents.compare(conn):
                given_up = deliveries.give_up(conn)
                deliveries.tell(conn, list(self._targets.values()))
        self._metrics.notifications("given_up", given_up)

    def send_next(self, notification_id: int | None = None) -> bool:
        """Send the next due delivery, if given only of the message `notification_id`; return whether there was one."""
        if not self._targets:
            return False
        with transaction(self._pool) as conn:
            leased = deliveries.lease(conn, list(self._targets.values()), notification_id)
            message = None if leased is None else self._message(conn, leased)
        if leased is None:
            return False
        if message is None:
            with transaction(self._pool) as conn:
                deliveries.end(conn, leased, "not_needed")
        else:
            self._deliver(leased, message)
        return True

    def _message(self, conn: psycopg.Connection[Any], leased: Leased) -> Message | None:
        if leased.kind == "test":
            return messages.test(self._origin)
        told = incidents.told_in(conn, leased.notification_id, leased.target)
        if not told:
            return None
        return messages.of_incidents(told, self._origin, refused_together=refused_together.count(conn))

    def _deliver(self, leased: Leased, message: Message) -> None:
        target = self._targets[leased.target]
        try:
            self._send(target, message.title, message.body)
        except SendFailed as failed:
            log.warning(
                "notification %d to %s was not sent (%s)", leased.notification_id, target.label, failed.error
            )
            error = failed.error
            self._metrics.notifications("given_up" if leased.only_attempt else "failed")
            self._write(lambda conn: deliveries.fail(conn, leased, error))
        else:
            log.info("notification %d to %s was sent", leased.notification_id, target.label)
            self._metrics.notifications("sent")
            self._write(lambda conn: deliveries.end(conn, leased, "sent"))

    def _write(self, change: Callable[[psycopg.Connection[Any]], None]) -> None:
        """Record an outcome, with retries: without the record the message would be sent again."""
        write_for_sure(self._pool, change, give_up=self._stop, timeout_s=deliveries.LEASE_S / 2)

    def _run(self) -> None:
        next_comparison_s = 0.0
        while not self._stop.is_set():
            try:
                if next_comparison_s <= 0:
                    next_comparison_s = COMPARE_EVERY_S
                    self.compare()
                while not self._stop.is_set() and self.send_next():
                    pass
            except (psycopg.Error, PoolTimeout) as error:
                outage.log.warning("notifications wait for the database (%s)", type(error).__name__)
            except Exception:
                # An error in one message must not stop the next ones.
                log.exception("a notification failed unexpectedly")
            self._stop.wait(LOOK_EVERY_S)
            next_comparison_s -= LOOK_EVERY_S
