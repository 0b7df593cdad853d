"""Long responses: they end with their client, and within a second after the right of their caller has ended.

The guard judges a caller once, before the view. An export or a passed-through body may go on for much longer: meanwhile
its key may be revoked, its operator removed, or the operator's session ended. One thread per process repeats the
guard's question for all of them and cuts their connections, whatever their own threads are waiting for.
"""

import logging
import threading
from collections.abc import Callable
from typing import cast

from flask import Flask, current_app, request

from rdservice.database.pool import UNAVAILABLE
from rdservice.gunicorn_hooks.worker_class import ClientSocket
from rdservice.web.http import guard

log = logging.getLogger(__name__)

LOOK_S = 0.25
"""How often the rights are checked. A revoked key may count for another `key_memory.MAX_AGE_S`: both together stay well
below a second."""
WATCH = "rdservice_watch"


class LongResponse:
    """A response under way and its client. Call `close` when it has ended."""

    def __init__(self, watch: "Watch", may_still: Callable[[], bool], client: ClientSocket | None) -> None:
        """`may_still` returns whether the caller still has the right to it. `client`: None under other servers."""
        self.may_still = may_still
        self._watch = watch
        self._client = client
        self._is_cut = False

    def may_go_on(self) -> bool:
        """Return whether to continue: the client is connected, has the right, and the process is not stopping."""
        return not self._is_cut and (self._client is None or self._client.may_go_on())

    def is_connected(self) -> bool:
        """Return whether the client is connected and still has the right to the response. Thread-safe."""
        # Without gunicorn's socket, the next write fails after the client has disconnected.
        return not self._is_cut and (self._client is None or self._client.is_connected())

    def cut(self) -> None:
        """End the connection in the middle of the response, so that the client notices that it is incomplete."""
        self._is_cut = True
        if self._client is not None:
            self._client.cut()

    def close(self) -> None:
        """Stop watching."""
        self._watch.remove(self)


class Watch:
    """Checks the rights of all long responses of this process, in a thread that runs while there are any."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._under_way: set[LongResponse] = set()
        self._runs = False
        self._failing = False

    def add(self, response: LongResponse) -> None:
        with self._changed:
            self._under_way.add(response)
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name="rights", daemon=True).start()

    def remove(self, response: LongResponse) -> None:
        with self._changed:
            self._under_way.discard(response)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._under_way, LOOK_S)
                if not self._under_way:
                    self._runs = False
                    return
                watched = list(self._under_way)
            try:
                for response in watched:
                    if not response.may_still():
                        self._cut(response)
            except Exception as error:  # noqa: BLE001 - the thread must go on
                self._report(error)
            else:
                self._failing = False

    def _cut(self, response: LongResponse) -> None:
        # After its end, the connection may serve the next request: then it must not be cut.
        with self._changed:
            if response in self._under_way:
                self._under_way.remove(response)
                response.cut()
                log.warning(
                    "a response was cut off: its key was revoked, or its operator's session has ended"
                )

    def _report(self, error: Exception) -> None:
        """Log the first of consecutive failures. A right that cannot be checked counts as before: nothing is known."""
        if not self._failing:
            unexpected = None if isinstance(error, UNAVAILABLE) else error
            log.warning(
                "the rights to responses under way cannot be checked (%s)",
                type(error).__name__,
                exc_info=unexpected,
            )
        self._failing = True


def init_app(app: Flask) -> None:
    """Prepare `app` for long responses."""
    app.extensions[WATCH] = Watch()


def begin() -> LongResponse:
    """Return the long response of this request, whose right is checked from now on until it is closed."""
    client = request.environ.get("gunicorn.socket")
    watch = cast(Watch, current_app.extensions[WATCH])
    response = LongResponse(watch, guard.check_again(), client if isinstance(client, ClientSocket) else None)
    watch.add(response)
    return response
